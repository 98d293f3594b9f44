"""Dendrites: plateaus, microcircuits and bursts against direct feedback, backprop, and silence without a teacher."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from building import Imitation, address, make, start_row, train

from metarule.credit import CREDIT
from metarule.credit.burst_ccn import BurstCCN
from metarule.credit.burstprop import Burstprop
from metarule.credit.bursts import Bursts
from metarule.credit.continuous_microcircuit import ContinuousMicrocircuit
from metarule.credit.dendritic_microcircuit import DendriticMicrocircuit
from metarule.credit.direct_feedback_alignment import DirectFeedbackAlignment
from metarule.credit.feedback import feedback_name, without_bias
from metarule.credit.microcircuits import to_interneurons
from metarule.credit.segregated_dendrites import SegregatedDendrites
from metarule.learner import ANY, Learner, always_one
from metarule.network import Network
from metarule.rules.textbook import ActivityDifference, Delta, Difference
from metarule.signals import Batch
from metarule.synapses.sgd import Sgd

RUNS, EVENTS = 3, 16
MICROCIRCUIT = {"forward": Difference(), "interneuron": Difference(), "lateral": Delta()}


class Case:
    """A learner at the start of three runs on a chain of layers, and a batch of one-hot targets."""

    def __init__(
        self, credit, rules, activation="sigmoid", output="sigmoid", sizes=(12, 10, 8, 4), init_scale=1.0, **values
    ):
        self.network = Network.chain(sizes, activation, output, bias=True, init_scale=init_scale)
        self.learner = Learner(self.network, credit, rules, {ANY: Sgd()})
        self.columns = self.learner.columns(start_row(self.learner, **values).repeat(RUNS, 1))
        self.state = self.learner.init(self.columns, address("start", runs=RUNS))
        self.weights = self.state["weights"]
        noise = address("batch", runs=RUNS)
        labels = noise.at("y").integers(sizes[-1], EVENTS)
        self.y = torch.eye(sizes[-1], dtype=torch.float64)[labels]
        self.batch = Batch(noise.at("x").normal(EVENTS, sizes[0]), self.y)

    @property
    def events(self):
        """Rates of a pass up."""
        return self.network.forward(self.weights, self.batch.x).rates

    def untaught(self):
        """The same with a target that the output has already reached."""
        answer = self.learner.credit.respond(
            self.columns.credit, self.network, self.weights, {}, self.batch.x, address("respond", runs=RUNS)
        )
        self.batch = self.batch._replace(y=answer.rates["output"])
        return self

    def changes(self):
        """What the batch would change."""
        return self.learner.induced(self.columns, self.state, self.batch, 0, address("run", runs=RUNS))

    def signals(self, k=0):
        """The signals of a stage."""
        return self.learner.credit.stage(
            k, self.columns.credit, self.network, self.weights, {}, self.batch, 0, address("run", runs=RUNS),
            self.learner.wanted,
        )[0]  # fmt: skip

    def trained(self, steps, rate, schedule=always_one):
        """After learning an imitation from this start, with standard normal inputs."""
        learner = Learner(self.network, self.learner.credit, self.learner.rules, {ANY: Sgd()}, schedule)
        theta = start_row(learner, rate=rate).repeat(RUNS, 1)
        sizes = self.network.sizes
        task = Imitation(sizes[self.network.input_name], sizes[self.network.output_name])
        carry = train(learner, theta, steps, task, batch=16, carry=self.state).carry
        assert carry is not None
        self.state, self.weights = carry, carry["weights"]
        return self

    def loudness(self, role):
        """Root mean square of what the apical dendrites of every layer hear without a teacher, by projection."""
        seen = self.signals()
        return {
            p.name: float(seen[p.name].read("error").square().mean().sqrt())
            for p in self.learner.plastic
            if p.role == role
        }

    def hidden(self):
        """Names of the forward projections into hidden layers."""
        return [p.name for p in self.network.projections if p.target != "output"]


def cosines(first, second, names):
    """Cosine per run between two sets of changes, the projections called `names` taken together."""
    a, b = (torch.cat([changes[name].flatten(1) for name in names], dim=1) for changes in (first, second))
    return torch.nn.functional.cosine_similarity(a, b, dim=1)


def descent(network, weights, x, output_error):
    """What autograd takes for descent on a loss whose slope in the output's drive is -output_error(drive, rate)."""
    leaves = {p.name: weights[p.name].clone().requires_grad_() for p in network.projections}
    activity = network.forward(leaves, x)
    error = output_error(activity.drives["output"], activity.rates["output"]).detach()
    gradients = torch.autograd.grad((activity.drives["output"] * error).sum(), list(leaves.values()))
    return dict(zip(leaves, gradients, strict=True))


def forward_fixed(step):
    """The schedule with which only lateral and feedback weights learn."""
    return {"forward": 0.0}


@pytest.mark.parametrize(("std", "least", "most"), [(0.01, 0.999, 1.0), (30.0, 0.0, 0.97)])
def test_plateaus_of_a_small_range_are_direct_feedback_and_saturated_ones_are_not(std, least, most):
    case = Case(SegregatedDendrites(std), {"forward": Difference()})
    direct = Case(DirectFeedbackAlignment(), {"forward": Delta()})
    direct.weights |= case.weights
    found = cosines(case.changes(), direct.changes(), case.hidden())
    assert least < float(found.min())
    assert float(found.max()) < most or most == 1.0


def test_segregated_dendrites_turn_towards_backprop_while_they_learn():
    case = Case(SegregatedDendrites(), {"forward": Difference()})

    def angle():
        true = descent(case.network, case.weights, case.batch.x, lambda v, rate: case.y - rate)
        return torch.rad2deg(torch.acos(cosines(case.changes(), true, case.hidden())))

    before = angle()
    case.trained(300, 1.0)
    assert float(before.mean()) > 85
    assert float(angle().max()) < 80
    assert float((before - angle()).min()) > 8


CIRCUITS = [DendriticMicrocircuit(), ContinuousMicrocircuit(self_predicting=True)]
each_circuit = pytest.mark.parametrize("credit", CIRCUITS, ids=lambda credit: credit.kind)


@each_circuit
@pytest.mark.parametrize("feedback", ["random", "transposed"])
@pytest.mark.parametrize(("activation", "output"), [("sigmoid", "sigmoid"), ("tanh", "linear")])
def test_in_the_self_predicting_state_apical_dendrites_are_silent_without_a_teacher(
    credit, feedback, activation, output
):
    case = Case(dataclasses.replace(credit, feedback=feedback), MICROCIRCUIT, activation, output)
    silent = [seen.error for seen in case.signals().values() if seen.error is not None]
    assert len(silent) == 2
    assert max(float(error.abs().max()) for error in silent) <= 1e-12


@each_circuit
def test_a_microcircuit_that_predicts_itself_learns_nothing_from_a_target_it_has_reached(credit):
    case = Case(credit, MICROCIRCUIT, "tanh", "linear").untaught()
    assert max(float(change.abs().max()) for change in case.changes().values()) <= 1e-12


@pytest.mark.parametrize(("nudge", "least"), [(0.5, 0.97), (0.1, 0.999), (0.01, 0.99999)])
def test_a_microcircuit_with_transposed_feedback_follows_backprop_as_teaching_gets_weak(nudge, least):
    case = Case(DendriticMicrocircuit(), MICROCIRCUIT, nudge=nudge)
    target = torch.logit(0.1 + 0.7 * case.y)
    true = descent(case.network, case.weights, case.batch.x, lambda v, rate: rate * (1 - rate) * (target - v))
    assert float(cosines(case.changes(), true, true).min()) > least


def test_the_continuous_microcircuit_follows_backprop_as_teaching_gets_weak():
    credit = ContinuousMicrocircuit(self_predicting=True, duration=100)
    case = Case(credit, MICROCIRCUIT, nudge=0.01)
    shares = {p.name: credit.share(case.network, p.target) for p in case.network.projections}
    scaled = {name: share * case.weights[name] for name, share in shares.items()}
    target = torch.logit(0.1 + 0.7 * case.y)
    true = descent(case.network, scaled, case.batch.x, lambda v, rate: rate * (1 - rate) * (target - v))
    changes = case.changes()
    for name in true:
        assert float(cosines(changes, true, [name]).min()) > 0.9999


def test_what_interneurons_fail_to_predict_is_amplified_by_the_gain_layer_by_layer():
    def spurious(nudge):
        case = Case(DendriticMicrocircuit(), MICROCIRCUIT, "tanh", "linear", nudge=nudge).untaught()
        for projection in case.network.projections[1:]:
            case.weights[to_interneurons(projection).name] *= 1.001
        return {name: float(change.norm()) for name, change in case.changes().items()}

    weak, strong = spurious(0.1), spurious(0.3)
    # a mismatch enters a layer with weight nudge, and its gain is nudge^-2 or nudge^-3
    assert weak["input->hidden1"] / strong["input->hidden1"] == pytest.approx(9, rel=0.2)
    assert weak["hidden1->hidden2"] / strong["hidden1->hidden2"] == pytest.approx(3, rel=0.2)
    assert weak["hidden2->output"] <= 1e-12


def test_lateral_weights_learned_without_a_teacher_reach_the_self_predicting_state():
    learned, ideal = (
        Case(ContinuousMicrocircuit(self_predicting=known), MICROCIRCUIT, "tanh", "linear", (16, 8, 4, 2), 2.0)
        for known in (False, True)
    )

    def alignment():
        return [cosines(learned.changes(), ideal.changes(), [name]) for name in learned.hidden()]

    assert max(float(cosine.max()) for cosine in alignment()) < 0.7
    before = learned.loudness("lateral")
    # large rates diverge while interneurons still do not follow the layer above
    after = learned.trained(200, 0.1, forward_fixed).trained(400, 0.3, forward_fixed).loudness("lateral")
    assert len(before) == 2
    for name in before:
        assert after[name] < before[name] / 100, name
    for projection in learned.learner.projections:
        found, wanted = learned.weights[projection.name], ideal.weights[projection.name]
        distance = float(((found - wanted).flatten(1).norm(dim=1) / wanted.flatten(1).norm(dim=1)).max())
        assert distance < (0.1 if projection.role in ("interneuron", "lateral") else 1e-15), projection.name
    assert min(float(cosine.min()) for cosine in alignment()) > 0.95


BURSTS = [Burstprop(), BurstCCN()]
each_burst = pytest.mark.parametrize("credit", BURSTS, ids=lambda credit: credit.kind)


def aimed(case):
    """Y = W^T, and Q = Y / 2 where there is a Q."""
    for projection in case.network.projections[1:]:
        down = feedback_name(projection)
        case.weights[down] = without_bias(projection, case.weights[projection.name]).mT.contiguous()
    case.weights |= case.learner.credit.tied(case.network, case.weights)
    return case


@pytest.mark.parametrize(
    ("credit", "least"), [(Burstprop(), 0.97), (BurstCCN(), 0.9999), (BurstCCN(slope=1.0), 0.9999)]
)
def test_bursts_through_transposed_weights_descend_the_squared_error(credit, least):
    case = aimed(Case(credit, {"forward": ActivityDifference()}))
    true = descent(case.network, case.weights, case.batch.x, lambda v, e: e * (1 - e) * (case.y - e))
    changes = case.changes()
    for name in true:
        assert float(cosines(changes, true, [name]).min()) > least


@each_burst
def test_without_a_target_bursts_are_at_baseline_and_nothing_changes(credit):
    case = Case(credit, {"forward": ActivityDifference()}).untaught()
    for name, change in case.changes().items():
        assert float(change.abs().max()) <= 1e-15, name
    seen = case.signals()
    torch.testing.assert_close(seen["hidden2->output"].read("post"), credit.baseline * case.events["output"])
    if credit.baseline == 0.5:
        torch.testing.assert_close(seen["input->hidden1"].read("post"), case.events["hidden1"] / 2)


def test_bursts_that_nothing_cancels_teach_without_a_teacher_until_inhibition_is_learned():
    credit, rules = BurstCCN(cancelling=False), {"forward": ActivityDifference(), "inhibition": Delta()}
    untaught = Case(credit, rules).untaught()
    assert float(untaught.changes()["input->hidden1"].abs().max()) > 1e-3
    learner = Case(credit, rules)
    before = learner.loudness("inhibition")
    after = learner.trained(300, 0.4, forward_fixed).loudness("inhibition")
    assert len(before) == 2
    assert all(after[name] < before[name] / 10 for name in before)


@each_burst
def test_learned_burst_feedback_changes_as_the_forward_weights_do(credit):
    case = Case(credit, {"forward": ActivityDifference(), "feedback": Delta()})
    changes = case.changes()
    for projection in case.network.projections[1:]:
        forward = without_bias(projection, changes[projection.name])
        assert float(forward.norm()) > 0
        torch.testing.assert_close(changes[feedback_name(projection)], forward.mT)


@pytest.mark.parametrize(
    ("kind", "settings", "named"),
    [
        ("segregated_dendrites", {"feedback_std": 0.0}, "feedback_std"),
        ("burstprop", {"baseline": 0.6}, "baseline"),
        ("burstprop", {"feedback_std": -1.0}, "feedback_std"),
        ("burst_ccn", {"slope": 0.0}, "slope"),
        ("dendritic_microcircuit", {"feedback": "transpose"}, "did you mean 'transposed'"),
        ("dendritic_microcircuit", {"low": 0.9}, "low"),
        ("continuous_microcircuit", {"dt": 0.0}, "dt"),
        ("continuous_microcircuit", {"duration": 0}, "duration"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(kind, settings, named):
    with pytest.raises(ValueError, match=named):
        make(CREDIT[kind], **settings)


def test_a_microcircuit_on_a_network_with_skips_is_refused():
    network = Network.chain((6, 5, 4, 3), output="sigmoid", skips=((0, 2),))
    with pytest.raises(ValueError, match="chain"):
        Learner(network, DendriticMicrocircuit(), MICROCIRCUIT, {ANY: Sgd()})


@each_burst
def test_bursts_need_rates_that_are_probabilities(credit):
    assert isinstance(credit, Bursts)
    with pytest.raises(ValueError, match=r"network\.activation"):
        Learner(Network.chain((4, 3, 2), "tanh", "sigmoid"), credit, {"forward": ActivityDifference()}, {ANY: Sgd()})
