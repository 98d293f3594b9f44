"""The stress battery: altered tasks are altered, baselines are tuned there, and verdicts say what was seen."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import dataclass, replace

import pytest
import torch
from building import EXACT, Imitation, address, fitting_learner, start_row
from rich.console import Console

from metarule.credit.backprop import Backprop
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.evaluation import Conditions, printed
from metarule.inner import ENGINES, in_turn, unheard
from metarule.inspection.altered import Again, ByClass, Mislabelled, Noisy, Permuted
from metarule.inspection.conditions import OWN, activated, alone, conditions, deeper, wider
from metarule.inspection.holding import Tried, evidence, verdict
from metarule.inspection.stress import Effort, stress
from metarule.inspection.stress_report import stress_report
from metarule.inspection.subject import Subject
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.records import jsonable
from metarule.rules.mlp import Mlp
from metarule.rules.terms import Terms
from metarule.synapses.sgd import Sgd
from metarule.tasks import Task
from metarule.tasks.digits import Digits
from metarule.tasks.few_shot import FewShot

SHORT = FewShot(ways=3, shots=4, queries=5)
STEPS = 12
ORDER = tuple(address("an order").rows(64, 64)[0].tolist())
ALTERED = {
    "permuted": Permuted(SHORT, ORDER),
    "noisy": Noisy(SHORT, 0.5),
    "mislabelled": Mislabelled(SHORT, 0.5, STEPS),
    "by class": ByClass(SHORT, STEPS),
}
altered = pytest.mark.parametrize("task", ALTERED.values(), ids=ALTERED)


def subject_of(task: Task = SHORT, hidden=(8, 6), course=None, activation="softplus"):
    network = Network.chain((task.inputs, *hidden, task.outputs), activation, task.output)
    rule = Terms(("error_pre", "error_pre_error"))
    learner = Learner(network, FeedbackAlignment(), {"forward": rule}, {ANY: Sgd()})
    theta = torch.tensor([[0.3, 0.2]], dtype=torch.float64)
    return Subject("three_term", learner, theta, task, course or Conditions(EXACT, STEPS, 1), 20)


def shown(task, steps=STEPS, batch=1, runs=3):
    """All that an episode shows, (R samples ...)."""
    episode = task.sample(address("altered", runs=runs), batch)
    batches = [episode.train(step) for step in range(steps)]
    return torch.cat([each.x for each in batches], dim=1), torch.cat([each.y for each in batches], dim=1)


@altered
def test_an_altered_task_is_altered_and_so_is_what_it_holds_out(task):
    for plain, changed in ((SHORT, task), (SHORT.held_out(), task.held_out())):
        assert not all(map(torch.equal, shown(plain), shown(changed)))
    assert not torch.equal(shown(task)[0], shown(task.held_out())[0])


@altered
def test_an_altered_task_tells_of_itself_what_the_task_does_and_travels_to_a_worker(task):
    again = pickle.loads(pickle.dumps(task))
    for name in ("kind", "source", "metrics", "baselines", "inputs", "outputs", "output", "headline"):
        assert getattr(again, name) == getattr(SHORT, name)
    assert again.steps(2) == SHORT.steps(2)
    assert again.seen() == SHORT.seen()
    assert all(map(torch.equal, shown(task), shown(again)))
    frozen = Digits("frozen")
    network = Network.chain((64, 5, 10))
    assert Noisy(frozen, 0.1).frozen(network) == frozen.frozen(network) != frozenset()


@altered
def test_an_altered_episode_is_a_function_of_its_address_alone(task):
    together, alone = shown(task, runs=3), shown(task, runs=1)
    assert all(torch.equal(many[:1], one) for many, one in zip(together, alone, strict=True))


def test_a_permutation_and_its_inverse_are_the_task_itself():
    inverse = tuple(torch.tensor(ORDER).argsort().tolist())
    twice = Permuted(Permuted(SHORT, ORDER), inverse)
    assert all(map(torch.equal, shown(SHORT), shown(twice)))


def test_a_network_with_permuted_weights_scores_on_permuted_inputs_what_it_scored_before():
    learner = fitting_learner(Backprop(), (64, 5, 10))
    first = learner.network.projections[0]
    noise = address("weights")
    weights = learner.init(learner.columns(start_row(learner)), noise)["weights"]
    moved = weights | {
        first.name: torch.cat((weights[first.name][..., torch.tensor(ORDER)], weights[first.name][..., 64:]), -1)
    }

    @dataclass(frozen=True)
    class Looked(Imitation):
        inputs: int = 64
        outputs: int = 10

        def sample(self, noise, batch):
            episode = super().sample(noise, batch)
            plain = episode.score
            object.__setattr__(
                episode, "score", lambda respond, w: plain(respond, w) | {"weights": w[first.name].clone()}
            )
            return episode

    def score(task, weights):
        return task.sample(noise, 1).score(lambda x: learner.network.forward(weights, x), weights)

    before, after = score(Looked(), weights), score(Permuted(Looked(), ORDER, (first.name,)), moved)
    assert after["distance"] == pytest.approx(before["distance"])
    assert torch.equal(after["weights"], before["weights"])


def test_classes_come_in_blocks_of_the_same_samples():
    (x, y), (ordered, labels) = shown(SHORT), shown(ByClass(SHORT, STEPS))
    for run in range(3):
        names = labels[run].argmax(1).tolist()
        blocks = [name for place, name in enumerate(names) if place == 0 or names[place - 1] != name]
        assert len(blocks) == len(set(blocks)) == SHORT.ways
        before = sorted(zip(y[run].argmax(1).tolist(), x[run].tolist(), strict=True))
        assert before == sorted(zip(names, ordered[run].tolist(), strict=True))
    orders = {tuple(dict.fromkeys(each.argmax(1).tolist())) for each in shown(ByClass(SHORT, STEPS), runs=12)[1]}
    assert len(orders) > 1


def test_noise_has_the_size_that_was_asked_for_and_is_also_there_where_it_is_scored():
    noise = shown(Noisy(SHORT, 0.25), runs=8)[0] - shown(SHORT, runs=8)[0]
    assert float(noise.std()) == pytest.approx(0.25, rel=0.02)
    asked = []
    network = Network.chain((64, 10))
    weights = {"input->output": torch.zeros(3, 10, 64, dtype=torch.float64)}
    for task in (SHORT, Noisy(SHORT, 0.25)):
        episode = task.sample(address("altered", runs=3), 1)
        episode.score(lambda x: (asked.append(x), network.forward(weights, x))[1], weights)
    assert float((asked[1] - asked[0]).std()) == pytest.approx(0.25, rel=0.1)


def test_the_wrong_share_of_samples_is_taught_as_another_and_no_input_changes():
    task = FewShot(ways=5, shots=20, queries=5)
    (x, y), (same, wrong) = shown(task, 100, runs=20), shown(Mislabelled(task, 0.2, 100), 100, runs=20)
    assert torch.equal(x, same)
    changed = (y != wrong).any(-1).to(torch.float64).mean()
    assert float(changed) == pytest.approx(0.2 * 0.8, abs=0.03)  # one other sample in five is of the same class
    reward = Mislabelled(Digits("bandit"), 0.3, 20).sample(address("paid", runs=50), 4).train(2).reward
    plain = Digits("bandit").sample(address("paid", runs=50), 4).train(2).reward
    assert reward
    assert plain
    action = torch.eye(10, dtype=torch.float64)[[3]].expand(50, 4, 10)
    assert 0 < int((reward(action) != plain(action)).sum()) < 100


def test_samples_come_again_after_their_period():
    x, y = shown(Again(SHORT, STEPS), 2 * STEPS)
    assert torch.equal(x[:, :STEPS], x[:, STEPS:])
    assert torch.equal(y[:, :STEPS], y[:, STEPS:])
    assert Again(SHORT, STEPS).steps(1) is None


def test_networks_are_wider_deeper_and_of_another_nonlinearity_and_nothing_else():
    network = Network.chain((64, 8, 6, 10), "softplus", beta=10.0, bias=True)
    assert list(wider(network, 2).sizes.values()) == [64, 16, 12, 10]
    assert list(deeper(network, 1).sizes.values()) == [64, 8, 6, 6, 10]
    assert deeper(deeper(network, 1), -1) == network
    assert activated(network, "relu") == Network.chain((64, 8, 6, 10), "relu", bias=True)
    skipping = Network.chain((64, 8, 6, 10), skips=((0, 2),))
    with pytest.raises(ValueError, match="no plain chain"):
        deeper(skipping, 1)


def test_all_conditions_are_made_for_a_few_shot_task_or_say_why_not(monkeypatch, tmp_path):
    monkeypatch.setenv("METARULE_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    made = {each.name: each for each in conditions(subject_of())}
    assert next(iter(made)) == OWN
    absent = {name for name, each in made.items() if each.subject is None}
    assert absent == {"mnist", "fashion_mnist", "kmnist", "omniglot"}  # no data folder has them
    assert all(made[name].reason for name in absent)
    assert "METARULE_DATA" in made["mnist"].reason
    assert {"linear", "relu", "sigmoid", "tanh"} <= made.keys()
    assert "softplus" not in made
    longer, batches = made["10 × longer"].subject, made["batch × 4"].subject
    assert longer
    assert longer.conditions.steps == 10 * STEPS
    assert batches
    assert (batches.conditions.batch, batches.conditions.steps) == (4, 3)


@pytest.mark.parametrize("name", ENGINES)
def test_a_condition_travels_to_a_worker_whatever_engine_the_subject_has(name):

    def staying(function, jobs, arrived=unheard):  # as the map of a pool of processes stays where the pool is
        return in_turn(function, jobs, arrived)

    engine = ENGINES[name](None, torch.float64, None, staying)
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(engine)
    made = alone(subject_of(course=Conditions(engine, STEPS, 1)))
    assert type(pickle.loads(pickle.dumps(made)).conditions.engine) is type(engine)


def test_what_a_subject_cannot_be_put_to_is_named_with_its_reason():
    learner = fitting_learner(Backprop(), (6, 3))
    subject = Subject("backprop", learner, start_row(learner), Imitation(), Conditions(EXACT, 5, 3), 10)
    made = {each.name: each for each in conditions(subject)}
    reasons = {name: each.reason for name, each in made.items() if each.subject is None}
    assert reasons.keys() == {"width", "depth", "nonlinearity", "class by class", "another data set"}
    assert reasons["width"] == "its network has no hidden layers"
    assert "no classes" in reasons["class by class"]
    entry = verdict(evidence(made["width"], {}), evidence(made[OWN], {"backprop": Tried({}, None, "gone")}))
    assert entry["holds"] is None
    assert "no hidden layers" in entry["sentence"]


def evidence_of(own, **others):
    """What was seen on the subject's own task where learners scored these accuracies."""
    scores = {"three_term": own, **others}
    tried = {
        name: Tried({"accuracy": tuple(values), "held_out_loss": tuple(1 - value for value in values)})
        for name, values in scores.items()
    }
    return evidence(conditions(subject_of())[0], tried)


HOME = evidence_of([0.8, 0.82, 0.81], backprop=[0.79, 0.8, 0.8], feedback_alignment=[0.3, 0.31, 0.33])


@pytest.mark.parametrize(
    ("own", "backprop", "rival", "holds"),
    [
        ([0.7, 0.72, 0.71], [0.7, 0.73, 0.71], [0.5, 0.5, 0.51], True),
        ([0.7, 0.72, 0.71], [0.8, 0.83, 0.81], [0.5, 0.5, 0.51], False),  # behind backprop, which it was not
        ([0.5, 0.55, 0.51], [0.5, 0.56, 0.51], [0.5, 0.54, 0.52], False),  # no longer ahead of its rival
        ([0.1, 0.1, 0.1], [0.1, 0.1, 0.1], [0.1, 0.1, 0.1], False),  # everybody at chance is no success
    ],
)
def test_a_condition_holds_where_what_was_beaten_is_beaten_and_backprop_is_no_further_ahead(
    own, backprop, rival, holds
):
    entry = verdict(evidence_of(own, backprop=backprop, feedback_alignment=rival), HOME)
    assert entry["holds"] is holds
    assert ("holds" if holds else "does not hold against") in entry["sentence"]
    assert ("nobody is ahead of anybody" in entry["sentence"]) == (own[0] == rival[0])


def test_a_rule_that_was_behind_backprop_may_be_behind_by_as_much():
    home = evidence_of([0.7, 0.71, 0.69], backprop=[0.8, 0.8, 0.8])
    assert verdict(evidence_of([0.6, 0.61, 0.62], backprop=[0.7, 0.7, 0.7]), home)["holds"]
    assert not verdict(evidence_of([0.6, 0.61, 0.62], backprop=[0.8, 0.8, 0.8]), home)["holds"]


def test_a_rule_that_diverges_does_not_hold_and_a_baseline_that_diverges_is_beaten():
    task = Digits("autoencoder", test_size=5)
    (condition, *_) = conditions(subject_of(task, course=Conditions(EXACT, 3, 4)))

    def seen(own, other):
        tried = {"three_term": Tried({"held_out_loss": own}), "feedback_alignment": Tried({"held_out_loss": other})}
        return evidence(condition, tried)

    fine, lost = (0.1, 0.11, 0.12), (math.inf, 0.3, 0.4)
    home = seen(fine, (0.5, 0.52, 0.55))
    assert verdict(seen(fine, lost), home)["holds"]
    entry = verdict(seen(lost, fine), home)
    assert not entry["holds"]
    assert "diverged" in entry["sentence"]
    assert not verdict(seen(lost, fine), seen(lost, fine))["holds"]  # nor where it diverges at home too


@pytest.fixture(scope="module")
def section():
    """The whole battery of a tiny rule under a few conditions, and what was said meanwhile."""
    heard = []
    few = {OWN, "width × 2", "tanh", "class by class", "kmnist"}

    def some(subject):
        return [each for each in conditions(subject) if each.name in few]

    effort = Effort(episodes=4, tuned=11, knocked=4, searched=1)
    return stress(subject_of(), progress=heard.append, conditions_of=some, effort=effort), heard


def test_the_battery_has_a_row_for_every_learner_as_evaluate_prints_them(section):
    found, _ = section
    assert {row["condition"] for row in found["rows"]} == {OWN, "width × 2", "tanh", "class by class"}
    assert HOME.found
    table = HOME.found.table()
    expected = set(printed(table["rows"][1], table)) | {"condition", "group", "detail"}
    for row in found["rows"]:
        assert set(row) - {"rate", "bracketed"} <= expected
        assert row["episodes"] == 4
        assert ("rate" in row) == (row["learner"] != "three_term")  # baselines are tuned there, the rule is not
    assert {each["other"] for each in found["differences"]} == {"backprop", "feedback_alignment"}
    rates = {(row["condition"], row["rate"]) for row in found["rows"] if row["learner"] == "backprop"}
    assert len(rates) == 4


def test_the_battery_has_a_verdict_for_every_condition_and_a_change_for_every_term(section):
    found, heard = section
    holds = {each["condition"]: each["holds"] for each in found["verdicts"]}
    assert holds.keys() == {"width × 2", "tanh", "class by class", "kmnist"}
    assert holds["kmnist"] is None
    terms = {(each["term"], each["kind"]) for each in found["knockouts"]}
    assert {("error_pre", "knock-out"), ("error_pre_error", "knock-out"), ("oja", "knock-in")} <= terms
    assert json.loads(json.dumps(jsonable(found)))["seeds"] == 1
    assert sum("(6 of 6)" in text for text in heard) == 1  # four conditions, knock-outs, knock-ins


def test_the_report_fits_a_terminal_and_says_every_condition(section):
    found, _ = section
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(stress_report(jsonable(found)))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 100
    for each in found["verdicts"]:
        assert each["condition"] in text
    for words in ("✓" if any(each["holds"] for each in found["verdicts"]) else "✗", "error_pre_error", "Holds under"):
        assert words in text


def test_a_rule_without_terms_gets_its_conditions_and_a_note():
    subject = subject_of()
    learner = replace(subject.learner, rules={"forward": Mlp(inputs=("pre", "error"), hidden=(3,))})
    subject = replace(subject, learner=learner, theta=start_row(learner))
    effort = Effort(episodes=2, tuned=11)
    found = stress(subject, conditions_of=lambda subject: conditions(subject)[:1], effort=effort)
    assert len(found["rows"]) == 6
    assert found["knockouts"] == []
    assert found["notes"] == ["no knock-outs: a rule of kind mlp is no list of terms that could be left out"]
