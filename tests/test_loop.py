"""The loop of a search: windows that go on where the last one ended, rungs where rows are dropped, what is scored."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from metarule import jobs
from metarule.inner import Runs
from metarule.loop import begun, generations
from metarule.outer import OuterLoop
from metarule.outer.base import Window
from metarule.plugins import SpecError
from metarule.reading import find, read
from metarule.runs import RunFolder
from metarule.spec import Search, from_table

SMALL = ("inner.steps=12", "inner.batch=4", "inner.episodes=2", "inner.precision=float64", "battery.episodes=0")


def searched(*overrides: str) -> Search:
    return read(find("oja"), (*SMALL, *overrides))[0]


@dataclass
class Grid(OuterLoop):
    """The same four rows in every generation; remembers what it was told."""

    kind = "grid"
    source = "a test"
    accepts = frozenset({"real", "objectives"})

    length: int | None = None
    at: tuple[int, ...] = ()

    def start(self, params, objectives=1):
        self.rows = 0.05 * torch.arange(4 * len(params), dtype=torch.float64).sin().reshape(4, -1)
        self.told: list[torch.Tensor] = []

    def ask(self, candidates, noise):
        return self.rows

    def tell(self, theta, loss, grad=None):
        self.told.append(loss)

    def window(self, generation, steps):
        if self.length is None:
            return super().window(generation, steps)
        unroll, place = divmod(generation, steps // self.length)
        return Window(unroll, range(place * self.length, (place + 1) * self.length))

    def rungs(self, steps):
        return self.at

    def keep(self, theta, loss, step):
        return loss[:, 0] <= loss[:, 0].median()

    @property
    def best(self):
        return self.rows[0]

    def state_dict(self) -> dict[str, Any]:
        return {"told": self.told}

    def load_state_dict(self, state):
        self.told = list(state["told"])


def run(search: Search, outer: OuterLoop, count: int):
    search = replace(search, outer=outer, budget=replace(search.budget, candidates=4, generations=count))
    loop = begun(search)
    return list(generations(search, loop, 0, jobs.engine_for(search))), search


def test_windows_of_a_run_end_where_the_whole_run_ends():
    windows, _ = run(searched(), Grid(length=4), 6)
    whole, _ = run(searched(), Grid(), 2)
    assert torch.equal(windows[2].loss, whole[0].loss)
    assert torch.equal(windows[5].loss, whole[1].loss)
    assert not torch.equal(windows[0].loss, whole[0].loss)
    assert [generation.run_steps for generation in windows] == [4 * 2 * 4] * 6
    assert [generation.carry is not None for generation in windows] == [True, True, False] * 2


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_search_stopped_within_an_unroll_goes_on_to_the_same_bits(tmp_path, cut, monkeypatch):
    monkeypatch.setitem(jobs.__dict__, "rehearse", lambda *given: None)
    straight, search = run(searched(), Grid(length=4), 6)
    folder = RunFolder(tmp_path / "run")
    folder.create("", {})
    first = begun(search)
    for generation in list(generations(search, first, 0, jobs.engine_for(search)))[:cut]:
        folder.save(generation.number + 1, first.state_dict(), {}, generation.carry)
    checkpoint, note = folder.checkpoint()
    assert checkpoint is not None
    assert note is None
    rest = generations(search, begun(search), cut, jobs.engine_for(search), checkpoint.carry)
    for ours, theirs in zip(rest, straight[cut:], strict=True):
        assert torch.equal(ours.loss, theirs.loss)


def test_rows_that_are_dropped_stop_and_are_told_as_failed_the_others_end_as_if_alone():
    raced, _ = run(searched(), Grid(at=(3, 6)), 2)
    whole, _ = run(searched(), Grid(), 2)
    for short, long in zip(raced, whole, strict=True):
        alive = torch.isfinite(short.loss[:, 0])
        assert alive.sum() == 1
        assert torch.equal(short.loss[alive], long.loss[alive])
        assert short.run_steps == 2 * (4 * 3 + 2 * 3 + 1 * 6)


def test_the_loss_along_a_trajectory_is_the_mean_of_the_scores_on_it():
    search = searched("inner.score_every=4")
    (found,), search = run(search, Grid(), 1)
    engine, runs = jobs.engine_for(search), Runs((0, 1, 2, 3), (0, 1))
    rows = Grid()
    rows.start(search.learner.params)
    parts = [
        engine.evaluate(search.learner, rows.rows, search.task, runs, range(stop), search.inner.batch).loss.mean(1)
        for stop in (4, 8, 12)
    ]
    torch.testing.assert_close(found.loss, torch.stack(parts).mean(0), rtol=1e-12, atol=0)
    raced, _ = run(search, Grid(at=(6,)), 1)
    alive = torch.isfinite(raced[0].loss)
    torch.testing.assert_close(raced[0].loss[alive], found.loss[alive], rtol=1e-12, atol=0)
    with pytest.raises(SpecError, match=r"inner\.score_every = 5 does not divide the 12 inner steps"):
        searched("inner.score_every=5")


def test_a_row_that_diverges_before_the_first_score_is_lost_and_is_no_nan():
    class Kept(Grid):
        def start(self, params, objectives=1):
            super().start(params, objectives)
            self.rows[3] = 1e200

        def keep(self, theta, loss, step):
            return torch.ones(len(theta), dtype=torch.bool)

    (found,), _ = run(searched("inner.score_every=4"), Kept(at=(2,)), 1)
    assert found.loss[3, 0] == math.inf
    assert torch.isfinite(found.loss[:3]).all()


def test_fixed_episodes_are_the_same_in_every_generation():
    fixed, _ = run(searched("inner.fixed_episodes=true"), Grid(), 2)
    fresh, _ = run(searched(), Grid(), 2)
    assert torch.equal(fixed[0].loss, fixed[1].loss)
    assert torch.equal(fixed[0].loss, fresh[0].loss)
    assert not torch.equal(fresh[0].loss, fresh[1].loss)


def test_complexity_is_an_objective_beside_those_of_the_task():
    search = searched('search.objective=["held_out_loss"]')
    table = search.table() | {"outer": {"kind": "optuna"}}
    table["search"] = {"objective": ["held_out_loss", "complexity"]}
    both = from_table(table)
    outer = Grid()
    outer.start(both.learner.params)
    (found,), _ = run(both, outer, 1)
    rows = begun(replace(both, outer=outer)).ask(4, None)  # pyright: ignore[reportArgumentType]
    assert found.loss[:, 1].tolist() == (rows != 0).sum(1).tolist()
    table["search"] = {"objective": ["complexity", "held_out_loss"]}
    with pytest.raises(SpecError, match="cannot be led by 'complexity'"):
        from_table(table)


def test_what_the_outer_loop_reports_is_logged():
    class Reporting(Grid):
        @property
        def report(self):
            return {"told": float(len(self.told))}

    found, search = run(searched(), Reporting(), 2)
    names = [param.name for param in search.learner.params]
    assert [generation.line(names)["outer"] for generation in found] == [{"told": 1.0}, {"told": 2.0}]
    assert math.isfinite(found[0].line(names)["loss_mean"])
    plain, _ = run(searched(), Grid(), 1)
    assert "outer" not in plain[0].line(names)
