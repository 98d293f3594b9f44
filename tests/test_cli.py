"""The command line: exit codes, one JSON document on stdout, sentences on stderr, a stranger's rule end to end."""

from __future__ import annotations

import csv
import gc
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metarule.cli.starting import importing

TINY = (
    *("outer.generations=2", "outer.candidates=4", "inner.episodes=1", "inner.steps=20", "battery.episodes=4"),
    "network.hidden=[12,8]",
)
DOCS = Path(__file__).parent.parent / "docs"
ROW = {"learner", "task", "metric", "mean", "low", "high", "episodes", "seeds"}


def process(*arguments: object, **settings) -> subprocess.CompletedProcess[str]:
    """Run it in a process of its own."""
    command = [sys.executable, "-m", "metarule", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **settings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A tiny finished search's folder; tests that change it take a copy."""
    runs = tmp_path_factory.mktemp("runs")
    done = process("search", "first_rule", *TINY, "--runs-dir", runs, "--workers", 1)
    assert done.returncode == 0, done.stderr
    return runs / "first_rule"


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_help_shows_four_verbs_and_the_rest_as_advanced(metarule):
    code, out, _ = metarule("--help")
    assert code == 0
    shown, advanced = out.split("Advanced")
    assert all(f" {verb} " in shown for verb in ("search", "inspect", "classify", "list"))
    assert all(f" {verb} " in advanced for verb in ("evaluate", "bench", "doctor", "check"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("search", "frist_rule"), "did you mean 'first_rule'"),
        (("search", "first_rule", "outer.generation=3"), "did you mean 'generations'"),
        (("search", "first_rule", "outr.generations=3"), "did you mean 'outer'"),
        (("search", "first_rule", "credit.kind=feedbak_alignment"), "did you mean 'feedback_alignment'"),
        (("search", "first_rule", "outer.generations=many"), "outer.generations = 'many' does not fit int"),
        (("search", "first_rule", "outer.generations"), "must read key=value"),
        (("search", "first_rule", "--baselines", "al"), "did you mean 'all'"),
        (("search",), "Usage"),
        (("search", "--resume", "nowhere"), "is nowhere a run folder?"),
        (("search", "--resume", "nowhere", "--dry-run"), "--resume goes with"),
        (("search", "first_rule", "--seeds", 2, "search.seed=3"), "leave search.seed out"),
        (("search", "first_rule", "--workers", 0), "--workers"),
        (("search", "first_rule", "--copy", "mine.toml", "outer.generations=3"), "as it is"),
        (("search", "oja", "credit.kind=backprop"), "needs targets"),
        (("search", "oja", "network.hidden=[8]", "--seeds", 2), "leave out network.hidden"),
        (("search", "first_rule", "inner.episodes=1000000000", "--dry-run"), "GiB of memory"),
        (("search", "first_rule", "rules=5"), "rules = 5 must be a table"),
        (("inspect", "nowhere"), "give the path of a run folder"),
        (("inspect", "oja", "--html", "no/page.html"), "there is no folder no"),
        (("inspect", "hebb", "--distil", "--takes", "rewards=-1,1"), "did you mean 'reward'"),
        (("inspect", "hebb", "--distil", "--takes", "reward=nan"), "finite numbers"),
        (("list", "rule"), "did you mean 'rules'"),
        (("evaluate", "bakprop"), "did you mean 'backprop'"),
        (("evaluate", "hebb", "--task", "first_rule"), "hears of no targets"),
        (("evaluate", "backprop", "--task", "few_shott"), "did you mean 'few_shot'"),
        (("evaluate",), "or --all"),
        (("check", "nowhere.py"), "does not exist"),
    ],
)
def test_a_mistake_exits_2_with_a_sentence_and_leaves_stdout_alone(
    metarule, tmp_path, monkeypatch, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    code, out, err = metarule(*arguments)
    assert (code, "Traceback" in err) == (2, False)
    assert sentence in out + err
    assert out == "" or arguments == ("search",)
    assert list(tmp_path.iterdir()) == []


def test_dry_run_says_the_plan_and_creates_nothing(metarule, tmp_path):
    long = (*TINY, "outer.generations=1000")
    code, out, _ = metarule("search", "first_rule", *long, "--dry-run", "--json", "--runs-dir", tmp_path / "runs")
    plan = json.loads(out)
    assert code == 0
    assert plan["inner_steps"] == 1000 * 4 * 20
    assert plan["seconds"] > 0
    assert list(tmp_path.iterdir()) == []
    assert "memory_mib" in metarule("search", "first_rule", *TINY, "--dry-run")[1]


def test_copy_writes_the_search_file_and_never_over_another(metarule, tmp_path):
    target = tmp_path / "mine.toml"
    assert metarule("search", "first_rule", "--copy", target)[0] == 0
    assert "[rule]" in target.read_text()
    code, _, err = metarule("search", "first_rule", "--copy", target)
    assert (code, "already there" in err) == (2, True)


def test_search_with_json_prints_the_result_and_nothing_else(metarule, tmp_path):
    code, out, err = metarule("search", "first_rule", *TINY, "--runs-dir", tmp_path, "--workers", 1, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["equation"].startswith("dW = ")
    assert "generation 2/2" in err
    assert "run-steps/s" in err


def test_a_taken_name_is_numbered_when_it_is_the_default_and_refused_when_it_is_given(metarule, copied):
    runs = copied.parent
    copied.rename(runs / "first_rule")
    tiny = (*TINY, "battery.episodes=0", "outer.generations=1", "--runs-dir", runs, "--workers", 1)
    code, _, err = metarule("search", "first_rule", *tiny, "--name", "first_rule")
    assert (code, "already holds a run" in err) == (2, True)
    assert metarule("search", "first_rule", *tiny)[0] == 0
    assert (runs / "first_rule-2" / "result.json").exists()


def test_a_folder_that_cannot_be_written_is_named(metarule, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    code, _, err = metarule("search", "first_rule", *TINY, "--runs-dir", tmp_path / "file")
    assert (code, "cannot write the run folder" in err) == (2, True)


def test_inspect_json_keeps_its_contract(metarule, finished):
    code, out, err = metarule("inspect", finished, "--json")
    found = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert (code, err) == (0, "")
    assert found["finished"]
    term = {"name", "raw", "normalised", "low", "high", "known_as", "source", "local", "seeds"}
    assert [set(each) for each in found["terms"]] == [term] * 3
    assert found.keys() >= {"equation", "terms", "battery", "identifiability", "nearest", "locality", "provenance"}
    assert all(found[key] for key in ("identifiability", "nearest", "locality", "provenance"))
    assert {row["learner"] for row in found["battery"]} == {"discovered", "backprop", "feedback_alignment"}
    assert all(set(row) == ROW for row in found["battery"])
    assert [line["generation"] for line in found["learning_curve"]] == [0, 1]


def test_inspect_takes_less_than_two_seconds_and_no_torch(finished):
    began = time.perf_counter()
    done = process("inspect", finished)
    assert time.perf_counter() - began < 2
    assert done.returncode == 0
    assert "dW = " in done.stdout
    for figure in ("learning_curve.png", "coefficients.png", "battery.png"):
        assert f"figures/{figure}" in done.stdout
    heavy = "{'torch', 'sympy', 'scipy', 'sklearn', 'optuna'}"
    script = (
        f"import sys; sys.argv = ['metarule', 'inspect', {str(finished)!r}, '--json']\nfrom metarule.cli import main\n"
    )
    script += f"try: main()\nexcept SystemExit: pass\nassert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    seen = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert seen.returncode == 0, seen.stderr


def test_nothing_is_collected_while_a_verb_imports_and_all_is_as_it_was_after():
    for before in (True, False):
        (gc.enable if before else gc.disable)()
        try:
            with importing():
                assert not gc.isenabled()
            assert gc.isenabled() is before
        finally:
            gc.enable()


def test_inspect_distils_the_equation_of_every_rule(metarule, finished):
    code, out, _ = metarule("inspect", finished, "--distil", "--json")
    (row,) = json.loads(out)["distilled"]
    assert (code, row["rule"], row["by"], row["r2_held_out"]) == (0, "forward", "itself", 1.0)
    assert row["equation"].startswith("dW = ")
    assert row["equation"] in metarule("inspect", finished, "--distil")[1]
    code, _, err = metarule("inspect", finished, "--distil", "--takes", "reward:1")
    assert (code, "as in reward=-1,1" in err) == (2, True)


def test_inspect_changes_nothing_and_exports_episodes(metarule, copied, tmp_path):
    before = {path.name: path.read_bytes() for path in copied.iterdir() if path.is_file()}
    table = tmp_path / "episodes.csv"
    assert metarule("inspect", copied, "--csv", table)[0] == 0
    assert {path.name: path.read_bytes() for path in copied.iterdir() if path.is_file()} == before
    with table.open() as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 3 * 2 * 4
    assert list(rows[0]) == ["learner", "metric", "episode", "value"]


def test_resume_extends_a_finished_run_and_nothing_else_may_change(metarule, copied):
    code, out, _ = metarule("search", "--resume", copied, "outer.generations=3", "--workers", 1, "--json")
    assert (code, json.loads(out)["generations"]) == (0, 3)
    code, _, err = metarule("search", "--resume", copied, "outer.generations=2")
    assert (code, "may only grow" in err) == (2, True)
    code, _, err = metarule("search", "--resume", copied, "task.ways=3")
    assert (code, "task.ways cannot change" in err) == (2, True)


def test_another_kind_of_outer_loop_drops_the_old_ones_keys_with_a_message(metarule, tmp_path):
    tiny = (*TINY, "outer.generations=1", "outer.candidates=1", "battery.episodes=0", "--workers", 1)
    given = ("outer.kind=optuna", "--runs-dir", tmp_path)
    code, _, err = metarule("search", "first_rule", *tiny, *given)
    assert code == 0
    assert "outer.sigma = 0.3 is left out: outer.kind = 'optuna' has no such key" in err


def test_a_folder_without_its_log_is_damaged(metarule, copied):
    (copied / "log.jsonl").unlink()
    for verb in (("inspect", copied), ("search", "--resume", copied)):
        code, _, err = metarule(*verb)
        assert (code, "error: " in err) == (2, True)


def test_settings_of_a_task_are_never_passed_over(metarule, copied):
    code, _, err = metarule("inspect", copied, "task.ways=3")
    assert (code, "name it with --task" in err) == (2, True)


def test_a_run_looked_at_elsewhere_says_so_and_keeps_nothing_of_its_own_task(metarule, copied):
    assert metarule("inspect", copied, "--surfaces", "--workers", 1)[0] == 0
    before = json.loads(metarule("inspect", copied, "--json")[1])
    small = ("inner.steps=4", "inner.batch=2", "network.hidden=[6]")
    code, out, err = metarule("inspect", copied, "--task", "digits", *small, "--workers", 1, "--json")
    assert code == 0, err
    there = json.loads(out)
    assert "digits inner.steps=4" in there["elsewhere"]
    assert before["surfaces"] is not None
    assert "surfaces" not in there  # they are of its own task
    assert there["identifiability"]["spectrum"] != before["identifiability"]["spectrum"]
    assert there["battery"] == before["battery"]
    assert json.loads(metarule("inspect", copied, "--json")[1]) == before


def test_a_run_that_is_called_as_a_row_of_the_zoo_is_inspected_itself(metarule, copied, monkeypatch):
    copied.rename(copied.parent / "hebb")
    monkeypatch.chdir(copied.parent)
    code, out, err = metarule("inspect", "hebb", "--distil", "--json", "--workers", 1)
    assert code == 0, err
    assert "error" in json.loads(out)["distilled"][0]["equation"]


def test_a_run_without_a_rule_has_a_page_all_the_same(metarule, copied, tmp_path):
    for name in ("result.json", "checkpoint", "inspection"):
        path = copied / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    (copied / "log.jsonl").write_text("")
    assert metarule("inspect", copied, "--html", tmp_path / "page.html")[0] == 0
    assert "Not finished: 0 of 2 generations." in (tmp_path / "page.html").read_text()


def test_inspecting_alone_writes_nothing(metarule, copied):
    def content():
        return {file: file.stat().st_mtime_ns for file in copied.rglob("*")}

    before = content()
    for words in ((), ("--json",)):
        assert metarule("inspect", copied, *words)[0] == 0
    assert content() == before


def test_figures_that_cannot_be_written_do_not_spoil_a_report(metarule, copied):
    shutil.rmtree(copied / "figures")
    (copied / "figures").write_text("a file")
    code, out, err = metarule("search", "--resume", copied, "--workers", 1)
    assert (code, "dW = " in out) == (0, True)
    assert "no figures" in err


def test_a_full_disk_stops_a_search_with_a_sentence(metarule, monkeypatch, tmp_path):
    from metarule.runs import RunFolder

    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunFolder, "save", full)
    code, _, err = metarule("search", "first_rule", *TINY, "--runs-dir", tmp_path, "--workers", 1)
    assert code == 2
    assert "No space left on device" in err
    assert f"metarule search --resume {tmp_path / 'first_rule'}" in err


def test_resume_refuses_a_changed_search_file(metarule, copied):
    (copied / "search.toml").write_text("# changed\n")
    code, _, err = metarule("search", "--resume", copied)
    assert (code, "is not the file this run was started with" in err) == (2, True)


def test_a_signal_saves_says_how_to_go_on_and_exits_75(metarule, tmp_path):
    arguments = [
        "search",
        "first_rule",
        *TINY[1:],
        "outer.generations=400",
        "--runs-dir",
        str(tmp_path),
        "--workers",
        "1",
    ]
    child = subprocess.Popen([sys.executable, "-m", "metarule", *arguments], stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    for line in child.stderr:
        if line.startswith("generation 3/"):
            child.send_signal(signal.SIGTERM)
            break
    rest = child.stderr.read()
    assert child.wait() == 75
    assert f"metarule search --resume {tmp_path / 'first_rule'}" in rest
    code, out, _ = metarule("inspect", tmp_path / "first_rule", "--json")
    found = json.loads(out)
    assert code == 0
    assert not found["finished"]
    assert found["equation"] is None
    assert found["generations"] >= 3
    assert len(found["terms"]) == 3
    code, out, _ = metarule("inspect", tmp_path / "first_rule")
    assert (code, "NOT FINISHED" in out) == (0, True)


def test_seeds_run_side_by_side_and_are_compared(metarule, tmp_path):
    tiny = (*TINY, "battery.episodes=2", "inner.steps=5")
    code, out, err = metarule("search", "first_rule", *tiny, "--seeds", 2, "--workers", 2, "--runs-dir", tmp_path)
    assert code == 0
    assert "first_rule-seed1" in out
    assert "agree" in out or "DIFFER" in out
    assert "seed 1: generation 1/2" in err
    values = [json.loads((tmp_path / f"first_rule-seed{seed}" / "result.json").read_text()) for seed in (0, 1)]
    assert values[0]["theta"] != values[1]["theta"]


def test_evaluate_tunes_compares_and_keeps_its_contract(metarule, finished, tmp_path):
    settings = ("network.hidden=[8]", "task.shots=4", "inner.steps=10", "--episodes", 2, "--workers", 1)
    code, out, _ = metarule(
        *(
            "evaluate",
            "backprop",
            finished,
            "three_term",
            "--seeds",
            2,
            "--json",
            "--csv",
            tmp_path / "e.csv",
            *settings,
        )
    )
    rows = json.loads(out)
    assert code == 0
    assert all(set(row) >= ROW for row in rows)
    assert {row["learner"] for row in rows} == {"backprop", str(finished), "three_term"}
    assert {(row["episodes"], row["seeds"]) for row in rows} == {(4, 2)}
    assert [row["learner"] for row in rows if "rate" in row] == ["backprop"] * 2
    assert len((tmp_path / "e.csv").read_text().splitlines()) == 1 + 3 * 2 * 4


def test_evaluate_all_leaves_out_what_does_not_fit_the_task(metarule):
    code, out, err = metarule(
        "evaluate", "--all", "--task", "gaussian", "inner.steps=5", "--episodes", 2, "--workers", 1
    )
    assert code == 0
    assert "subspace_oja" in out
    assert "backprop is left out: " in err


@pytest.mark.parametrize("kind", [None, "zoo", "runs", "searches"])
def test_list_gives_one_object_per_kind(metarule, finished, kind):
    code, out, _ = metarule(*("list", *([kind] if kind else []), "--json", "--runs-dir", finished.parent))
    rooms = {room["kind"]: [member["name"] for member in room["members"]] for room in json.loads(out)}
    assert code == 0
    assert set(rooms) == {kind} or kind is None
    expected = {"zoo": "three_term", "runs": "first_rule", "searches": "first_rule", "rules": "polynomial"}
    assert all(expected[name] in rooms[name] for name in rooms if name in expected)
    assert metarule("list", *([kind] if kind else []), "--runs-dir", finished.parent)[0] == 0


def test_doctor_agrees_with_higher(metarule):
    code, out, _ = metarule("doctor", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["higher"]["agrees"]
    assert found["versions"]["torch"]


def test_a_strangers_rule_is_checked_searched_and_inspected(metarule, tmp_path):
    assert len((DOCS / "my_rule.py").read_text().splitlines()) < 40
    code, out, _ = metarule("check", DOCS / "my_rule.py", "--json")
    assert code == 0
    assert all(check["ok"] for check in json.loads(out))
    tiny = ("outer.generations=2", "inner.steps=20", "battery.episodes=2")
    file = DOCS / "my_rule.toml"
    assert metarule("search", file, *tiny, "--runs-dir", tmp_path, "--workers", 1)[0] == 0
    code, out, _ = metarule("inspect", tmp_path / "my_rule", "--json")
    found = json.loads(out)
    assert code == 0
    assert [term["name"] for term in found["terms"]] == ["rate", "gate", "forget"]
    assert "post²" in found["equation"]


BROKEN = """
from dataclasses import dataclass
from metarule import Param, Rule
from metarule.signals import outer

@dataclass(frozen=True)
class Mixed(Rule):
    "A rule that mixes runs and says it is local."
    kind = "mixed"
    source = "a test"
    params = (Param("rate"),)
    reads = frozenset({"error", "pre"})

    def delta(self, theta, signals, state, noise):
        error = signals.read("error")
        return outer(error.sum(-1, keepdim=True).expand_as(error) * theta.mean(), signals.read("pre")), state
"""


def test_check_exits_1_and_says_which_property_is_broken(metarule, tmp_path):
    (tmp_path / "mixed.py").write_text(BROKEN)
    code, out, _ = metarule("check", tmp_path / "mixed.py", "--json")
    broken = " ".join(check["name"] for check in json.loads(out) if not check["ok"])
    assert code == 1
    assert "row r of theta moves run r only" in broken
    assert "is local where it says so" in broken


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("x = 1\n", "defines no concrete"), ("x = y\n", "NameError at line 1"), ("x = (\n", "SyntaxError")],
)
def test_check_exits_2_for_a_file_that_is_none(metarule, tmp_path, text, sentence):
    (tmp_path / "bad.py").write_text(text)
    code, out, err = metarule("check", tmp_path / "bad.py")
    assert (code, out) == (2, "")
    assert sentence in err


def test_bench_prints_what_it_is_given(metarule, monkeypatch):
    found = [
        {"cell": "digits R64 B1 T50", "ran": "fused", "cores": 1, "run_steps_per_second": 9.6, "ratio_to_naive": 15.5}
    ]
    monkeypatch.setattr("metarule.bench.compared", lambda *asked: found)
    code, out, _ = metarule("bench", "--json")
    assert (code, json.loads(out)) == (0, found)
    code, out, _ = metarule("bench")
    assert code == 0
    assert "15.5" in out
    code, _, err = metarule("bench", "--meta-step", "--memory")
    assert code == 2
    assert "give one of them" in err
