"""Evolution over choices and numbers: it finds planted optima, tries no rule twice, and goes on bit for bit."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from metarule.outer.breeding import genes
from metarule.outer.cma_es import CmaEs
from metarule.outer.genetic import Genetic
from metarule.params import Param, starts
from metarule.rng import noise_for

LETTERS = tuple("abcdefgh")
MIXED = (
    *(Param(f"gene{k}", choices=LETTERS) for k in range(6)),
    Param("real", start=0.0),
    Param("rate", start=0.1, log=True),
)
WANTED = torch.tensor([3.0, 1.0, 7.0, 0.0, 5.0, 2.0], dtype=torch.float64)


def loss_of(theta: Tensor) -> Tensor:
    """Wrong letters, and how far the numbers are from (1, 0.3)."""
    wrong = (theta[:, :6] != WANTED).sum(1)
    return (wrong + (theta[:, 6] - 1).square() + (theta[:, 7] / 0.3).log().square())[:, None]


def begun(params=MIXED, **settings) -> Genetic:
    loop = Genetic(**settings)
    loop.start(params)
    return loop


def evolved(loop, generations, candidates=4, loss=loss_of, first=0):
    """Rows asked for in every generation."""
    asked = []
    for generation in range(first, first + generations):
        theta = loop.ask(candidates, noise_for([(0, "outer", generation)]))
        loop.tell(theta, loss(theta))
        asked.append(theta)
    return asked


def letters_alone(theta):
    return theta[:, :6]


SCHEMES = {"cartesian": {"mutation": 0.1}, "regularised": {"population": 20, "tournament": 5, "mutation": 0.1}}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_finds_the_letters_and_the_numbers(scheme):
    loop = begun(scheme=scheme, **SCHEMES[scheme])
    evolved(loop, 300)
    assert torch.equal(loop.best[:6], WANTED)
    assert float(loss_of(loop.best[None])) < 0.05
    assert loop.report["evaluated"] == 1200


def test_evolution_beats_children_of_nobody_by_far():
    reached = {}
    for scheme in ("cartesian", "random"):
        loop = begun(scheme=scheme, mutation=0.1)
        evolved(loop, 200)
        reached[scheme] = float(loss_of(loop.best[None]))
    assert reached["cartesian"] < 0.5 < 2 < reached["random"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_rule_is_evaluated_twice_and_those_recognised_are_counted(scheme):
    loop = begun(scheme=scheme, **SCHEMES[scheme])
    loop.recognise(letters_alone)
    rows = torch.cat(evolved(loop, 60, loss=lambda theta: loss_of(theta).round()))[:, :6]
    assert len(rows.unique(dim=0)) == len(rows) == 240
    assert loop.report["recognised"] > 0
    assert loop.report["bred"] >= 240 + loop.report["recognised"]


def test_a_recognised_child_takes_over_the_loss_and_joins_the_living():
    loop = begun((Param("letter", choices=("a", "b")), Param("real")), parents=2, tries=40)
    loop.recognise(lambda theta: theta[:, :1])
    evolved(loop, 2, candidates=2, loss=lambda theta: theta[:, :1])
    before = loop.flock.rows.clone()
    loop.ask(2, noise_for([(0, "outer", 2)]))
    flock = loop.brood.flock
    assert torch.equal(flock.loss, flock.rows[:, 0])  # the loss of its letter, though nobody evaluated the row
    assert not torch.equal(flock.rows, before)  # among equals the younger stay
    assert torch.equal(loop.flock.rows, before)  # until the answer comes


def test_where_all_rules_are_known_one_is_tried_again():
    loop = begun((Param("letter", choices=("a", "b")),), tries=20)
    asked = evolved(loop, 6, loss=lambda theta: theta)
    assert all(len(theta) == 1 for theta in asked[2:])
    assert loop.best == 0


def test_without_the_cache_every_child_is_a_candidate():
    loop = begun((Param("letter", choices=("a", "b")),), cache=False)
    assert all(len(theta) == 4 for theta in evolved(loop, 6, loss=lambda theta: theta))
    assert loop.report["recognised"] == 0


def test_zeros_and_nans_of_fingerprints_are_equal_whatever_their_bits():
    loop = begun((Param("letter", choices=tuple("abcd")),), tries=8)
    values = torch.tensor([[0.0, math.nan], [-0.0, -math.nan], [0.0, math.nan], [1.0, 0.0]], dtype=torch.float64)
    loop.recognise(lambda theta: values[theta[:, 0].long()])
    asked = torch.cat(evolved(loop, 3, loss=lambda theta: theta))
    assert len(values[asked[:2, 0].long()].nan_to_num(2.0).unique(dim=0)) == 2


def test_known_rules_are_tried_first_and_then_the_start():
    loop = begun()
    known = starts(MIXED).repeat(5, 1)
    known[:, 0] = torch.arange(1.0, 6.0)
    loop.warm(known)
    asked = torch.cat(evolved(loop, 2))
    assert torch.equal(asked[:6], torch.cat((known, starts(MIXED)[None])))


def test_among_the_regularised_the_oldest_leaves_however_good_it_is():
    loop = begun(scheme="regularised", population=8, tournament=8)
    first = evolved(loop, 2)
    everyone = torch.cat(first)
    assert torch.equal(loop.flock.rows, everyone)
    (newest,) = evolved(loop, 1, first=2)
    assert torch.equal(loop.flock.rows, torch.cat((everyone, newest))[-8:])


def test_hurdles_stop_what_is_worse_than_the_living_were_there():
    loop = begun(parents=4, hurdles=[0.5, 0.1], quantile=0.5, cache=False)
    assert loop.rungs(100) == (10, 50)
    assert loop.rungs(2) == (1,)

    def raced(short):
        theta = loop.ask(4, noise_for([(0, "outer", loop.counts["evaluated"])]))
        kept = loop.keep(theta, torch.tensor(short)[:, None], 10)
        assert torch.equal(loop.keep(theta[kept], torch.tensor(short)[kept][:, None], 50), kept[kept])
        loss = torch.where(kept, torch.tensor(short), math.inf)
        loop.tell(theta, loss[:, None])
        return kept.tolist()

    assert raced([4.0, 3.0, 2.0, 1.0]) == [True] * 4  # nobody lives yet that they could be worse than
    assert raced([2.5, 2.0, math.nan, 0.5]) == [False, True, False, True]
    assert loop.report["dropped"] == 2
    assert sorted(loop.flock.loss.tolist()) == [0.5, 1.0, 2.0, 2.0]
    assert raced([1.5, 1.0, 2.0, 3.0]) == [False, True, False, False]


def test_the_numbers_of_the_best_rule_are_tuned_with_its_letters_held():
    plain, tuned = begun(mutation=0.2), begun(mutation=0.2, tune="cma_es", tune_every=60, tune_generations=15)
    evolved(plain, 75)
    asked = evolved(tuned, 75)
    rows = torch.cat(asked[60:])
    assert len(rows[:, :6].unique(dim=0)) == 1
    assert len(rows[:, 6:].unique(dim=0)) == 60
    assert tuned.report["tuned"] == 1
    assert tuned.tuning is None
    assert torch.equal(tuned.best[:6], rows[0, :6])
    assert float(loss_of(tuned.best[None])) % 1 < 0.01
    assert (tuned.flock.rows == tuned.best).all(1).any()


def test_tuning_asks_for_what_cma_es_would():
    loop = begun(tune="cma_es", tune_every=1, tune_generations=2)
    evolved(loop, 1)
    inner = CmaEs(loop.sigma)
    best = loop.best
    inner.start((Param("real", start=float(best[6])), Param("rate", start=float(best[7]), log=True)))
    noise = noise_for([(0, "outer", 1)])
    assert torch.equal(loop.ask(4, noise)[:, 6:], inner.ask(4, noise.at("tune")))


@pytest.mark.parametrize("cut", [1, 3, 8, 11])
@pytest.mark.parametrize(
    "settings", [{}, {"scheme": "regularised", **SCHEMES["regularised"]}, {"tune": "cma_es", "tune_every": 3}]
)
def test_stopped_and_resumed_it_breeds_the_same(cut, settings):
    settings = {"tune_generations": 4, "hurdles": [0.3], **settings}
    through, stopped = begun(**settings), begun(**settings)
    for loop in (through, stopped):
        loop.recognise(letters_alone)

    def through_disk(value):
        if isinstance(value, Tensor):
            return value.clone()
        if isinstance(value, dict):
            return {key: through_disk(part) for key, part in value.items()}
        return json.loads(json.dumps(value))

    def generation(loop, number):
        theta = loop.ask(5, noise_for([(0, "outer", number)]))
        kept = loop.keep(theta, loss_of(theta).round(), 3)
        loop.tell(theta, loss_of(theta).masked_fill(~kept[:, None], math.inf))
        return theta

    for number in range(14):
        if number == cut:
            state = through_disk(stopped.state_dict())
            stopped = begun(**settings)
            stopped.recognise(letters_alone)
            stopped.load_state_dict(state)
        assert torch.equal(generation(through, number), generation(stopped, number))
    assert torch.equal(through.best, stopped.best)
    assert through.report == stopped.report


def test_a_mutation_always_changes_a_gene_that_can_change_and_stays_inside_the_bounds():
    params = (*MIXED, Param("one", choices=("only",)), Param("held", low=-0.1, high=0.1))
    made = genes(params)
    noise = noise_for([(0, "genes")])
    rows = made.random(500, noise.at("random"))
    children = made.mutated(rows, 1e-6, 0.5, noise.at("children"))
    changed = children != rows
    inside = changed.sum(1) + (rows[:, 9].abs() == 0.1)  # a step beyond a bound ends where it began
    assert (inside >= 1).all()
    assert not changed[:, 8].any()
    for column, param in enumerate(params):
        assert ((children[:, column] >= param.low) & (children[:, column] <= param.high)).all()
        if param.choices:
            assert torch.equal(children[:, column], children[:, column].round())
            assert len(rows[:, column].unique()) == len(param.choices)
    assert float(rows[:, 6].std()) == pytest.approx(1.0, abs=0.1)  # one scale about the start
    assert float((rows[:, 7] / 0.1).log().std()) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"scheme": "cartesan"}, "did you mean 'cartesian'"),
        ({"tune": "cma"}, "did you mean 'cma_es'"),
        ({"parents": 0}, "at least 1"),
        ({"mutation": 0.0}, r"\(0, 1\]"),
        ({"sigma": -1.0}, "must be positive"),
        ({"hurdles": [1.0]}, "fractions"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        Genetic(**settings)


def test_too_few_candidates_to_tune_with_are_refused_at_once():
    with pytest.raises(ValueError, match="too few"):
        begun(tune="cma_es").ask(3, noise_for([(0,)]))
