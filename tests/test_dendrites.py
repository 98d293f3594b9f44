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
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.rules.textbook import ActivityDifference, Delta, Difference
from metarule.signals import Batch
from metarule.synapses.sgd import Sgd

RUNS, EVENTS = 3, 16
MICROCIRCUIT = {"forward": Difference(), "interneuron": Difference(), "lateral": Delta()}


class Case:
    """A learner at the start of three runs on a chain 12-10-8-4, and a batch of one-hot targets."""

    def __init__(self, credit, rules, activation="sigmoid", output="sigmoid", **values):
        self.network = Network.chain((12, 10, 8, 4), activation, output, bias=True)
        self.learner = Learner(self.network, credit, rules, {ANY: Sgd()})
        self.columns = self.learner.columns(start_row(self.learner, **values).repeat(RUNS, 1))
        self.state = self.learner.init(self.columns, address("start", runs=RUNS))
        self.weights = self.state["weights"]
        noise = address("batch", runs=RUNS)
        labels = noise.at("y").integers(4, EVENTS)
        self.y = torch.eye(4, dtype=torch.float64)[labels]
        self.batch = Batch(noise.at("x").normal(EVENTS, 12), self.y)

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


def assert_apical_dendrites_fall_silent(credit, rules, role, rate):
    """Learning without a teacher and with fixed forward weights takes nine tenths of every apical potential away."""
    case = Case(credit, rules)
    learner = Learner(case.network, credit, rules, {ANY: Sgd()}, lambda step: {"forward": 0.0})

    def loudness(steps, rate):
        theta = start_row(learner, rate=rate).repeat(RUNS, 1)
        carry = train(learner, theta, steps, Imitation(12, 4), batch=16).carry
        assert carry is not None
        case.weights |= carry["weights"]
        seen = case.signals()
        return {p.name: seen[p.name].read("error").square().mean().sqrt() for p in learner.plastic if p.role == role}

    before, after = loudness(1, rate=1e-6), loudness(300, rate)
    assert len(before) == 2
    for name in before:
        assert float(after[name] / before[name]) < 0.1, name


@pytest.mark.parametrize(("std", "least", "most"), [(0.01, 0.999, 1.0), (30.0, 0.0, 0.97)])
def test_plateaus_of_a_small_range_are_direct_feedback_and_saturated_ones_are_not(std, least, most):
    case = Case(SegregatedDendrites(std), {"forward": Difference()})
    direct = Case(DirectFeedbackAlignment(), {"forward": Delta()})
    direct.weights |= case.weights
    found = cosines(case.changes(), direct.changes(), case.hidden())
    assert least < float(found.min())
    assert float(found.max()) < most or most == 1.0


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


def test_lateral_inhibition_learned_from_random_weights_silences_apical_dendrites():
    assert_apical_dendrites_fall_silent(ContinuousMicrocircuit(), MICROCIRCUIT, "lateral", rate=0.3)


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
    assert_apical_dendrites_fall_silent(credit, rules, "inhibition", rate=0.4)


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
