"""Credit: one contract for every kind of credit assignment, then the identities that tie the kinds to each other."""

from __future__ import annotations

import pytest
import torch
from building import (
    EXACT,
    Imitation,
    address,
    assert_states_close,
    central_differences,
    fitting_learner,
    given_signals,
    make,
    random_theta,
    signal_shapes,
    start_row,
    train,
)
from torch.nn import functional

from metarule.credit import CREDIT, CreditAssignment
from metarule.credit.backprop import Backprop
from metarule.credit.direct_feedback_alignment import DirectFeedbackAlignment
from metarule.credit.feedback import feedback_name, without_bias
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.credit.kolen_pollack import KolenPollack
from metarule.credit.none import Nobody
from metarule.credit.sign_symmetry import MAGNITUDES, SignSymmetry
from metarule.inner import Reference, Runs
from metarule.learner import ANY, Learner
from metarule.network import Network, Population, Projection
from metarule.params import starts
from metarule.rules.terms import Terms
from metarule.rules.textbook import Delta, WeightDecay
from metarule.signals import Batch
from metarule.synapses.sgd import Sgd
from metarule.tasks.digits import Digits
from metarule.tasks.gaussian import Gaussian
from metarule.tasks.set_point import SetPoint
from metarule.zoo import ZOO

# every kind as it comes, and the settings with which the zoo uses it
SUBJECTS: dict[str, CreditAssignment] = {kind: make(member) for kind, member in CREDIT.items()}
SUBJECTS |= {name: row.credit for name, row in ZOO.items() if row.credit not in SUBJECTS.values()}

every_credit = pytest.mark.parametrize("credit", SUBJECTS.values(), ids=SUBJECTS.keys())

EVENTS = 3


def begun(learner, runs=2):
    """Theta, state and first batch of some runs of a learner."""
    noise = address(0, "episode", runs=runs)
    theta = learner.columns(random_theta(learner.params, address("credit", runs=runs)))
    sizes = learner.network.sizes
    task = Imitation(sizes[learner.network.input_name], sizes[learner.network.output_name])
    return theta, learner.init(theta, noise), task.sample(noise.at("data"), EVENTS).train(0)


def staged(learner, wanted=None):
    """The signals of every stage of one batch, and the credit assignment's state at the end."""
    columns, state, batch = begun(learner)
    credit, network, seen = learner.credit, learner.network, state["credit"]
    if wanted is None:
        wanted = {p.name: credit.gives_at(network, p) for p in learner.plastic}
    stages = []
    for k in range(credit.stages(network, batch)):
        noise = address("run", runs=2).at(k)
        signals, seen = credit.stage(k, columns.credit, network, state["weights"], seen, batch, 0, noise, wanted)
        stages.append(signals)
    return stages, seen


@every_credit
def test_every_declared_signal_is_given_where_it_is_wanted(credit):
    learner = fitting_learner(credit)
    stages, _ = staged(learner)
    for projection in learner.plastic:
        shapes = None
        for signals in (stage[projection.name] for stage in stages if projection.name in stage):
            given = given_signals(signals)
            assert credit.gives_at(learner.network, projection) <= given.keys()
            events = next(
                iter(value for name, value in given.items() if name.startswith(("pre", "post", "reward")))
            ).shape[1]
            shapes = signal_shapes(*learner.network.shape(projection), events)
            for name, value in given.items():
                assert value.shape == (2, *shapes[name]), name
                assert torch.isfinite(value).all(), name
        assert shapes is not None, f"no stage gives signals at '{projection.name}'"


@every_credit
def test_only_plastic_projections_receive_signals(credit):
    learner = fitting_learner(credit)
    first = learner.plastic[0].name
    stages, _ = staged(learner, {first: learner.wanted[first]})
    assert {name for stage in stages for name in stage} <= {first}


@every_credit
def test_the_always_on_unit_is_1_and_has_no_error(credit):
    learner = fitting_learner(credit, bias=True)
    for stage in staged(learner)[0]:
        for projection in learner.network.projections:
            if projection.name in stage:
                signals = stage[projection.name]
                assert signals.pre is None or (signals.pre[:, :, -1] == 1).all()
                assert signals.pre_error is None or (signals.pre_error[:, :, -1] == 0).all()


@every_credit
def test_run_r_of_a_batch_of_8_equals_run_r_alone(credit):
    learner = fitting_learner(credit)
    theta = random_theta(learner.params, address("credit", runs=4))
    together = train(learner, theta, 6, runs=Runs((0, 1, 2, 3), (5, 6)))
    assert together.carry is not None
    for r in range(8):
        candidate, episode = divmod(r, 2)
        alone = train(learner, theta[candidate : candidate + 1], 6, runs=Runs((candidate,), (5 + episode,)))
        assert alone.carry is not None
        for whole, own in zip(_leaves(together.carry), _leaves(alone.carry), strict=True):
            torch.testing.assert_close(own[0], whole[r], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(alone.loss[0, 0], together.loss[candidate, episode], rtol=1e-10, atol=1e-10)


def _leaves(state):
    found = []
    for name in sorted(state):
        found += _leaves(state[name]) if isinstance(state[name], dict) else [state[name]]
    return found


@every_credit
def test_stage_and_respond_work_without_autograd(credit):
    learner = fitting_learner(credit)
    with torch.inference_mode():
        staged(learner)
    stages, _ = staged(learner)
    for value in (value for stage in stages for signals in stage.values() for value in given_signals(signals).values()):
        assert not value.requires_grad


@every_credit
def test_meta_gradient_through_it_equals_finite_differences(credit):
    learner = fitting_learner(credit)
    theta = start_row(learner, rate=0.3)
    outcome = train(learner, theta, 4, wants=frozenset({"grad"}))
    expected = central_differences(lambda row: train(learner, row, 4).loss[:, 0, 0], theta, width=1e-5)
    assert outcome.grad is not None
    torch.testing.assert_close(outcome.grad, expected, rtol=1e-5, atol=1e-8)


@every_credit
def test_untaught_response_has_every_population_and_is_feedforward_unless_the_kind_settles(credit):
    learner = fitting_learner(credit)
    columns, state, batch = begun(learner)
    network = learner.network
    noise = address("respond", runs=2)
    activity = credit.respond(columns.credit, network, state["weights"], state["credit"], batch.x, noise)
    assert list(activity.rates) == list(activity.drives) == list(network.sizes)
    for name, size in network.sizes.items():
        assert activity.rates[name].shape == (2, EVENTS, size)
    assert torch.equal(activity.rates[network.input_name], batch.x)
    if type(credit).respond is CreditAssignment.respond:
        forward = network.forward(state["weights"], batch.x)
        for name in network.sizes:
            assert torch.equal(activity.rates[name], forward.rates[name])


TEACHING = {"error", "feedback", "post_ref", "reward"}
RATES = (0.001, 0.01, 0.1, 0.5, 2.0)
# the accuracy of a guesser on the 270 validation images is 0.1 with a standard deviation of 0.018; ten of them
GUESSING = 0.1 + 10 * (0.1 * 0.9 / 270) ** 0.5


@every_credit
def test_it_learns_its_acceptance_task_at_one_of_five_rates(credit):
    fast = Reference(dtype=torch.float32)
    if credit.not_local == Nobody.not_local and "post_ref" in credit.gives:
        # nobody teaches, but spikes are counted over time: the rate at which -alpha / (kappa T) = target, 10 Hz
        rule = Terms(("pre", "post_ref_pre"), normalise=False, start={"pre": 0.0195, "post_ref_pre": -0.05})
        learner = fitting_learner(credit, (10, 20), rule=rule, bias=False, output="linear")
        outcome = train(learner, starts(learner.params)[None], 100, SetPoint(10, 20, step=2.0), batch=20)
        assert float(outcome.scores["rate_error"].max()) < 1.0  # from 100 Hz and more
        return
    if credit.gives & TEACHING:
        row = next((row for row in ZOO.values() if row.credit == credit), None)
        learner = fitting_learner(credit, (64, 24, 10), row.synapse if row else None)
        metric, least, outcome = "accuracy", GUESSING, train(
            learner, rates_of(learner), 160, Digits(), fast, batch=20
        )  # fmt: skip
        if float(outcome.scores[metric].max()) <= least:  # a single number teaches more slowly than an error
            outcome = train(learner, rates_of(learner), range(160, 800), Digits(), fast, batch=20, carry=outcome.carry)
    else:
        # nobody teaches: the leading principal component; a random direction of 10 has |cosine| 0.24 on average
        learner = fitting_learner(credit, (10, 1), bias=False, output="linear")
        metric, least, outcome = "cosine", 0.95, train(
            learner, rates_of(learner), 400, Gaussian(), fast, batch=20, wants=frozenset({"loss"})
        )  # fmt: skip
    assert float(outcome.scores[metric].max()) > least


def rates_of(learner):
    """One candidate per rate."""
    rows = starts(learner.params).repeat(len(RATES), 1)
    places = [place for place, param in enumerate(learner.params) if param.name.endswith("rate")]
    rows[:, places] = torch.tensor(RATES, dtype=rows.dtype)[:, None]
    return rows


LOSSES = {
    "softmax": lambda drive, y: -(y * torch.log_softmax(drive, -1)).sum(-1),
    "sigmoid": lambda drive, y: functional.binary_cross_entropy_with_logits(drive, y, reduction="none").sum(-1),
    "linear": lambda drive, y: 0.5 * (drive - y).square().sum(-1),
}


def branching(output="softmax") -> Network:
    """Two branches of different nonlinearity that meet, a skip past both, biases on some."""
    populations = (
        Population("input", 6, "softplus"),
        Population("left", 5, "tanh"),
        Population("right", 4, "softplus"),
        Population("top", 4, "sigmoid"),
        Population("output", 3),
    )
    edges = [
        ("input", "left", True), ("input", "right", False), ("left", "right", True), ("left", "top", False),
        ("right", "top", True), ("input", "top", False), ("top", "output", True), ("left", "output", False),
    ]  # fmt: skip
    projections = tuple(Projection(f"{a}->{b}", a, b, bias=bias) for a, b, bias in edges)
    return Network(populations, projections, output, beta=2.0)


@pytest.mark.parametrize("output", sorted(LOSSES))
def test_backprop_with_delta_and_sgd_is_gradient_descent_on_a_branching_graph(output):
    network = branching(output)
    learner = Learner(network, Backprop(), {ANY: Delta()}, {ANY: Sgd()})
    theta = start_row(learner, rate=0.4).repeat(2, 1)
    task, runs = Imitation(), Runs((0, 1), (0,))
    episode = task.sample(address(0, "episode", runs=1).at("data"), EVENTS)
    weights = {
        name: w[:1].clone() for name, w in _carried(train(learner, theta, 1, task, runs=runs), "weights").items()
    }
    outcome = train(learner, theta, 1, task, runs=runs)
    for step in range(1, 6):
        outcome = train(learner, theta, range(step, step + 1), task, runs=runs, carry=outcome.carry)
        leaves = {name: weight.requires_grad_() for name, weight in weights.items()}
        x, y, _ = episode.train(step)
        loss = LOSSES[output](network.forward(leaves, x).drives["output"], y).mean(1).sum()
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        weights = {
            name: (weight - 0.4 * gradient).detach()
            for (name, weight), gradient in zip(leaves.items(), gradients, strict=True)
        }
        for name, weight in _carried(outcome, "weights").items():
            torch.testing.assert_close(weight[0:1], weights[name], rtol=1e-12, atol=1e-15)


def test_backprop_error_and_pre_error_are_negative_gradients_of_drives():
    network = branching()
    learner = Learner(network, Backprop(), {ANY: Delta()}, {ANY: Sgd()})
    _, state, batch = begun(learner)
    wanted = dict.fromkeys(state["weights"], frozenset({"pre", "error", "pre_error", "feedback", "gain"}))
    signals = learner.credit.stage(
        0, torch.zeros(2, 0), network, state["weights"], {}, batch, 0, address("run", runs=2), wanted
    )[0]
    probes = {
        name: torch.zeros(2, EVENTS, size, dtype=torch.float64, requires_grad=True)
        for name, size in network.sizes.items()
    }
    rates = {"input": batch.x}
    drive = batch.x
    for population in network.populations[1:]:
        drive = probes[population.name] + sum(
            torch.bmm(network.pre(p, rates), state["weights"][p.name].transpose(1, 2))
            for p in network.into(population.name)
        )
        rates[population.name] = network.rate(population.name, drive)
    loss = LOSSES["softmax"](drive, batch.y).sum()
    names = [name for name in network.sizes if name != "input"]
    gradients = dict(zip(names, torch.autograd.grad(loss, [probes[name] for name in names]), strict=True))
    for projection in network.projections:
        seen = signals[projection.name]
        torch.testing.assert_close(seen.read("error"), -gradients[projection.target], rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(seen.read("error"), seen.read("feedback") * seen.read("gain"), rtol=0, atol=0)
        if projection.source != "input":
            sizes = network.sizes[projection.source]
            pre_error = seen.read("pre_error")[:, :, :sizes]
            torch.testing.assert_close(pre_error, -gradients[projection.source], rtol=1e-12, atol=1e-15)


def _carried(outcome, part):
    assert outcome.carry is not None
    return outcome.carry[part]


def stepwise(credit, other, aim, network, steps=5, rate=0.3):
    """Two kinds of credit side by side; before each step `aim` sets the first one's feedback from its own weights."""
    first = Learner(network, credit, {"forward": Delta()}, {ANY: Sgd()})
    second = Learner(network, other, {"forward": Delta()}, {ANY: Sgd()})
    theta = start_row(first, rate=rate)
    carry, reference = train(first, theta, 1).carry, train(second, theta, 1).carry
    assert carry is not None
    assert reference is not None
    carry["weights"] |= reference["weights"]
    for step in range(1, steps + 1):
        aim(carry["weights"])
        carry = train(first, theta, range(step, step + 1), carry=carry).carry
        reference = train(second, theta, range(step, step + 1), carry=reference).carry
        assert carry is not None
        assert reference is not None
        for name, weight in reference["weights"].items():
            torch.testing.assert_close(carry["weights"][name], weight, rtol=1e-12, atol=1e-12)


def test_feedback_alignment_with_transposed_weights_is_backprop():
    network = branching()

    def aim(weights):
        for projection in network.projections:
            weight = without_bias(projection, weights[projection.name])
            weights[feedback_name(projection)] = weight.transpose(1, 2).contiguous()

    stepwise(FeedbackAlignment(), Backprop(), aim, network)


@pytest.mark.parametrize(("sizes", "activation"), [((6, 5, 4, 3), "linear"), ((6, 5, 3), "tanh")])
def test_direct_feedback_through_chained_weights_is_backprop_where_the_way_down_is_linear(sizes, activation):
    network = Network.chain(sizes, activation, "softmax", bias=True)

    def aim(weights):
        chained = torch.eye(3, dtype=torch.float64)[None]
        for projection in reversed(network.projections):
            chained = torch.bmm(chained, without_bias(projection, weights[projection.name]))
            weights[f"output=>{projection.source}"] = chained.transpose(1, 2).contiguous()

    stepwise(DirectFeedbackAlignment(), Backprop(), aim, network)


def test_kolen_pollack_with_decay_brings_weights_and_feedback_together_geometrically():
    network = branching()
    decay, rate, steps = 0.02, 0.5, 100
    learner = Learner(network, KolenPollack(), {ANY: Delta()}, {ANY: Sgd(weight_decay=decay)})
    theta = start_row(learner, rate=rate)

    def gaps(outcome):
        weights = _carried(outcome, "weights")
        return {
            p.name: without_bias(p, weights[p.name]) - weights[feedback_name(p)].transpose(1, 2)
            for p in network.projections
        }

    first = train(learner, theta, 1)
    later = train(learner, theta, range(1, 1 + steps), carry=first.carry)
    shrunk = (1 - rate * decay) ** steps
    for name, gap in gaps(first).items():
        error = (gaps(later)[name] - gap * shrunk).norm() / (gap * shrunk).norm()
        assert error < 1e-13, name


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_sign_symmetry_sends_errors_through_weights_of_backprops_sign(magnitude):
    credit = SignSymmetry(magnitude=magnitude)
    learner = fitting_learner(credit)
    _, state, _ = begun(learner)
    send = credit.sender(learner.network, state["weights"], {}, 0, address("run", runs=2))
    back = Backprop().sender(learner.network, state["weights"], {}, 0, address("run", runs=2))
    for projection in learner.network.projections:
        units = torch.eye(learner.network.sizes[projection.target], dtype=torch.float64).expand(2, -1, -1)
        assert torch.equal(torch.sign(send(projection, units)), torch.sign(back(projection, units)))
        thrice = {name: weight * (1 if "=>" in name else 3) for name, weight in state["weights"].items()}
        sized = credit.sender(learner.network, thrice, {}, 0, address("run", runs=2))
        assert torch.equal(send(projection, units), sized(projection, units))  # and of nothing else of theirs


def test_sign_symmetry_redraws_its_magnitude_only_where_it_says_so():
    def matrices(magnitude):
        credit = SignSymmetry(magnitude=magnitude)
        learner = fitting_learner(credit)
        _, state, _ = begun(learner)
        projection = learner.network.projections[-1]
        units = torch.eye(3, dtype=torch.float64).expand(2, -1, -1)
        noise = address("run", runs=2)
        return [credit.sender(learner.network, state["weights"], {}, 0, noise.at(s))(projection, units) for s in (0, 1)]

    moved = {magnitude: not torch.equal(*matrices(magnitude)) for magnitude in MAGNITUDES}
    assert moved == {"uniform": False, "batchwise_random": True, "fixed_random": False}


def test_feedback_weights_belong_to_the_episode_and_are_shared_by_its_candidates():
    learner = fitting_learner(FeedbackAlignment())
    weights = _carried(train(learner, start_row(learner).repeat(2, 1), 1, runs=Runs((0, 1), (0, 1))), "weights")
    for name, weight in weights.items():
        if "=>" in name:
            assert torch.equal(weight[0], weight[2])
            assert not torch.equal(weight[0], weight[1])


def test_a_pair_of_credit_and_rule_that_does_not_fit_is_refused_naming_kinds_that_would():
    network = Network.chain((4, 3))
    with pytest.raises(ValueError, match=r"reads error at 'input->output'.*backprop"):
        Learner(network, make(CREDIT["none"]), {ANY: Delta()}, {ANY: Sgd()})


def test_a_kind_whose_own_projections_are_plastic_asks_for_their_rule():
    network = Network.chain((4, 3))
    with pytest.raises(ValueError, match=r"add \[rules.feedback\]"):
        Learner(network, KolenPollack(), {"forward": Delta()}, {ANY: Sgd()})


def test_an_explicit_error_without_a_target_is_refused():
    learner = fitting_learner(Backprop())
    _, state, batch = begun(learner)
    with pytest.raises(ValueError, match="needs targets"):
        learner.credit.stage(
            0, torch.zeros(2, 0), learner.network, state["weights"], {}, Batch(batch.x), 0, address("run"), {}
        )


def test_an_unknown_magnitude_is_refused_with_the_nearest_one():
    with pytest.raises(ValueError, match="did you mean 'uniform'"):
        SignSymmetry(magnitude="unifrom")


def test_credit_with_zero_learning_leaves_weights_alone():
    learner = fitting_learner(Backprop(), rule=WeightDecay(), schedule=lambda step: {"forward": 0.0})
    before = train(learner, start_row(learner), 1)
    after = train(learner, start_row(learner), range(1, 4), carry=before.carry, engine=EXACT)
    assert before.carry is not None
    assert after.carry is not None
    assert_states_close(before.carry, after.carry, 0.0)
