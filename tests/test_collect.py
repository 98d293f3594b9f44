"""Plug-in files: loaded once, and refused with the line of the user's own file that is wrong."""

from __future__ import annotations

import sys

import pytest

from metarule.catalog import ROOMS, catalog
from metarule.collect import collect, join, load_file, unknown
from metarule.doctor import examined
from metarule.plugins import settings
from metarule.rules import RULES, Rule
from metarule.rules.terms import Terms


def written(folder, text):
    file = folder / "my_rule.py"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_a_folder_is_a_dict_by_kind_and_a_kind_is_taken_once():
    # other tests may have let plug-ins of their own join the registry
    assert collect("metarule.rules", Rule).items() <= RULES.items()
    with pytest.raises(ValueError, match=r"kind = 'terms' of elsewhere is already taken by metarule.rules.terms"):
        join(dict(RULES), [type("Other", (Terms,), {"__module__": "elsewhere"})])


def test_the_same_file_is_the_same_module(tmp_path):
    file = written(tmp_path, "ONE = object()\n")
    assert load_file(file) is load_file(str(file))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ndef f(:\n    pass\n", "SyntaxError at line 2: "),
        ("x = 1\n\n\ny = undefined\n", "NameError at line 4: "),
        ("import json\n\njson.loads('no')\n", "JSONDecodeError at line 3: "),
        ("def f():\n    return 1 / 0\n\n\nf()\n", "ZeroDivisionError at line 2: "),
        ("import sys\nsys.exit(3)\n", "SystemExit at line 2: 3"),
        ("raise SystemExit\n", "SystemExit at line 1: "),
        ("\nimport no_such_package\n", "ModuleNotFoundError at line 2: "),
        (b"x = 1\n\xff\xfe = 2\n", "SyntaxError"),
        (b"x = 1\x00\n", "SyntaxError"),
    ],
)
def test_a_broken_plug_in_names_the_line_of_its_own_file(tmp_path, text, message):
    file = written(tmp_path, text)
    before = set(sys.modules)
    with pytest.raises(ValueError, match=f"my_rule.py cannot be imported: {message}") as caught:
        load_file(file)
    assert str(file) in str(caught.value)
    assert not {name for name in set(sys.modules) - before if "my_rule" in name}


def test_a_syntax_error_in_a_file_that_the_plug_in_imports_names_the_importing_line(tmp_path, monkeypatch):
    (tmp_path / "broken_neighbour.py").write_text("\n\n\n\n\ndef f(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="SyntaxError at line 2: "):
        load_file(written(tmp_path, "x = 1\nimport broken_neighbour\n"))


def test_a_missing_plug_in_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nothing.py does not exist"):
        load_file(tmp_path / "nothing.py")


def test_a_wrong_name_lists_the_allowed_ones_and_the_nearest():
    assert (
        unknown("list", "rule", ("rules", "runs")) == "list = 'rule' is not one of rules, runs; did you mean 'rules'?"
    )
    assert unknown("list", "zzz", ("rules",)) == "list = 'zzz' is not one of rules"


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_every_room_of_the_catalog_lists_members_with_a_summary(room, tmp_path):
    (found,) = catalog(room, tmp_path)
    assert found["kind"] == room
    assert bool(found["members"]) is (room != "runs")
    for member in found["members"]:
        assert {"name", "source", "summary"} <= member.keys()
        assert member["summary"]


def test_the_catalog_lists_every_room_and_its_settings_are_those_of_the_plug_ins(tmp_path):
    assert [room["kind"] for room in catalog(runs_dir=tmp_path)] == list(ROOMS)
    listed = {member["name"]: member["settings"] for member in catalog("rules")[0]["members"]}
    assert listed == {name: [field.name for field in settings(rule)] for name, rule in RULES.items()}
    with pytest.raises(ValueError, match=r"list = 'rule' is not one of .* did you mean 'rules'"):
        catalog("rule")


GOOD = (
    '{"schema": "metarule/1", "search": {"outer": {"generations": 5, "kind": "cma_es"}, "task": {"kind": "few_shot"}, '
    '"credit": {"kind": "none"}}, "objectives": ["held_out_loss"], "parameters": []}'
)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"spec.json": "{"}, "spec.json is damaged"),
        ({"spec.json": "[]"}, "damaged"),
        ({"spec.json": '{"search": 5}'}, "damaged"),
        ({"spec.json": "{}"}, "its files lack 'search'"),
        ({"spec.json": GOOD, "log.jsonl": "nonsense\n"}, "log.jsonl is damaged"),
        ({"spec.json": GOOD, "log.jsonl": "3\n"}, "damaged"),
        ({"spec.json": GOOD, "log.jsonl": "{}\n"}, "damaged"),
        ({"spec.json": GOOD.replace("5", "0"), "result.json": '{"generations": 0}'}, "damaged"),
        ({"spec.json": GOOD, "result.json": "[]"}, "damaged"),
    ],
)
def test_a_damaged_run_is_listed_as_damaged_and_hides_no_other(tmp_path, files, said):
    for name, contents in (("a_good", {"spec.json": GOOD}), ("b_bad", files), ("c_good", {"spec.json": GOOD})):
        (tmp_path / name).mkdir()
        for file, text in ({"log.jsonl": ""} | contents).items():
            (tmp_path / name / file).write_text(text)
    summaries = {run["name"]: run["summary"] for run in catalog("runs", tmp_path)[0]["members"]}
    assert summaries.pop("b_bad").startswith("damaged: ")
    assert said in catalog("runs", tmp_path)[0]["members"][1]["summary"]
    assert summaries == dict.fromkeys(("a_good", "c_good"), "not finished: 0 of 5 generations")


def test_the_doctor_says_what_there_is_and_that_higher_agrees():
    found = examined()
    assert found["higher"]["agrees"]
    assert found["versions"]["torch"]
    assert found["machine"]["cores_usable"] >= 1
    assert found["data"]["digits"]
    assert found["data"]["looked_in"]
