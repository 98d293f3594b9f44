"""The fused engine: equal to the reference wherever it can do the job, refused with a sentence elsewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
import torch
from building import (
    EXACT,
    Imitation,
    ImitationEpisode,
    address,
    assert_states_close,
    fitting_learner,
    make,
    random_theta,
    start_row,
    train,
)

from metarule import jobs
from metarule.credit import CREDIT
from metarule.credit.backprop import Backprop
from metarule.credit.base import CROSSINGS
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.credit.kolen_pollack import KolenPollack
from metarule.credit.sign_symmetry import SignSymmetry
from metarule.fused import layout, library, run
from metarule.inner import Fastest, Fused, Reference
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.nonlinearities import NONLINEARITIES, OUTPUTS
from metarule.plugins import SpecError
from metarule.reading import find, read
from metarule.records import read_log
from metarule.rng import noise_for
from metarule.rules import RULES
from metarule.rules.polynomial import Polynomial
from metarule.rules.terms import Terms
from metarule.rules.textbook import Delta, Oja
from metarule.runs import RunFolder
from metarule.signals import Batch
from metarule.synapses import SYNAPSES
from metarule.synapses.adam import Adam
from metarule.synapses.momentum import Momentum
from metarule.synapses.sgd import Sgd
from metarule.tasks import TASKS
from metarule.tasks.digits import Digits
from metarule.tasks.few_shot import FewShot
from metarule.terms import TERMS

FUSED = Fused(dtype=torch.float64)
HERE = library.reason() is None
needs_kernel = pytest.mark.skipif(not HERE, reason=f"no kernel: {library.reason()}")

READABLE = tuple(name for name, term in TERMS.items() if term.reads <= Backprop.gives)
THREE = Terms(start={"error_pre": 0.2, "error_pre_error": 0.05, "subspace_oja": 0.03})

LEARNERS = {f"credit={kind}": fitting_learner(make(member)) for kind, member in CREDIT.items()}
LEARNERS |= {f"synapse={kind}": fitting_learner(Backprop(), synapse=make(member)) for kind, member in SYNAPSES.items()}
LEARNERS |= {
    f"rule={kind}": fitting_learner(FeedbackAlignment(), rule=make(member))
    for kind, member in RULES.items()
    if make(member).reads <= Backprop.gives
}
LEARNERS |= {f"term={name}": fitting_learner(Backprop(), rule=Terms((name,))) for name in READABLE}
LEARNERS |= {
    "all terms": fitting_learner(make(CREDIT["direct_feedback_alignment"]), rule=Terms(READABLE)),
    "all terms, momentum": fitting_learner(Backprop(), rule=Terms(READABLE), synapse=Momentum(0.8)),
    "nesterov and decay": fitting_learner(KolenPollack(), synapse=Momentum(0.8, nesterov=True, weight_decay=0.02)),
    "decay": fitting_learner(FeedbackAlignment(), rule=THREE, synapse=Sgd(weight_decay=0.05)),
    "signs of feedback": fitting_learner(SignSymmetry("fixed_random")),
    "powers": fitting_learner(Backprop(), rule=Polynomial({"pre": 2, "post": 2, "error": 1, "weight": 2})),
    "scalars": fitting_learner(Backprop(), rule=Polynomial({"pre": 1, "gain": 2, "total_post": 1, "agreement": 1})),
}
ABLE = {name: learner for name, learner in LEARNERS.items() if FUSED.can(learner) is None}
every_able = pytest.mark.parametrize("learner", ABLE.values(), ids=ABLE.keys())


def agrees(learner, tame=0.3, steps=7, **settings):
    """Losses and final states in both precisions, on numbers that keep runs tame."""
    theta = random_theta(learner.params, address("fused", runs=3)) * tame
    expected, found = (train(learner, theta, steps, engine=engine, **settings) for engine in (EXACT, FUSED))
    assert found.engine.startswith("fused")
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-10, atol=0)
    assert_states_close(found.carry or {}, expected.carry or {}, 1e-10)
    expected, found = (
        train(learner, theta, steps, engine=engine, **settings).loss for engine in (Reference(), Fused())
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def gradients_agree(learner, tame=0.3, **settings):
    """tests/test_adjoint.py does this for everything that it can train."""
    theta, wants = random_theta(learner.params, address("fused", runs=3)) * tame, frozenset({"loss", "grad"})
    expected, found = (train(learner, theta, 5, engine=each, wants=wants, **settings).grad for each in (EXACT, FUSED))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@every_able
def test_fused_equals_the_reference_for_every_part_that_it_can_train(learner):
    agrees(learner, score_at=(3, 7))


@needs_kernel
def test_the_parts_that_searches_use_most_are_among_those_it_can_train():
    kinds = ("backprop", "feedback_alignment", "direct_feedback_alignment", "sign_symmetry", "kolen_pollack", "none")
    assert {f"credit={kind}" for kind in kinds} <= ABLE.keys()
    assert {"rule=terms", "rule=polynomial", "rule=delta", "rule=oja", "synapse=sgd", "synapse=momentum"} <= ABLE.keys()
    assert {f"term={name}" for name in READABLE} <= ABLE.keys()


@needs_kernel
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("activation", NONLINEARITIES)
def test_fused_equals_the_reference_for_every_nonlinearity_and_output(activation, output, bias):
    # wide enough for whole vectors, and for what is left over of them
    network = Network.chain((18, 21, 3), activation, output, beta=3.0, bias=bias)
    for credit in (Backprop(), FeedbackAlignment()):
        agrees(Learner(network, credit, {"forward": THREE}, {ANY: Sgd()}), tame=0.02)


@needs_kernel
@pytest.mark.parametrize("events", [1, 2, 4, 7, 16, 19])
def test_fused_equals_the_reference_for_every_batch_size(events):
    network = Network.chain((70, 33, 4), bias=True)
    agrees(Learner(network, FeedbackAlignment(), {"forward": THREE}, {ANY: Sgd()}), tame=0.1, batch=events)


@needs_kernel
@pytest.mark.parametrize("instructions", [each.name for each in library.variants()])
def test_every_set_of_instructions_that_this_machine_has_gives_the_same(instructions, monkeypatch):
    monkeypatch.setenv("METARULE_INSTRUCTIONS", instructions)
    library.found.cache_clear()
    try:
        network = Network.chain((70, 33, 4), "softplus", beta=10.0, bias=True)
        for events in (1, 6, 16):
            agrees(Learner(network, Backprop(), {"forward": THREE}, {ANY: Momentum()}), tame=0.05, batch=events)
            gradients_agree(Learner(network, Backprop(), {"forward": THREE}, {ANY: Sgd()}), tame=0.05, batch=events)
        agrees(ABLE["powers"])
        gradients_agree(ABLE["powers"])
    finally:
        library.found.cache_clear()


@needs_kernel
def test_instructions_that_nobody_has_are_refused(monkeypatch):
    monkeypatch.setenv("METARULE_INSTRUCTIONS", "mmx")
    library.found.cache_clear()
    try:
        with pytest.raises(ValueError, match="METARULE_INSTRUCTIONS = mmx is none of portable"):
            library.found()
    finally:
        library.found.cache_clear()


@needs_kernel
def test_runs_may_be_spread_over_threads():
    learner = fitting_learner(Backprop(), rule=THREE)
    theta, wants = random_theta(learner.params, address("threads", runs=5)) * 0.3, frozenset({"loss", "grad", "carry"})
    alone = train(learner, theta, 6, engine=FUSED, wants=wants)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        spread = train(learner, theta, 6, engine=FUSED, wants=wants)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(spread.loss, alone.loss)
    assert spread.grad is not None
    assert alone.grad is not None
    assert torch.equal(spread.grad, alone.grad)
    assert_states_close(spread.carry or {}, alone.carry or {}, 0)


@needs_kernel
def test_rates_of_the_schedule_count_and_at_rate_0_nothing_is_stepped():
    def now_and_then(step):
        return {"input->hidden1": 0.0} if step % 2 else {"forward": 0.5}

    for synapse in (Sgd(), Momentum()):
        agrees(fitting_learner(Backprop(), synapse=synapse, schedule=now_and_then))


@dataclass(frozen=True)
class Uneven(Imitation):
    """Imitation with batches of two sizes."""

    def sample(self, noise, batch):
        return UnevenEpisode(noise, noise.at("teacher").normal(self.outputs, self.inputs), batch)


class UnevenEpisode(ImitationEpisode):
    def train(self, step):
        whole = super().train(step)
        assert whole.y is not None
        return whole if step % 3 else Batch(whole.x[:, 1:], whole.y[:, 1:])


@needs_kernel
@pytest.mark.parametrize(
    "task", [FewShot(ways=3, shots=6, queries=2), Imitation(), Uneven()], ids=lambda task: task.kind
)
def test_what_is_held_at_a_time_does_not_matter(task, monkeypatch):
    network = Network.chain((task.inputs, 9, task.outputs))
    learner = Learner(network, FeedbackAlignment(), {"forward": THREE}, {ANY: Sgd()})
    theta = random_theta(learner.params, address("chunks", runs=3)) * 0.3
    expected = train(learner, theta, 6, task)
    whole = train(learner, theta, 6, task, engine=FUSED)
    monkeypatch.setattr(run, "AT_ONCE", 20)
    parts = train(learner, theta, 6, task, engine=FUSED)
    torch.testing.assert_close(whole.loss, expected.loss, rtol=1e-10, atol=0)
    assert torch.equal(parts.loss, whole.loss)
    assert_states_close(parts.carry or {}, whole.carry or {}, 0.0)


@needs_kernel
def test_a_kernel_that_finds_no_memory_says_so(monkeypatch):
    starved = library.library()._replace(train=lambda *asked: 1)
    monkeypatch.setattr(run, "library", lambda: starved)
    learner = fitting_learner(Backprop(), rule=THREE)
    with pytest.raises(MemoryError, match="lower the layers' sizes"):
        train(learner, start_row(learner), 3, engine=FUSED)


@needs_kernel
def test_a_task_without_targets_is_refused_in_the_words_of_the_reference():
    learner = Learner(Network.chain((64, 9, 10)), Backprop(), {ANY: Delta()}, {ANY: Sgd()})
    for engine in (EXACT, FUSED):
        with pytest.raises(ValueError, match="needs targets, and the task gives none"):
            train(learner, start_row(learner), 3, Digits("bandit"), engine=engine)


# every task as it comes, and settings that change what a batch is
BY_INDEX = {kind: make(member) for kind, member in TASKS.items()} | {
    "autoencoder": Digits("autoencoder"),
    "frozen": Digits("frozen"),
    "relabelled": FewShot(ways=3, shots=6, queries=3, labels="way"),
}


@pytest.mark.parametrize("task", BY_INDEX.values(), ids=BY_INDEX.keys())
def test_batches_by_index_are_the_batches_themselves(task):
    noise = noise_for([(0, "episode", episode) for episode in (4, 9, 4)], torch.float64)
    steps = range(1, 4)
    rows = task.sample(noise, 2).rows(steps)
    if rows is None:
        return
    episode = task.sample(noise, 2)
    for place, step in enumerate(steps):
        batch = episode.train(step)
        assert torch.equal(rows.x[rows.x_rows[:, place]], batch.x)
        assert (rows.y is None) == (batch.y is None)
        if rows.y is not None:
            assert torch.equal(rows.y[rows.y_rows[:, place]], batch.y)


def declared(kind: str, name: str) -> list[str]:
    """What a struct or an enum of plan.h holds, in order."""
    text = re.sub(r"//.*", "", (library.KERNELS / "plan.h").read_text())
    found = re.search(rf"{kind} {name}[^{{]*{{(.*?)}};", text, re.DOTALL)
    assert found is not None
    words = re.findall(r"(\w+)(?:\[\w+\])?\s*[,;]" if kind == "struct" else r"\w+", found[1])
    return words


def test_structures_in_python_are_those_of_the_kernel():
    for name in ("Group", "Rule", "Projection", "Plan"):
        assert declared("struct", name) == [field for field, _ in getattr(layout, name)._fields_]
    assert declared("enum", "Factor") == [*(name.upper() for name in layout.FACTORS), "FACTORS"]
    assert declared("enum", "Activation") == [name.upper() for name in layout.ACTIVATIONS]
    assert declared("enum", "Output") == [f"{name.upper()}_OUTPUT" for name in layout.OUTPUTS]
    crossings = [name for name in layout.CROSSINGS if name != "own_taught"]  # to the kernel, own ones with a rule
    assert declared("enum", "Crossing") == [name.upper() for name in crossings]
    assert set(layout.CROSSINGS) == set(CROSSINGS)
    assert set(layout.ACTIVATIONS) == set(NONLINEARITIES)
    assert set(layout.OUTPUTS) == set(OUTPUTS)


def test_image_tasks_give_their_batches_by_index():
    noise = noise_for([(0, "episode", 0)], torch.float64)
    for name in ("digits", "few_shot", "autoencoder"):
        assert BY_INDEX[name].sample(noise, 2).rows(range(2)) is not None


@dataclass(frozen=True)
class Doubling(Backprop):
    """Backprop whose errors grow on the way, without a word to any engine."""

    def sender(self, network, weights, state, step, noise):
        send = super().sender(network, weights, state, step, noise)
        return lambda projection, error: 2 * send(projection, error)


@dataclass(frozen=True)
class Wilful(Oja):
    """A rule that inherits a list of terms and does something else."""

    def delta(self, theta, signals, state, noise):
        change, state = super().delta(theta, signals, state, noise)
        return change.scaled(2.0), state


@pytest.mark.parametrize(
    ("learner", "sentence"),
    [
        (Learner(Network.chain((6, 5, 3), skips=((0, 2),)), Backprop(), {ANY: Delta()}, {ANY: Sgd()}), "not a chain"),
        (fitting_learner(SignSymmetry("batchwise_random")), "'sign_symmetry' sends its errors in a way of its own"),
        (fitting_learner(Doubling()), "'backprop' sends its errors in a way of its own"),
        (fitting_learner(Backprop(), rule=Wilful()), "'oja' is no list of terms"),
        (fitting_learner(Backprop(), rule=make(RULES["bcm"])), "'bcm' is no list of terms"),
        (fitting_learner(Backprop(), synapse=Adam()), "'adam' with these settings is more than momentum"),
        (fitting_learner(Backprop(), synapse=Sgd(bound=1.0)), "'sgd' with these settings is more than momentum"),
    ],
)
def test_what_it_cannot_train_is_refused_with_a_sentence_and_left_to_the_reference_by_auto(learner, sentence):
    with pytest.raises(
        ValueError, match=f"inner.engine = 'fused' cannot do this: .*{sentence}.*'auto', or 'reference'"
    ):
        train(learner, start_row(learner), 3, engine=FUSED)
    expected = train(learner, start_row(learner), 3)
    found = train(learner, start_row(learner), 3, engine=Fastest(dtype=torch.float64))
    assert found.engine == "reference"
    assert torch.equal(found.loss, expected.loss)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"wants": frozenset({"grad", "forward"})}, "computed backwards"), ({"record": 2}, "records nothing")],
)
def test_forward_mode_and_recordings_are_left_to_the_reference(settings, sentence):
    learner = fitting_learner(Backprop(), rule=THREE)
    with pytest.raises(ValueError, match=sentence):
        train(learner, start_row(learner), 4, engine=FUSED, **settings)
    found = train(learner, start_row(learner), 4, engine=Fastest(dtype=torch.float64), **settings)
    assert found.engine == "reference"
    assert (found.record is None) == ("record" not in settings)
    assert (found.grad is None) == ("wants" not in settings)


def searched(*overrides):
    settings = ("inner.steps=5", "inner.batch=4", "inner.episodes=2", "battery.episodes=0", "outer.generations=2")
    return read(find("oja"), (*settings, *overrides))[0]


@needs_kernel
def test_a_search_that_asks_for_fused_runs_on_it_and_its_timings_say_so(tmp_path):
    said: list[str] = []
    folder = RunFolder(tmp_path / "run")
    jobs.start(folder, searched("inner.engine=fused"), "", listener=jobs.Listener(message=said.append))
    lines = read_log(folder.path / "timing.jsonl")
    assert {line["engine"] for line in lines} == {f"fused ({library.library().variant})"}
    assert [text for text in said if text.startswith("engine: ")] == [f"engine: {lines[0]['engine']}"]


@pytest.mark.parametrize(
    ("overrides", "engine"),
    [((), "fused (" if HERE else "reference, as "), (("synapse.kind=adam",), "reference, as synapse.kind = 'adam'")],
)
def test_a_search_that_asks_for_nothing_takes_the_fastest_engine_and_says_which_and_why(tmp_path, overrides, engine):
    said: list[str] = []
    jobs.start(RunFolder(tmp_path / "run"), searched(*overrides), "", listener=jobs.Listener(message=said.append))
    (line,) = [text for text in said if text.startswith("engine: ")]
    assert line.startswith(f"engine: {engine}")


def test_a_search_that_asks_for_fused_and_cannot_have_it_is_refused_before_it_begins(tmp_path):
    search = searched("synapse.kind=adam", "inner.engine=fused")
    with pytest.raises(SpecError, match=r"inner.engine = 'fused' cannot do this: synapse.kind = 'adam'"):
        jobs.start(RunFolder(tmp_path / "run"), search, "")
    assert not (tmp_path / "run").exists()
