"""The bank that recordings are compared with: plain arrays by a recipe, rebuilt at will, open to one's own rules."""

from __future__ import annotations

import functools
import json
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from banking import small_bank

from metarule import jobs
from metarule.identification import bank as banks
from metarule.identification import classifier, recipe
from metarule.identification.bank import COVARIATES, VIEWS, Bank, compared, covariates, load, made, measured, rows_of
from metarule.identification.classifier import RuleClassifier, trees
from metarule.identification.degrading import Degradation
from metarule.identification.recording import RecordingError
from metarule.identification.reference import REFERENCE
from metarule.identification.simulation import simulated
from metarule.reading import find, read
from metarule.records import RunError
from metarule.runs import RunFolder

TOML, TINY = small_bank("backprop", "oja", "drift")


@functools.cache
def rows() -> tuple[banks.Row, ...]:
    return tuple(rows_of(TINY.jobs()))


@functools.cache
def tiny() -> Bank:
    return made(list(rows()), {"name": "tiny", "figures": {}})


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
    monkeypatch.setattr(banks, "TREES", 10)


@pytest.fixture
def file(tmp_path) -> Path:
    return tiny().save(tmp_path / "tiny.npz")


@pytest.fixture
def small_recipe(tmp_path, monkeypatch) -> Path:
    """One small simulation in place of the recipe's two."""
    path = tmp_path / "small.toml"
    path.write_text(TOML)
    monkeypatch.setattr(recipe, "simulations", lambda: {"small": path})
    monkeypatch.setattr(recipe, "RECIPE", ("small",))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A tiny finished search's folder."""
    overrides = ("outer.generations=1", "outer.candidates=4", "inner.episodes=1", "inner.steps=2", "battery.episodes=0")
    search, text = read(find("first_rule"), (*overrides, "network.hidden=[6]"))
    folder = tmp_path_factory.mktemp("runs") / "my_rule"
    jobs.start(RunFolder(folder), search, text)
    return folder


def test_every_network_is_seen_clean_and_degraded_with_weights_and_without():
    seen = {(row.network, row.view, row.quality) for row in rows()}
    networks = {row.network for row in rows()}
    assert len(networks) == TINY.networks == 12
    assert seen == {
        (network, view, quality) for network in networks for view in VIEWS for quality in ("clean", "drawn")
    }
    assert len(rows()) == len(seen)
    for row in rows():
        assert any(name.startswith("published_weights.") for name in row.observables) == (row.view == "weights")
        assert len(row.covariates) == len(COVARIATES)
    # what must not tell the rule is there to be tested, and the same in every row of a network
    assert len({tuple(row.controls.items()) for row in rows() if row.network == rows()[0].network}) == 1
    assert {"accuracy", "displacement", "rate"} < {*rows()[0].controls}


def test_wide_networks_are_also_seen_sparsely(monkeypatch):
    monkeypatch.setattr(banks, "SPARSE_FROM", 8)
    for job in TINY.jobs()[:2]:
        found = {row.quality for row in measured(job)}
        assert ("sparse" in found) == (min(job.hidden) >= 8)


def test_rows_depend_on_their_job_alone():
    again = measured(TINY.jobs()[3])
    theirs = [row for row in rows() if row.network in {each.network for each in again}]
    assert len(again) == len(theirs) == 8
    for row, other in zip(again, theirs, strict=True):
        assert row[:5] == other[:5]
        assert row.observables == pytest.approx(other.observables, nan_ok=True, rel=1e-12)


def test_covariates_say_what_is_known_besides_the_rule():
    job = next(job for job in TINY.jobs() if len(job.hidden) == 2)
    (recording, *_) = simulated(job)
    found = dict(zip(COVARIATES, covariates(recording, Degradation(0.5, 0.2, 0.0, 5)), strict=True))
    drew = recording.meta["displacement"]
    assert found == {
        "width": 6.0, "depth": 2.0, "batch": 8.0, "displacement": drew, "observed": 0.5, "snapshots": 5.0, "noise": 0.2
    }  # fmt: skip
    assert covariates(recording, Degradation())[COVARIATES.index("snapshots")] == len(recording.time)


def test_a_bank_saves_and_loads_bit_for_bit(file):
    bank, again = tiny(), load(file)
    assert again.names == bank.names
    assert again.classes == bank.classes == ("backprop", "drift", "oja")
    assert again.card == {**bank.card, "schema": banks.SCHEMA}
    assert {*again.views} == {*VIEWS}
    for name, view in bank.views.items():
        for field, array in vars(view).items():
            other = getattr(again.views[name], field)
            assert other.dtype == array.dtype, (name, field)
            assert other.tobytes() == array.tobytes(), (name, field)
    assert load(again.save(file.with_name("again.npz"))).card == again.card


def test_a_bank_is_small_and_holds_plain_arrays_only(file):
    count = sum(len(view.labels) for view in tiny().views.values())
    # float16 per observable and little else
    assert file.stat().st_size < 1000 * count + 20_000
    with zipfile.ZipFile(file) as archive:
        assert all(entry.endswith(".npy") for entry in archive.namelist())
    with np.load(file, allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind in "Uifub" for name in arrays.files)


def test_a_bank_keeps_observables_to_half_precision_and_the_rows_of_each_view_in_order():
    for name, view in tiny().views.items():
        theirs = [row for row in rows() if row.view == name]
        assert view.labels.tolist() == [row.label for row in theirs]
        assert view.networks.tolist() == [row.network for row in theirs]
        assert view.quality.tolist() == [row.quality for row in theirs]
        np.testing.assert_allclose(view.covariates, [row.covariates for row in theirs], rtol=1e-6)
        for row, kept in zip(theirs, view.table, strict=True):
            own = [row.observables.get(name, np.nan) for name in tiny().names]
            np.testing.assert_allclose(kept, own, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(view.out_of_fold.sum(axis=1), 1, atol=5e-3)


def grown(view: str) -> Any:
    """The trees of a view of the tiny bank as scikit-learn grows them."""
    rows = tiny().views[view]
    return trees(banks.TREES).fit(rows.table.astype(np.float32), np.unique(rows.labels, return_inverse=True)[1])


@pytest.mark.parametrize("view", VIEWS)
def test_the_classifier_of_a_loaded_bank_is_that_of_the_bank(file, view, monkeypatch):
    bank, again = tiny(), load(file)
    table = bank.views[view].table.astype(np.float32)
    with monkeypatch.context() as patched:
        patched.setattr(classifier, "trees", None)  # nothing is grown
        model = again.classifier(view)
    assert model is again.classifier(view)
    assert np.array_equal(model.probabilities(table), bank.classifier(view).probabilities(table))
    assert np.array_equal(again.forest(view).predict_proba(table), grown(view).predict_proba(table))
    # calibrated on the stored probabilities, and no network of a row was in the trees behind them
    rows = bank.views[view]
    same = RuleClassifier(n_estimators=banks.TREES).fit(table, rows.labels, rows.networks, rows.out_of_fold)
    for ask in ("probabilities", "novelty_p"):
        assert np.array_equal(getattr(model, ask)(table), getattr(same.calibrated_, ask)(table)), ask
    assert np.array_equal(model.prediction_set(table, 0.2), same.calibrated_.prediction_set(table, 0.2))


def test_a_bank_without_trees_has_them_grown_and_writes_them(tmp_path, file):
    old = stored(tmp_path / "old.npz", **parts())
    bank, again = load(old), load(load(old).save(tmp_path / "new.npz"))
    for view in VIEWS:
        for name, array in load(file).forest(view).arrays.items():
            assert np.array_equal(array, bank.forest(view).arrays[name]), name
            assert np.array_equal(array, again.forest(view).arrays[name]), name


def test_trees_stay_with_the_rows_that_they_were_grown_from(tmp_path, file):
    bank = load(file)
    view = replace(bank.views["weights"], table=bank.views["weights"].table[::-1].copy())
    other = replace(bank, views={**bank.views, "weights": view})
    again = load(other.save(tmp_path / "other.npz"))
    codes = np.unique(view.labels, return_inverse=True)[1]
    assert not np.array_equal(again.forest("weights").leaf, bank.forest("weights").leaf)
    assert (again.forest("weights").predict_proba(view.table.astype(np.float32)).argmax(axis=1) == codes).all()


def stored(path: Path, **arrays) -> Path:
    with path.open("wb") as handle:
        np.savez_compressed(handle, **arrays)
    return path


def parts() -> dict[str, np.ndarray]:
    """The arrays of a bank's file."""
    views = {f"{name}/{field}": array for name, view in tiny().views.items() for field, array in vars(view).items()}
    return {"names": np.array(tiny().names), "card": np.array(json.dumps({"schema": banks.SCHEMA})), **views}


@functools.cache
def written_trees() -> dict[str, np.ndarray]:
    """The arrays of its trees."""
    with tempfile.TemporaryDirectory() as folder, np.load(tiny().save(Path(folder) / "tiny.npz")) as arrays:
        return {name: arrays[name] for name in arrays.files if "/trees/" in name}


@pytest.mark.parametrize(
    ("spoilt", "why"),
    [
        ({"card": np.array("{")}, "its card is no table"),
        ({"card": np.array("[1]")}, "its card is no table"),
        ({"card": np.array('{"schema": "metarule-bank/9"}')}, "its schema is 'metarule-bank/9', this version reads"),
        ({"card": None}, "card"),
        ({"names": None}, "names"),
        ({"names": np.array("one")}, "weights/table has shape .*, its columns are 3 names"),
        ({"activity/labels": None}, "activity/labels"),
        ({"activity/labels": np.array(["oja"])}, r"activity/labels has shape \(1,\), activity/table 24 rows"),
        ({"weights/table": np.zeros((24, 2), np.float16)}, r"weights/table has shape \(24, 2\), its columns are"),
        ({"names": np.array([{}, print], dtype=object)}, "Object arrays cannot be loaded"),
        ({"weights/trees/leaf": None}, "weights/trees/leaf"),
        ({"activity/trees/of": None}, "activity/trees/of"),
        ({"activity/trees/of": np.array("0" * 64)}, "activity/trees: they were grown from other rows; a file without"),
        ({"weights/labels": np.repeat(["drift", "oja"], 12)}, "weights/trees: votes are no probabilities of 2 classes"),
        ({"weights/labels": np.repeat(["drift", "oja", "adam"], 8)}, "weights/trees: they were grown from other rows"),
        ({"weights/trees/splits": np.ones(7, bool)}, "weights/trees: feature has .* entries where splits needs 7; a f"),
    ],
)
def test_a_file_that_is_no_bank_is_refused(tmp_path, spoilt, why):
    whole = {**parts(), **written_trees(), **spoilt}
    arrays = {name: array for name, array in whole.items() if array is not None}
    path = stored(tmp_path / "spoilt.npz", **arrays)
    with pytest.raises(RecordingError, match=rf"spoilt.npz is no bank \(.*{why}.*\); build one with 'metarule bank b"):
        load(path)


def test_a_damaged_file_is_refused(file):
    whole = file.read_bytes()
    for damaged in (b"", b"no bank", whole[: len(whole) // 2], whole[:-4]):
        file.write_bytes(damaged)
        with pytest.raises(RecordingError, match="is no bank"):
            load(file)
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        spoilt = bytearray(whole)
        for place in generator.integers(len(whole), size=8):
            spoilt[place] ^= int(generator.integers(1, 256))
        file.write_bytes(bytes(spoilt))
        try:
            load(file)
        except RecordingError as error:
            refused += "is no bank" in str(error)
    assert refused > 50  # the date of an entry may be anything
    with pytest.raises(RecordingError, match=r"none\.npz is no bank"):
        load(file.with_name("none.npz"))
    with pytest.raises(RecordingError, match="is no bank"):
        load(file.parent)


def test_a_recording_is_no_bank(tmp_path, metarule):
    (recording, *_) = simulated(TINY.jobs()[0])
    path = recording.save(tmp_path / "recording.npz")
    for verb in ("info", "test"):
        code, out, err = metarule("bank", verb, "--bank", path)
        assert (code, out) == (2, "")
        assert f"{path} is no bank" in err
        assert "metarule bank build" in err


def test_the_same_rows_agree_and_altered_ones_do_not():
    given = list(rows())
    assert compared(tiny(), given) == (len(given), 1.0)
    altered = [
        row._replace(observables={name: value + 0.5 for name, value in row.observables.items()}) for row in given
    ]
    found, agreement = compared(tiny(), altered)
    assert found == len(given)
    assert agreement < 0.5  # what is missing in both still agrees
    one = given[0]
    name = next(name for name, value in one.observables.items() if np.isfinite(value))
    _, agreement = compared(tiny(), [one._replace(observables={**one.observables, name: 9.0})])
    assert agreement == pytest.approx(1 - 1 / len(tiny().names))
    assert compared(tiny(), [one._replace(network=1)]) == (0, 0.0)
    assert compared(tiny(), [one._replace(quality="sparse")])[0] == 0
    assert compared(tiny(), []) == (0, 0.0)


def test_numbers_too_large_for_a_bank_agree_with_themselves():
    given = [*rows()]
    name = tiny().names[0]
    given[0] = given[0]._replace(observables={**given[0].observables, name: 1e7})
    bank = made(given, {})
    assert np.isfinite(bank.views["weights"].table[0, 0])
    assert compared(bank, given) == (len(given), 1.0)


def test_the_recipe_is_two_simulations_of_every_rule():
    all_jobs = recipe.jobs()
    assert {*recipe.RECIPE} <= {*recipe.simulations()}
    assert {job.rule for job in all_jobs} == {*REFERENCE}
    assert len({*all_jobs}) == len(all_jobs)
    # a rule of one's own takes the place of one rule: nothing else tells blocks apart
    cells = [(job.task, job.hidden, job.block) for job in all_jobs]
    assert {cells.count(cell) for cell in cells} == {len(REFERENCE)}


@pytest.mark.parametrize(("share", "count"), [(1.0, 6), (0.5, 3), (0.34, 2), (0.05, 1)])
@pytest.mark.usefixtures("small_recipe")
def test_a_share_of_the_blocks_is_chosen_evenly(share, count):
    chosen = recipe._every(recipe.jobs(), share)
    assert len(chosen) == count
    assert chosen == recipe.jobs()[:: 6 // count]


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
@pytest.mark.usefixtures("small_recipe")
def test_a_share_that_is_none_is_refused(share, file):
    for built in (lambda: recipe.built(share=share), lambda: recipe.rebuilt(file, share)):
        with pytest.raises(ValueError, match=f"share = {share} must lie above 0 and be at most 1"):
            built()


def test_the_bank_by_its_recipe_says_what_it_was_made_of(small_recipe):
    said: list[str] = []
    bank = recipe.built(say=said.append)
    assert bank.names == tiny().names
    for name, view in bank.views.items():
        assert np.array_equal(view.table, tiny().views[name].table, equal_nan=True)
        assert np.array_equal(view.out_of_fold, tiny().views[name].out_of_fold)
    assert bank.card["recipe"] == {"small": small_recipe.read_text()}
    assert bank.card["share"] == 1.0
    assert said == ["6 of 6 blocks simulated", f"{len(rows())} rows; cross-fitting"]


@pytest.mark.usefixtures("small_recipe")
def test_a_rebuilt_bank_is_the_same_and_one_of_another_recipe_is_not(file, tmp_path):
    found = recipe.rebuilt(file, share=0.5)
    assert found == {"rows": 24, "found": 24, "agreement": 1.0, "needed": recipe.AGREES, "same": True}
    other = made(rows_of(replace(TINY, seed=6).jobs()), {}).save(tmp_path / "other.npz")
    found = recipe.rebuilt(other, share=0.2)
    assert (found["found"], found["same"]) == (0, False)
    views = {name: replace(view, table=view.table + np.float16(0.1)) for name, view in tiny().views.items()}
    drifted = replace(tiny(), views=views).save(tmp_path / "drifted.npz")
    found = recipe.rebuilt(drifted, share=0.2)
    assert (found["found"], found["same"]) == (found["rows"], False)


@pytest.mark.usefixtures("small_recipe")
def test_a_bank_is_built_shown_and_tested_on_the_command_line(metarule, tmp_path):
    out = tmp_path / "mine.npz"
    code, shown, said = metarule("bank", "build", "--out", out)
    assert (code, shown) == (0, "")
    assert f"{out}: " in said
    assert "3 classes" in said
    code, shown, _ = metarule("bank", "info", "--bank", out, "--json")
    card = json.loads(shown)
    assert code == 0
    assert card["classes"] == ["backprop", "drift", "oja"]
    assert card["rows"] == {"weights": 24, "activity": 24}
    assert card["observables"] == len(tiny().names)
    assert card["schema"] == banks.SCHEMA
    code, shown, _ = metarule("bank", "info", "--bank", out)
    assert code == 0
    assert "backprop" in shown
    code, shown, _ = metarule("bank", "test", "--bank", out, "--share", 0.5, "--json")
    assert code == 0
    assert json.loads(shown)["same"] is True
    code, shown, _ = metarule("bank", "test", "--bank", out, "--share", 0.2)
    assert code == 0
    assert "same" in shown


@pytest.mark.usefixtures("small_recipe")
def test_a_bank_that_differs_from_its_recipe_ends_with_1(metarule, tmp_path):
    other = made(rows_of(replace(TINY, seed=6).jobs()), {}).save(tmp_path / "other.npz")
    code, shown, _ = metarule("bank", "test", "--bank", other, "--share", 0.2, "--json")
    assert code == 1
    assert json.loads(shown)["same"] is False


@pytest.mark.usefixtures("small_recipe")
def test_part_of_a_bank_is_built_on_demand(metarule, tmp_path):
    out = tmp_path / "mine.npz"
    assert metarule("bank", "build", "--out", out, "--sample", 0.5)[0] == 0
    assert recipe.card(out)["rows"] == {"weights": 12, "activity": 12}
    assert metarule("bank", "build", "--out", out, "--sample", 0)[0] == 2


@pytest.mark.usefixtures("small_recipe")
def test_a_discovered_rule_joins_the_bank_under_the_name_of_its_run(metarule, file, run, tmp_path):
    out = tmp_path / "grown.npz"
    code, shown, said = metarule("bank", "add", run, "--bank", file, "--out", out)
    assert (code, shown) == (0, ""), said
    assert f"4 classes; classify with --bank {out}" in said
    grown = load(out)
    assert grown.classes == ("backprop", "drift", "my_rule", "oja")
    assert grown.card["name"] == "tiny + my_rule"
    before = tiny().views["weights"]
    after = grown.views["weights"]
    old = after.labels != "my_rule"
    assert old.sum() == len(before.labels)
    assert np.array_equal(after.networks[old], before.networks)
    columns = [grown.names.index(name) for name in tiny().names]
    assert np.array_equal(after.table[old][:, columns], before.table, equal_nan=True)
    # every task x architecture x block of the recipe once, none of its networks another rule's
    own = after.networks[~old]
    assert len({*own.tolist()}) == 4
    assert not {*own.tolist()} & {*before.networks.tolist()}
    assert "my_rule" in grown.classifier("weights").classes
    # a name that is taken is refused
    code, _, said = metarule("bank", "add", run, "--bank", out, "--out", tmp_path / "again.npz")
    assert code == 2
    assert "the bank already has a class 'my_rule'; rename the run's folder" in said
    assert not (tmp_path / "again.npz").exists()


@pytest.mark.usefixtures("small_recipe")
def test_a_run_named_as_what_is_said_of_no_rule_is_refused(file, run):
    called = run.rename(run.with_name("unknown"))
    try:
        with pytest.raises(RecordingError, match="'unknown' is what rows of no class are called; rename the run's"):
            recipe.extended(file, called)
    finally:
        called.rename(run)


def test_a_discovered_rule_keeps_the_proportions_of_its_coefficients(run):
    row = recipe.discovered(run)
    theta = {name: float(value) for name, value in RunFolder(run).log()[-1]["theta"].items()}
    assert row.values == theta
    assert row.free == tuple(name for name in theta if name.startswith("rule."))
    assert len(row.free) == 3


def test_a_discovered_rule_that_changes_nothing_is_refused(run, monkeypatch):
    log = RunFolder(run).log()
    still = [{**log[-1], "theta": dict.fromkeys(log[-1]["theta"], 0.0)}]
    monkeypatch.setattr(RunFolder, "log", lambda folder: still)
    with pytest.raises(RecordingError, match=r"my_rule found coefficients of 0 alone: a rule that changes nothing"):
        recipe.discovered(run)


@pytest.mark.usefixtures("small_recipe")
def test_a_folder_that_is_no_finished_run_is_refused(metarule, file, run, tmp_path):
    with pytest.raises(RunError):
        recipe.extended(file, tmp_path / "nowhere")
    assert metarule("bank", "add", tmp_path / "nowhere", "--bank", file)[0] == 2
    _, text = read(find("first_rule"), ("network.hidden=[6]",))
    begun = RunFolder(tmp_path / "begun")
    begun.create(text, json.loads((run / "spec.json").read_text()))
    (begun.path / "search.toml").write_text((run / "search.toml").read_text())
    with pytest.raises(RecordingError, match="has found nothing yet; let the search finish"):
        recipe.extended(file, begun.path)


@pytest.mark.usefixtures("small_recipe")
def test_a_rule_by_which_every_network_diverges_adds_nothing(file, run, monkeypatch):
    monkeypatch.setattr(banks, "simulated", lambda job, row: [])
    with pytest.raises(RecordingError, match="every network that learned by its rule diverged; nothing was added"):
        recipe.extended(file, run)


@pytest.mark.skipif(not banks.DEFAULT.exists(), reason="the reference bank is not part of this checkout")
@pytest.mark.parametrize(("part", "share"), [("bank", 0.05), ("wide", 0.05)])
def test_slow_a_twentieth_of_the_reference_bank_rebuilt_by_its_recipe_is_the_same(monkeypatch, part, share):
    """A minute: the one test that simulates the reference bank's own networks."""
    monkeypatch.setattr(recipe, "RECIPE", (part,))
    found = recipe.rebuilt(share=share, workers=1)
    assert found["rows"] > (400 if part == "bank" else 10)
    assert found["same"], found


@pytest.mark.skipif(not banks.DEFAULT.exists(), reason="the reference bank is not part of this checkout")
def test_the_reference_bank_has_every_class_and_says_what_it_was_made_of():
    card = recipe.card()
    assert {*card["classes"]} == {*REFERENCE}
    assert card["recipe"] == {name: recipe.simulations()[name].read_text() for name in recipe.RECIPE}
    assert card["share"] == 1.0
    assert banks.DEFAULT.stat().st_size < 15 * 2**20


@pytest.mark.skipif(not banks.DEFAULT.exists(), reason="the reference bank is not part of this checkout")
@pytest.mark.parametrize("view", VIEWS)
def test_the_trees_of_the_reference_bank_come_with_it_and_know_each_of_its_rows(view):
    with np.load(banks.DEFAULT) as arrays:
        assert f"{view}/trees/leaf" in arrays.files
    bank = banks.opened()
    rows, codes = bank.views[view], np.unique(bank.views[view].labels, return_inverse=True)[1]
    # fully grown, every tree has a leaf for every row
    votes = bank.forest(view).predict_proba(rows.table[::20].astype(np.float32))
    assert np.array_equal(votes, np.eye(len(bank.classes))[codes[::20]])
