"""The inner engine: what a run becomes depends on its own theta and address, on nothing else."""

from __future__ import annotations

import gc
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
import torch
from building import (
    EXACT,
    Imitation,
    ImitationEpisode,
    address,
    assert_states_close,
    central_differences,
    fitting_learner,
    flat,
    make,
    random_theta,
    start_row,
    train,
)

from metarule import tree
from metarule.block import run_block
from metarule.credit import CREDIT
from metarule.credit.backprop import Backprop
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.credit.kolen_pollack import KolenPollack
from metarule.credit.sign_symmetry import SignSymmetry
from metarule.inner import Adjoint, Fused, InBlocks, Reference, Runs, unheard
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.params import Param
from metarule.rng import noise_for
from metarule.rules import RULES, Rule
from metarule.rules.terms import Terms
from metarule.rules.textbook import Delta
from metarule.signals import Change, outer
from metarule.synapses import SYNAPSES
from metarule.synapses.adam import Adam
from metarule.synapses.momentum import Momentum
from metarule.synapses.sgd import Sgd

START = {"error_pre": 0.2, "error_pre_error": 0.05, "subspace_oja": 0.03}
RULE = Terms(start=START)
EIGHT = Runs((3, 1, 4, 2), (7, 9), seed=5)
EVERYTHING = frozenset({"loss", "grad", "carry"})

LEARNERS = {
    "terms": fitting_learner(FeedbackAlignment(), rule=RULE),
    "terms-adam": fitting_learner(FeedbackAlignment(), rule=RULE, synapse=Adam()),
    "delta-momentum": fitting_learner(KolenPollack(), synapse=Momentum(weight_decay=0.01)),
    "noisy": fitting_learner(SignSymmetry("batchwise_random")),
}
every_learner = pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS.keys())

ENGINES = (Reference, Fused, Adjoint)

# every engine with every learner that it can train
ABLE = {
    f"{engine.name}-{name}": (engine, learner)
    for engine in ENGINES
    for name, learner in LEARNERS.items()
    if engine().can(learner) is None
}
every_engine = pytest.mark.parametrize(("engine", "learner"), ABLE.values(), ids=ABLE.keys())
every_gradient = pytest.mark.parametrize(
    ("engine", "learner"),
    [pytest.param(*each, id=name) for name, each in ABLE.items() if each[0]().can(each[1], EVERYTHING) is None],
)
on_terms = pytest.mark.parametrize("engine", [engine for engine, each in ABLE.values() if each is LEARNERS["terms"]])


def exact(engine: type[InBlocks], block_runs: int | None = None, **settings) -> InBlocks:
    """An engine in float64."""
    return engine(block_runs, torch.float64, **settings)


def most(engine: type[InBlocks], learner: Learner) -> frozenset[str]:
    """All that an engine can be asked for."""
    return frozenset({"loss", "carry"}) if engine().can(learner, EVERYTHING) else EVERYTHING


def rows(learner, count=4):
    """Different candidates near the start."""
    base = start_row(learner).repeat(count, 1)
    return base * (1 + 0.3 * address("rows", runs=count).normal(base.shape[1]))


def same(first, second, tolerance):
    """Two outcomes agree in loss, gradient and carry."""
    torch.testing.assert_close(first.loss, second.loss, rtol=tolerance, atol=tolerance)
    if first.grad is not None:
        torch.testing.assert_close(first.grad, second.grad, rtol=10 * tolerance, atol=10 * tolerance)
    assert_states_close(first.carry, second.carry, tolerance)


@every_engine
def test_run_r_in_a_batch_of_8_equals_run_r_alone(engine, learner):
    theta, asked = rows(learner), {"engine": exact(engine), "wants": most(engine, learner)}
    together = train(learner, theta, 8, runs=EIGHT, **asked)
    gradient = torch.zeros_like(theta)
    for c, candidate in enumerate(EIGHT.candidates):
        for e, episode in enumerate(EIGHT.episodes):
            own = Runs((candidate,), (episode,), EIGHT.seed)
            alone = train(learner, theta[c : c + 1], 8, runs=own, **asked)
            torch.testing.assert_close(alone.loss[0, 0], together.loss[c, e], rtol=1e-12, atol=1e-12)
            r = c * len(EIGHT.episodes) + e
            assert_states_close(alone.carry or {}, tree.selected(together.carry or {}, slice(r, r + 1)), 1e-12)
            if alone.grad is not None:
                gradient[c] += alone.grad[0] / len(EIGHT.episodes)
    assert (together.grad is None) == ("grad" not in asked["wants"])
    if together.grad is not None:
        torch.testing.assert_close(together.grad, gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("block_runs", [1, 3, 5])
@every_engine
def test_other_blocks_give_the_same(engine, learner, block_runs, dtype, tolerance):
    theta, wants = rows(learner), most(engine, learner)
    whole = train(learner, theta, 8, runs=EIGHT, engine=engine(None, dtype), wants=wants)
    parts = train(learner, theta, 8, runs=EIGHT, engine=engine(block_runs, dtype), wants=wants)
    same(parts, whole, tolerance)


@every_engine
def test_blocks_may_be_computed_anywhere_in_any_order(engine, learner):
    def backwards(function, blocks, /, arrived=unheard):
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(function, blocks))

    theta, wants = rows(learner), most(engine, learner)
    here = train(learner, theta, 8, runs=EIGHT, engine=exact(engine, 3), wants=wants)
    there = train(learner, theta, 8, runs=EIGHT, engine=exact(engine, 3, map=backwards), wants=wants)
    same(here, there, 0.0)


@every_engine
def test_order_of_candidates_and_episodes_is_a_matter_of_names_only(engine, learner):
    theta = rows(learner)
    forth = train(learner, theta, 5, runs=EIGHT, engine=exact(engine))
    back = Runs(EIGHT.candidates[::-1], EIGHT.episodes[::-1], EIGHT.seed)
    turned = train(learner, theta.flip(0), 5, runs=back, engine=exact(engine))
    torch.testing.assert_close(turned.loss.flip((0, 1)), forth.loss, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("engine", "wants"),
    [
        (engine, wants)
        for engine in ENGINES
        for wants in (frozenset({"loss", "carry"}), EVERYTHING)
        if engine().can(LEARNERS["terms"], wants) is None
    ],
)
def test_a_diverging_neighbour_changes_no_bit_and_is_infinite(engine, wants):
    learner = LEARNERS["terms"]
    sane = rows(learner)
    wild = sane.clone()
    wild[1] = 1e200
    calm = train(learner, sane, 8, runs=EIGHT, wants=wants, engine=exact(engine))
    beside = train(learner, wild, 8, runs=EIGHT, wants=wants, engine=exact(engine))
    others = [0, 2, 3]
    assert torch.isinf(beside.loss[1]).all()
    assert (beside.loss[1] > 0).all()
    assert torch.equal(beside.loss[others], calm.loss[others])
    kept = [0, 1, 4, 5, 6, 7]
    for name, value in flat(beside.carry or {}).items():
        assert torch.equal(value[kept], flat(calm.carry or {})[name][kept]), name
    if "grad" in wants:
        assert beside.grad is not None
        assert calm.grad is not None
        assert torch.isnan(beside.grad[1]).all()
        assert torch.equal(beside.grad[others], calm.grad[others])


@on_terms
def test_every_score_of_a_diverged_run_is_the_worst_there_is(engine):
    learner = LEARNERS["terms"]
    wild = torch.full((1, 3), 1e200, dtype=torch.float64)
    outcome = train(learner, wild, 8, objectives=("distance", "closeness"), engine=exact(engine))
    assert outcome.scores["distance"].item() == math.inf
    assert torch.equal(outcome.loss, torch.full((1, 1, 2), math.inf, dtype=torch.float64))


@every_engine
def test_going_on_from_carry_gives_the_bits_of_going_straight_through(engine, learner):
    theta, settings = rows(learner), {"runs": EIGHT, "engine": exact(engine)}
    straight = train(learner, theta, 20, **settings)
    half = train(learner, theta, 10, **settings)
    rest = train(learner, theta, range(10, 20), carry=half.carry, **settings)
    assert torch.equal(rest.loss, straight.loss)
    assert_states_close(rest.carry or {}, straight.carry or {}, 0.0)
    assert rest.steps == range(10, 20)


@every_engine
def test_evaluate_overwrites_neither_theta_nor_the_carry_that_it_is_handed(engine, learner):
    theta = rows(learner)
    handed = train(learner, theta, 4, runs=EIGHT).carry or {}
    copy, row = tree.mapped(handed, torch.clone), theta.clone()
    for wants in (frozenset({"loss"}), most(engine, learner)):
        train(learner, theta, range(4, 8), runs=EIGHT, carry=handed, wants=wants, engine=exact(engine))
        assert_states_close(handed, copy, 0.0)
        assert torch.equal(theta, row)


@pytest.mark.parametrize("segments", [2, 3, 12])
@every_gradient
def test_gradient_in_segments_equals_the_plain_gradient(engine, learner, segments):
    theta = rows(learner)
    settings = {"runs": EIGHT, "wants": EVERYTHING, "score_at": (5, 12)}
    plain = train(learner, theta, 12, engine=exact(engine), **settings)
    cut = train(learner, theta, 12, engine=exact(engine, segments=segments), **settings)
    same(cut, plain, 1e-12)


@every_gradient
def test_meta_gradient_equals_central_differences(engine, learner):
    theta = rows(learner)
    outcome = train(learner, theta, 8, runs=EIGHT, engine=exact(engine), wants=EVERYTHING, score_at=(4, 8))
    expected = central_differences(
        lambda row: train(learner, row, 8, runs=EIGHT, score_at=(4, 8)).loss[:, :, 0].mean(1), theta
    )
    assert outcome.grad is not None
    torch.testing.assert_close(outcome.grad, expected, rtol=1e-6, atol=1e-8)


@every_gradient
def test_meta_gradient_from_a_carry_is_that_of_the_remaining_steps(engine, learner):
    theta = rows(learner)
    carry = train(learner, theta, 6, runs=EIGHT).carry
    rest = {"runs": EIGHT, "carry": carry}
    outcome = train(learner, theta, range(6, 12), engine=exact(engine), wants=EVERYTHING, **rest)
    expected = central_differences(lambda row: train(learner, row, range(6, 12), **rest).loss[:, :, 0].mean(1), theta)
    assert outcome.grad is not None
    torch.testing.assert_close(outcome.grad, expected, rtol=1e-6, atol=1e-8)


@every_engine
def test_loss_is_the_mean_of_the_scores_at_the_points_asked_for(engine, learner):
    theta, settings = rows(learner), {"runs": EIGHT, "engine": exact(engine)}
    points = (2, 5, 9)
    averaged = train(learner, theta, 9, score_at=points, **settings)
    single = torch.stack([train(learner, theta, point, **settings).loss for point in points]).mean(0)
    torch.testing.assert_close(averaged.loss, single, rtol=1e-14, atol=1e-14)


def test_objectives_that_are_better_when_larger_count_negatively():
    learner = LEARNERS["terms"]
    outcome = train(learner, rows(learner), 3, runs=EIGHT, objectives=("closeness", "distance"), wants=EVERYTHING)
    assert outcome.loss.shape == (4, 2, 2)
    assert torch.equal(outcome.loss[:, :, 0], -outcome.scores["closeness"])
    assert torch.equal(outcome.loss[:, :, 1], outcome.scores["distance"])
    first = train(learner, rows(learner), 3, runs=EIGHT, objectives=("distance",), wants=EVERYTHING)
    assert outcome.grad is not None
    assert first.grad is not None
    torch.testing.assert_close(outcome.grad, first.grad, rtol=1e-12, atol=1e-14)  # closeness = -distance


def test_counters_of_the_synapse_model_travel_in_the_carry():
    learner = LEARNERS["terms-adam"]
    carry = train(learner, rows(learner), 7, runs=EIGHT).carry or {}
    for projection in learner.plastic:
        assert torch.equal(carry["synapses"][projection.name]["step"], torch.full((8, 1, 1), 7.0, dtype=torch.float64))


@pytest.mark.parametrize("wants", [frozenset({"loss"}), EVERYTHING])
def test_snapshots_are_the_states_that_shorter_runs_end_in(wants):
    learner = LEARNERS["terms"]
    theta = rows(learner)
    engine = Reference(block_runs=3, dtype=torch.float64, segments=2)
    recording = train(learner, theta, 10, runs=EIGHT, record=3, wants=wants, engine=engine).record
    assert recording is not None
    assert recording.steps == (0, 3, 6, 9)
    episode = Imitation().sample(_episode_noise(EIGHT).at("data"), 3)
    for place, step in enumerate(recording.steps):
        batch = episode.train(step)
        torch.testing.assert_close(recording.series["input"][:, place], batch.x, rtol=0, atol=0)
        torch.testing.assert_close(recording.series["target"][:, place], batch.y, rtol=0, atol=0)
        if step == 0:
            continue
        weights = (train(learner, theta, step, runs=EIGHT).carry or {})["weights"]
        for name, weight in weights.items():
            torch.testing.assert_close(recording.series[f"weights/{name}"][:, place], weight, rtol=1e-12, atol=1e-12)
        rates = learner.network.forward(weights, batch.x).rates
        for name, rate in rates.items():
            torch.testing.assert_close(recording.series[f"activity/{name}"][:, place], rate, rtol=1e-12, atol=1e-12)


def _episode_noise(runs):
    return noise_for([(runs.seed, "episode", episode) for _ in runs.candidates for episode in runs.episodes])


def test_candidates_on_one_episode_share_data_and_weights_but_not_exploration():
    noisy, steady = LEARNERS["noisy"], fitting_learner(SignSymmetry("fixed_random"))
    for learner, explores in ((noisy, True), (steady, False)):
        theta = start_row(learner).repeat(2, 1)
        recording = train(learner, theta, 2, record=1).record
        assert recording is not None
        for name, series in recording.series.items():
            assert torch.equal(series[0, 0], series[1, 0]), name  # before the first update
            if name in ("input", "target"):
                assert torch.equal(series[0], series[1])
        moved = [
            name
            for name, series in recording.series.items()
            if name.startswith("weights/") and not torch.equal(series[0, 1], series[1, 1])
        ]
        assert bool(moved) == explores


def test_episodes_and_seeds_differ_in_data_and_weights():
    learner = LEARNERS["terms"]
    theta = start_row(learner)
    by_episode = train(learner, theta, 1, runs=Runs((0,), (0, 1)), record=1).record
    by_seed = [train(learner, theta, 1, runs=Runs((0,), (0,), seed), record=1).record for seed in (0, 1)]
    assert by_episode is not None
    for name in ("input", "target", "weights/input->hidden1", "weights/output=>hidden2"):
        assert not torch.equal(by_episode.series[name][0], by_episode.series[name][1])
        first, second = (each.series[name] for each in by_seed if each is not None)
        assert not torch.equal(first, second)


# every plug-in once in the engine: in place without gradients, out of place with them
PLUGINS = {f"credit={kind}": fitting_learner(make(member)) for kind, member in CREDIT.items()}
PLUGINS |= {f"synapse={kind}": fitting_learner(Backprop(), synapse=make(member)) for kind, member in SYNAPSES.items()}
PLUGINS |= {
    f"rule={kind}": fitting_learner(Backprop(), rule=make(member))
    for kind, member in RULES.items()
    if make(member).reads <= Backprop.gives
}


@pytest.mark.parametrize("learner", PLUGINS.values(), ids=PLUGINS.keys())
def test_in_place_updates_equal_the_differentiable_ones(learner):
    theta = random_theta(learner.params, address("in place", runs=2))
    in_place = train(learner, theta, 5)
    with_graph = train(learner, theta, 5, wants=EVERYTHING)
    torch.testing.assert_close(in_place.loss, with_graph.loss, rtol=1e-12, atol=1e-12)
    assert_states_close(in_place.carry or {}, with_graph.carry or {}, 1e-12)


@pytest.mark.parametrize("learner", PLUGINS.values(), ids=PLUGINS.keys())
def test_every_plug_in_goes_on_from_carry_bit_for_bit(learner):
    theta = random_theta(learner.params, address("carry", runs=2))
    straight = train(learner, theta, 6)
    rest = train(learner, theta, range(3, 6), carry=train(learner, theta, 3).carry)
    assert_states_close(rest.carry or {}, straight.carry or {}, 0.0)


@dataclass(frozen=True)
class Weighing(Imitation):
    """Imitation that counts, at every step, the bytes of all tensors that are alive."""

    counted: list[int] = field(default_factory=list)
    kind = "weighing"

    def sample(self, noise, batch):
        return WeighingEpisode(noise, noise.at("teacher").normal(self.outputs, self.inputs), batch, self.counted)


class WeighingEpisode(ImitationEpisode):
    def __init__(self, noise, teacher, batch, counted):
        super().__init__(noise, teacher, batch)
        self.counted = counted

    def train(self, step):
        tensors = [each for each in gc.get_objects() if type(each) is torch.Tensor]
        self.counted.append(sum(each.element_size() * each.nelement() for each in tensors))
        return super().train(step)


@every_learner
def test_memory_does_not_grow_with_steps_where_no_gradient_is_asked_for(learner):
    task = Weighing()
    train(learner, rows(learner), 7, task, runs=EIGHT)
    assert min(task.counted) > 0
    assert len(set(task.counted[2:])) == 1  # the first steps still hold what comes before the first update


def test_rate_zero_of_the_schedule_steps_neither_rule_nor_synapse():
    def first_only(step):
        return {"input->hidden1": 0.0} if step % 2 else {"forward": 1.0}

    learner = fitting_learner(Backprop(), synapse=Adam(), schedule=first_only)
    carry = train(learner, start_row(learner), 6).carry or {}
    steps = {name: state["step"].item() for name, state in carry["synapses"].items()}
    assert steps == {"input->hidden1": 3.0, "hidden1->hidden2": 6.0, "hidden2->output": 6.0}


def test_fixed_numbers_stay_out_of_theta_and_do_what_a_column_would():
    free = fitting_learner(Backprop())
    bound = fitting_learner(Backprop(), fixed={"synapse.rate": 0.25})
    assert [param.name for param in free.params] == ["synapse.rate"]
    assert bound.params == ()
    fixed = train(bound, torch.zeros(1, 0, dtype=torch.float64), 5)
    assert torch.equal(fixed.loss, train(free, torch.tensor([[0.25]], dtype=torch.float64), 5).loss)


def test_a_rule_with_coefficients_carries_the_step_size_alone():
    assert [param.name for param in LEARNERS["terms"].params] == [f"rule.forward.{name}" for name in START]
    assert LEARNERS["terms-adam"].params[-1].name == "synapse.rate"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"objectives": ("distence",)}, "did you mean 'distance'"),
        ({"score_at": (0,)}, r"score_at = \(0,\) lies outside steps 1 to 5"),
        ({"score_at": (6,)}, "lies outside"),
        ({"runs": Runs((0, 1), (0,))}, "theta has 1 rows for 2 candidates"),
    ],
)
@on_terms
def test_requests_that_do_not_fit_are_refused(engine, settings, sentence):
    learner = LEARNERS["terms"]
    with pytest.raises(ValueError, match=sentence):
        train(learner, start_row(learner), 5, engine=exact(engine), **settings)


def test_theta_of_another_width_is_refused():
    with pytest.raises(ValueError, match="theta has 2 columns; this learner has 3 parameters"):
        train(LEARNERS["terms"], torch.zeros(1, 2), 5)


def keyed(rules, synapses, credit=None, **settings):
    return Learner(Network.chain((6, 5, 3)), credit or Backprop(), rules, synapses, **settings)


SGD, DELTA, TERMS = {ANY: Sgd()}, {ANY: Delta()}, {"forward": RULE}


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: keyed(DELTA, SGD, fixed={"synapse.rrate": 1.0}), "did you mean 'synapse.rate'"),
        (lambda: keyed({"forwrd": Delta()}, SGD), "rules = 'forwrd'.*did you mean 'forward'"),
        (lambda: keyed(DELTA, {"forwrd": Sgd()}), "synapses = 'forwrd'.*did you mean 'forward'"),
        (lambda: keyed({}, SGD), "no projection has a rule"),
        (lambda: keyed(DELTA, {"input->hidden1": Sgd()}), "'hidden1->output' has a rule but no synapse model"),
        (lambda: keyed(DELTA | TERMS, SGD, KolenPollack()), "serves a rule whose coefficients carry the step size"),
        (lambda: keyed(DELTA, SGD, Spiking()).params, "needs network.output to be one of sigmoid; it is softmax"),
    ],
)
def test_learners_whose_parts_do_not_fit_are_refused(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build().params  # noqa: B018


@dataclass(frozen=True)
class Spiking(Backprop):
    """Backprop that insists on an output and on a nonlinearity of hidden units."""

    requires = {"output": ("sigmoid",), "activation": ("relu",)}  # noqa: RUF012


def test_what_a_credit_requires_of_the_activation_is_asked_of_hidden_units_only():
    network = Network.chain((6, 5, 3), "relu", "sigmoid")
    assert Learner(network, Spiking(), DELTA, SGD).credit.requires["activation"] == ("relu",)
    with pytest.raises(ValueError, match=r"needs network\.activation to be one of relu; it is tanh"):
        Learner(Network.chain((6, 5, 3), "tanh", "sigmoid"), Spiking(), DELTA, SGD)


def test_block_is_a_pure_function_of_its_arguments():
    learner = LEARNERS["noisy"]
    seen = []

    def keeping(function, blocks, /, arrived=unheard):
        seen.extend(blocks)
        return [function(block) for block in blocks]

    first = train(learner, rows(learner), 5, runs=EIGHT, engine=Reference(dtype=torch.float64, map=keeping))
    again = run_block(seen[0])
    assert torch.equal(again.scores["distance"].reshape(4, 2), first.scores["distance"])
    assert EXACT.block_runs is None


@dataclass(frozen=True)
class _Gated(Rule):
    """theta enters the state by init and is never replaced there."""

    kind = "gated"
    source = "this test"

    @property
    def params(self):
        return (Param("gain", start=0.3),)

    @property
    def reads(self):
        return frozenset({"error", "pre"})

    def init(self, theta, weight):
        return {"gain": theta[:, :1, None] * 1.0, "anchor": weight}

    def delta(self, theta, signals, state, noise):
        towards = Change(full=0.5 * state["gain"] * (state["anchor"] - signals.weight))
        return outer(signals.read("error"), signals.read("pre")) * state["gain"] + towards, state


@pytest.fixture
def gated():
    network = Network.chain((6, 4, 3), "tanh")
    return Learner(network, Backprop(), {"forward": _Gated()}, {ANY: Sgd()})


def test_theta_that_enters_by_init_is_followed_through_every_segment(gated):
    theta = torch.tensor([[0.3], [0.7]], dtype=torch.float64)
    runs = Runs((0, 1), (0, 1))
    wants = frozenset({"loss", "grad"})
    grads = [
        Reference(dtype=torch.float64, segments=segments)
        .evaluate(gated, theta, Imitation(), runs, range(8), 2, wants, score_at=(4, 8))
        .grad
        for segments in (1, 2, 8)
    ]
    step = 1e-6
    engine = Reference(dtype=torch.float64)
    ends = [
        engine.evaluate(gated, theta + shift, Imitation(), runs, range(8), 2, score_at=(4, 8)).loss.mean(1)
        for shift in (step, -step)
    ]
    for grad in grads:
        torch.testing.assert_close(grad, (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-9)


def test_a_rule_that_keeps_the_initial_weights_sees_them_unchanged(gated):
    theta = torch.tensor([[0.3]], dtype=torch.float64)
    engine, runs = Reference(dtype=torch.float64), Runs((0,), (0, 1))
    in_place = engine.evaluate(gated, theta, Imitation(), runs, range(8), 2).loss
    differentiable = engine.evaluate(gated, theta, Imitation(), runs, range(8), 2, frozenset({"loss", "grad"})).loss
    torch.testing.assert_close(in_place, differentiable, rtol=1e-12, atol=0)
