"""Identifiability: curvature is exact where the loss is, equal rules are one class, terms that do nothing go."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from metarule.credit.backprop import Backprop
from metarule.credit.contrastive_hebbian import ContrastiveHebbian
from metarule.credit.none import Nobody
from metarule.evaluation import Conditions
from metarule.inspection.classes import Acting, classes
from metarule.inspection.coordinates import coordinates
from metarule.inspection.identifiability import identifiability
from metarule.inspection.landscape import STEP, Change, evaluated, hessian
from metarule.inspection.redundancy import redundancy
from metarule.inspection.references import references, rules_of
from metarule.inspection.subject import Subject
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.outer.cma_es import CmaEs
from metarule.outer.openai_es import OpenAiEs
from metarule.outer.snes import Snes
from metarule.params import Param
from metarule.rules.terms import Terms
from metarule.synapses.sgd import Sgd
from metarule.tasks.gaussian import Gaussian
from tests.building import EXACT, Imitation, address

silently = lambda text: None  # noqa: E731


@dataclass(frozen=True)
class Unpaid(Nobody):
    """Nobody teaches, and a reward that never comes is 0."""

    gives = Nobody.gives | {"reward"}

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        found, state = super().stage(k, theta, network, weights, state, batch, step, noise, wanted)
        never = batch.x.new_zeros(*batch.x.shape[:2], 1)
        return {name: replace(each, reward=never) for name, each in found.items()}, state


def made(learner: Learner, values: tuple[float, ...], task, steps: int = 3, batch: int = 4) -> Subject:
    theta = torch.tensor([values], dtype=torch.float64)
    return Subject("backprop", learner, theta, task, Conditions(EXACT, steps, batch), 1)


def single_unit(*terms: str, values: tuple[float, ...], credit: Nobody | None = None, steps: int = 30) -> Subject:
    """One linear unit on Gaussian inputs, where Oja's rule and the subspace rule are one."""
    task = Gaussian()
    network = Network.chain((task.inputs, 1), output="linear")
    rule = Terms(terms, normalise=False)
    return made(Learner(network, credit or Nobody(), {"forward": rule}, {ANY: Sgd()}), values, task, steps, 16)


def one_step(*values: float) -> Subject:
    """A linear readout after a single step: its squared error is a quadratic function of the coefficients."""
    network = Network.chain((6, 3), output="linear")
    rule = Terms(("error_pre", "weight_decay", "post_pre"), normalise=False)
    learner = Learner(network, Backprop(), {"forward": rule}, {ANY: Sgd()})
    return made(learner, values, Imitation(), steps=1)


def test_a_hessian_by_differences_is_exact_where_the_loss_is_quadratic():
    subject = one_step(0.2, 0.1, -0.05)
    at = coordinates(subject, 12)
    assert at is not None
    found = hessian(subject, at, silently)
    away = torch.tensor([[0.7, -0.4, 1.3]], dtype=torch.float64)
    none = torch.zeros(1, 3, dtype=torch.float64)
    losses = evaluated(subject, at.moved(torch.cat([none, away, -away])), "", silently).mean(1)
    torch.testing.assert_close(losses[1] + losses[2] - 2 * losses[0], away[0] @ found @ away[0], rtol=1e-6, atol=1e-9)
    assert STEP != 1.0


def test_a_unit_is_the_median_coefficient_and_moves_normalised_ones_alike():
    network = Network.chain((6, 3), output="linear")
    learner = Learner(network, Backprop(), {"forward": Terms(("error_pre", "weight_decay"))}, {ANY: Sgd()})
    at = coordinates(made(learner, (0.3, -0.1), Imitation()), 12)
    assert at is not None
    assert at.size == pytest.approx(0.2)
    torch.testing.assert_close(at.moved(torch.eye(2, dtype=torch.float64)) - at.theta, 0.2 * torch.eye(2).double())


def test_two_coefficient_vectors_that_act_the_same_on_the_task_are_one_class():
    subject = single_unit("oja", "subspace_oja", values=(0.03, 0.0))
    seen = references(subject)
    members = {
        name: Acting(rules_of(subject.learner, torch.tensor(values, dtype=torch.float64)))
        for name, values in {"a": (0.03, 0.0), "b": (0.0, 0.03), "mixed": (0.01, 0.02), "other": (0.03, 0.03)}.items()
    }
    (found,) = classes(members, seen)
    assert found["members"] == ["a", "b", "mixed"]
    assert "equal" in found["sentence"]


def test_terms_that_are_one_on_the_task_are_merged_and_the_move_between_them_is_undetermined():
    found = identifiability(single_unit("oja", "subspace_oja", values=(0.02, 0.01)))
    assert found is not None
    (twins,) = (each for each in found["classes"] if each["kind"] == "terms")
    assert set(twins["members"]) == {"oja", "subspace_oja"}
    assert found["reduced_equation"] == "dW = -0.03·post²·weight + 0.03·post·pre"
    sharp, flat = found["spectrum"]
    assert sharp["determined"]
    assert not flat["determined"]
    assert flat["direction"]["oja"] == pytest.approx(-flat["direction"]["subspace_oja"], abs=1e-3)
    assert abs(flat["eigenvalue"]) < 1e-4 * abs(sharp["eigenvalue"])


def test_terms_that_differ_on_the_task_stay():
    task = Gaussian(outputs=3)
    network = Network.chain((task.inputs, 3), output="linear")
    rule = Terms(("oja", "subspace_oja"), normalise=False)
    subject = made(Learner(network, Nobody(), {"forward": rule}, {ANY: Sgd()}), (0.02, 0.01), task, 10, 16)
    at = coordinates(subject, 12)
    assert at is not None
    found = redundancy(references(subject), at)
    assert found.twins == ()
    assert found.reduced is None


def test_an_artificial_null_term_is_removed_and_the_reason_said():
    found = identifiability(single_unit("oja", "reward_post_pre", values=(0.03, 5.0), credit=Unpaid()))
    assert found is not None
    (null,) = found["null_terms"]
    assert null["name"] == "reward_post_pre"
    assert "nothing to do" in null["sentence"]
    assert found["shares"]["reward_post_pre"] == 0.0
    assert found["reduced_equation"] == "dW = -0.03·post²·weight + 0.03·post·pre"


def test_a_term_with_coefficient_0_is_null_without_being_silent():
    subject = single_unit("oja", "post_pre", values=(0.03, 0.0))
    at = coordinates(subject, 12)
    assert at is not None
    found = redundancy(references(subject), at)
    assert found.silent == ()
    assert found.share["post_pre"] == 0.0
    assert found.reduced is not None


def test_a_term_that_is_the_sum_of_others_is_said_by_them():
    network = Network.chain((6, 5, 3), activation="tanh", output="sigmoid")
    rule = Terms(("post_pre", "post_ref_pre", "post_change_pre"), normalise=False)
    credit = ContrastiveHebbian()
    held = {f"credit.{param.name}": param.start for param in credit.params}
    learner = Learner(network, credit, {"forward": rule}, {ANY: Sgd()}, fixed=held)
    subject = made(learner, (0.2, -0.1, 0.05), Imitation())
    at = coordinates(subject, 12)
    assert at is not None
    (twin,) = redundancy(references(subject), at).twins
    weights = {**twin.weights, twin.name: -1.0}
    # up to a factor post_change pre - post pre + post_ref pre = 0
    scale = weights["post_change_pre"]
    assert weights["post_pre"] / scale == pytest.approx(-1.0)
    assert weights["post_ref_pre"] / scale == pytest.approx(1.0)


def test_a_change_is_seen_where_its_interval_leaves_0_out_or_a_run_diverged():
    assert Change(1.0, 0.5, 1.5, 3).seen
    assert not Change(1.0, -0.5, 1.5, 3).seen
    assert Change(float("inf"), float("inf"), float("inf"), 3).seen


def settled(outer, generations: int = 60):
    """An outer loop after a quadratic that is 100 times flatter along (1, 1) than across it."""
    outer.start((Param("a"), Param("b")))
    for generation in range(generations):
        theta = outer.ask(16, address("generation", generation))
        loss = (theta[:, 0] - theta[:, 1] - 1).square() + 1e-4 * (theta[:, 0] + theta[:, 1]).square()
        outer.tell(theta, loss[:, None])
    return outer


def test_the_covariance_of_cma_es_is_long_where_the_loss_is_flat():
    covariance = settled(CmaEs(), 40).covariance
    values, vectors = torch.linalg.eigh(covariance)
    assert values[1] > 100 * values[0]
    assert abs(float(vectors[:, 1] @ torch.tensor([1.0, 1.0]).double())) / 2**0.5 > 0.99


def test_a_covariance_is_given_only_where_it_was_learned():
    fresh = CmaEs()
    fresh.start((Param("a"), Param("b")))
    assert fresh.covariance is None
    snes = settled(Snes(), 5)
    torch.testing.assert_close(snes.covariance, torch.diag(snes.deviation.square()))
    assert settled(OpenAiEs(), 2).covariance is None


def test_of_a_rule_that_diverges_on_its_own_task_it_is_said_and_nothing_else():
    found = identifiability(single_unit("post_pre", "oja", values=(1e3, 0.0), steps=300))
    assert found is not None
    assert "diverges" in found["sentence"]
    assert found["spectrum"] == found["classes"] == []


def test_moments_of_a_run_that_has_diverged_are_not_looked_at():
    kept = references(single_unit("post_pre", values=(1e3,)))
    assert kept
    assert all(bool((each.signals.weight.abs() < 1e9).all()) for each in kept)
    assert len(references(single_unit("oja", values=(0.03,)))) > len(kept)
