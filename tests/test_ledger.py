"""The ledger: what is on disk is not computed again, and what is stale or damaged is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import killing
import pytest
import torch
from building import Imitation, fitting_learner, start_row

from metarule import jobs, reading, workers
from metarule.block import run_block
from metarule.credit.backprop import Backprop
from metarule.inner import Outcome, Reference, Runs, in_turn, unheard
from metarule.ledger import Ledger
from metarule.runs import RunFolder

WANTS = frozenset({"loss", "grad", "carry"})


class Counting:
    """The map of one process; it counts the blocks, and dies where it is told to."""

    def __init__(self, dies_before: int | None = None) -> None:
        self.blocks = 0
        self.dies_before = dies_before

    def __call__(self, function: Any, given: Any, /, arrived: Any = unheard) -> Any:
        def counted(block: Any) -> Any:
            if self.blocks == self.dies_before:
                raise KeyboardInterrupt
            self.blocks += 1
            return function(block)

        return in_turn(counted, given, arrived)


def evaluated(ledger: Ledger, map: Any, factor: float = 1.0) -> list[Outcome]:
    """Two calls of the engine in one chapter, three blocks each; the second goes on from the first."""
    learner = fitting_learner(Backprop())
    theta = torch.cat([start_row(learner) * scale * factor for scale in (0.5, 1.0, 2.0)])
    engine = Reference(block_runs=2, map=ledger.over(map))
    ledger.open("generation7")
    runs = Runs((0, 1, 2), (0, 1))
    first = engine.evaluate(learner, theta, Imitation(), runs, range(4), 3, WANTS, record=2)
    return [first, engine.evaluate(learner, theta, Imitation(), runs, range(4, 6), 3, WANTS, carry=first.carry)]


def tensors(outcomes: list[Outcome]) -> list[torch.Tensor]:
    found = []
    for outcome in outcomes:
        assert outcome.grad is not None
        assert outcome.carry is not None
        found += [outcome.loss, outcome.grad, *outcome.scores.values(), *outcome.carry["weights"].values()]
        found += list(outcome.record.series.values()) if outcome.record else []
    return found


def same(one: list[Outcome], other: list[Outcome]) -> bool:
    return all(torch.equal(left, right) for left, right in zip(tensors(one), tensors(other), strict=True))


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "blocks")


def files(ledger: Ledger) -> list[Path]:
    return sorted(ledger.folder.iterdir())


def test_what_comes_back_from_disk_is_what_was_computed_bit_for_bit(ledger):
    counting = Counting()
    computed = evaluated(ledger, counting)
    assert counting.blocks == len(files(ledger)) == 6
    again = Counting()
    assert same(evaluated(ledger, again), computed)
    assert again.blocks == 0


@pytest.mark.parametrize("died", range(6))
def test_a_driver_that_died_at_any_block_computes_the_others_only(ledger, tmp_path, died):
    with pytest.raises(KeyboardInterrupt):
        evaluated(ledger, Counting(died))
    again = Counting()
    found = evaluated(Ledger(ledger.folder), again)
    assert again.blocks == 6 - died
    assert same(found, evaluated(Ledger(tmp_path / "other"), in_turn))


def test_a_damaged_block_is_computed_again(ledger):
    computed = evaluated(ledger, in_turn)
    flipped, cut, empty = files(ledger)[0], files(ledger)[2], files(ledger)[4]
    content = bytearray(flipped.read_bytes())
    content[-1] ^= 1
    flipped.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[:-10])
    empty.write_bytes(b"")
    again = Counting()
    assert same(evaluated(ledger, again), computed)
    assert again.blocks == 3


def test_blocks_that_were_asked_something_else_are_computed_again(ledger):
    evaluated(ledger, in_turn)
    again = Counting()
    other = evaluated(ledger, again, factor=0.9)
    assert again.blocks == 6
    assert same(other, evaluated(ledger, in_turn, factor=0.9))


def test_a_new_chapter_drops_the_blocks_of_the_old_one_and_the_end_drops_all(ledger):
    evaluated(ledger, in_turn)
    (ledger.folder / ".generation8-0000-00000.safetensors.new").write_bytes(b"half")
    ledger.open("generation70")
    assert files(ledger) == []
    ledger.close()
    assert not ledger.folder.exists()
    ledger.open("generation71")  # a search that was finished before there was a ledger has no folder


def test_whoever_waits_hears_of_every_block_once_whether_computed_or_read(ledger):
    def heard(places: list[int]) -> list[float]:
        ledger.open("battery")
        given = [number + 0.0 for number in range(3)]
        blocks = [_block(value) for value in given]
        kept = ledger.over(in_turn)(run_block, blocks, arrived=lambda place, outcome: places.append(place))
        return [float(next(iter(outcome.scores.values()))[0]) for outcome in kept]

    computed: list[int] = []
    read: list[int] = []
    first = heard(computed)
    files(ledger)[1].unlink()
    assert heard(read) == first
    assert computed == [0, 1, 2]
    assert sorted(read) == [0, 1, 2]


def _block(scale: float) -> Any:
    blocks: list[Any] = []
    learner = fitting_learner(Backprop())

    def caught(function: Any, given: Any, /, arrived: Any = unheard) -> Any:
        blocks.extend(given)
        return in_turn(function, given, arrived)

    Reference(map=caught).evaluate(learner, start_row(learner) * scale, Imitation(), Runs((0,), (0,)), range(2), 3)
    return blocks[0]


def test_a_search_that_died_within_a_generation_or_its_battery_goes_on_from_the_blocks_on_disk(tmp_path, monkeypatch):
    def searched(name: str, deaths: list[int]) -> tuple[dict[str, str], int]:
        folder = killing.prepared(tmp_path / name / "run", "cma_es", generations=2, episodes=3)
        run, computed = RunFolder(folder), 0
        for death in [*deaths, None]:
            counting = Counting(death)
            monkeypatch.setattr(workers, "in_turn", counting)
            try:
                if (folder / "spec.json").exists():
                    jobs.resume(run)
                else:
                    jobs.start(run, *reading.read(folder / "asked.toml", ("inner.block_runs=3",)))
            except KeyboardInterrupt:
                pass
            computed += counting.blocks
        assert not (folder / "blocks").exists()
        return killing.digests(folder), computed

    straight, blocks = searched("whole", [])
    # in the middle of generations 0 and 1, then in the battery
    assert searched("died", [2, 4, 20]) == (straight, blocks)
