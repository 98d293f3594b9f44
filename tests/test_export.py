"""What is exported is the same rule: a torch file does what the engine does, JSON is read back, equations agree."""

from __future__ import annotations

import ast
import copy
import dataclasses
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sympy
import torch
from torch import Tensor, nn

import metarule as mr
from metarule.collect import load_file
from metarule.credit import CREDIT
from metarule.credit.backprop import Backprop
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.credit.none import Nobody
from metarule.exporting import EXPORTS
from metarule.exporting.equations import changes
from metarule.exporting.export import export
from metarule.exporting.torch_credit import PATHS
from metarule.exporting.torch_synapse import STEPS
from metarule.local_optimizer import LocalOptimizer
from metarule.network import Network
from metarule.portable import Portable, portable
from metarule.rng import noise_for
from metarule.rules import Rule
from metarule.rules.lstm import Lstm
from metarule.rules.mlp import Mlp
from metarule.rules.polynomial import Polynomial
from metarule.rules.terms import Terms
from metarule.rules.textbook import Delta
from metarule.synapses import SYNAPSES
from metarule.synapses.adam import Adam
from metarule.synapses.momentum import Momentum
from metarule.synapses.sgd import Sgd
from metarule.terms import POOL, TERMS
from metarule.zoo import ZOO

NETWORK = Network.chain((64, 9, 8, 10), bias=True)
EXPLICIT = frozenset({"pre", "post", "error", "pre_error", "feedback", "gain"})


@pytest.fixture(autouse=True)
def first_weights():
    """Layers start as torch draws them, the same at every run."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def planted(rule: Rule, credit: Any = None, synapse: Any = None, output: str = "softmax") -> Portable:
    """A rule with numbers that are all different, as a search might find it."""
    numbers = {f"rule.forward.{param.name}": 0.002 * (place + 1) for place, param in enumerate(rule.params)}
    synapse = synapse or Sgd()
    if not rule.params or synapse.owns_scale:
        numbers["synapse.rate"] = 0.02
    network = Network.chain((64, 9, 8, 10), output=output, bias=True)
    return Portable("planted", credit or FeedbackAlignment(), {"forward": rule}, {"any": synapse}, numbers, network)


READ = tuple(name for name, term in TERMS.items() if term.reads <= EXPLICIT)
MADE: dict[str, Portable] = {
    "every term that an error can drive": planted(Terms(READ)),
    "every term, raw": planted(Terms(READ, normalise=False)),
    "the ten published terms": planted(Terms(POOL)),
    "a polynomial": planted(Polynomial({"pre": 1, "post": 2, "error": 1, "weight": 2}, total=3, constant=True)),
    "Oja's polynomial, untaught": planted(Polynomial(), Nobody()),
    "terms with Adam": planted(Terms(("error_pre", "oja")), synapse=Adam(weight_decay=0.1)),
    "nesterov": planted(Delta(), synapse=Momentum(nesterov=True, weight_decay=0.01)),
    "squared error": planted(Delta(), Backprop(), output="linear"),
    "binary cross-entropy": planted(Delta(), Backprop(), output="sigmoid"),
    "a network": planted(Mlp(("pre", "post", "error", "weight"), (3, 7)), Backprop()),
    "a raw network of one side": planted(Mlp(("post",), (2,), activation="relu", normalise=False), Nobody()),
    "nothing of the pre side": planted(Terms(("error", "post"))),
    "nothing of the post side": planted(Terms(("pre", "pre_error"))),
    "a constant": planted(Terms(("constant", "weight_decay"))),
    "a linear function": planted(Mlp(hidden=(), normalise=False)),
} | {
    name: portable(name)
    for name in (
        *("backprop", "momentum", "adam", "readout_only", "feedback_alignment", "direct_feedback_alignment"),
        *("direct_random_target_projection", "sign_symmetry", "sign_symmetry_fixed", "kolen_pollack"),
        *("ehebb", "three_term", "fa_oja"),
    )
}


def batches(count: int, classes: bool) -> list[tuple[Tensor, Tensor]]:
    noise = noise_for([("export",)], torch.float32)
    made = []
    for step in range(count):
        y = noise.at("y", step).integers(10, 5)[0]
        y = y if classes else nn.functional.one_hot(y, 10).float() * 0.8 + 0.1
        made.append((noise.at("x", step).uniform(5, 64)[0], y))
    return made


def models(bends: tuple[nn.Module, nn.Module]) -> tuple[nn.Sequential, nn.Sequential]:
    layers = nn.Linear(64, 9), bends[0], nn.Linear(9, 8, bias=False), bends[1], nn.Linear(8, 10)
    model = nn.Sequential(*layers)
    return model, copy.deepcopy(model)


def written(folder: Path, known: Portable) -> Any:
    file = folder / "exported.py"
    file.write_text(EXPORTS["torch"](known))
    return load_file(file)


def difference(model: nn.Module, other: nn.Module) -> float:
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return max(float((p - q).detach().abs().max()) for p, q in pairs)


def give_feedback(learner: Any, still: LocalOptimizer, x: Tensor, y: Tensor | None) -> None:
    """The random feedback that an optimizer draws at its first step, one that moves nothing, to an exported learner."""
    still.step(x, y)
    drawn = still.state_dict()["state"]["weights"]
    for place, (below, above) in enumerate((("input", "hidden1"), ("hidden1", "hidden2"), ("hidden2", "output"))):
        for name in {f"{above}=>{below}", f"output=>{below}"} & drawn.keys():
            learner.feedback[place] = drawn[name][0].clone()


@pytest.mark.parametrize("name", MADE)
def test_the_exported_file_trains_a_model_step_by_step_as_the_engine_does(name, tmp_path):
    known = MADE[name]
    output = known.network.output
    mine, theirs = models((nn.Softplus(3.0), nn.Softplus(3.0)) if "every" in name else (nn.Tanh(), nn.ReLU()))
    start = copy.deepcopy(mine)
    optimizer = LocalOptimizer.of(mine, known, output=output, seed=4)
    learner = written(tmp_path, known).LocalLearner(theirs)
    for step, (x, y) in enumerate(batches(4, output == "softmax")):
        shown = None if known.credit.kind == "none" else y
        if step == 0 and hasattr(learner, "feedback"):
            still = LocalOptimizer.of(copy.deepcopy(start), known, lr=0.0, output=output, seed=4)
            give_feedback(learner, still, x, shown)
        optimizer.step(x, shown)
        learner.step(*(x, y)[: len(inspect.signature(learner.step).parameters)])
        largest = max(float(parameter.detach().abs().max()) for parameter in mine.parameters())
        assert difference(mine, theirs) < 1e-6 * max(1.0, largest)
    assert difference(mine, start) > 1e-5


@pytest.mark.parametrize("name", MADE)
def test_the_exported_file_reads_as_if_somebody_had_written_it(name, tmp_path):
    text = EXPORTS["torch"](MADE[name])
    imported = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert {str(module).partition(".")[0] for module in imported} <= {"__future__", "math", "torch"}
    assert max(map(len, text.splitlines())) <= 120
    file = tmp_path / "exported.py"
    file.write_text(text)
    settings = ["--config", str(Path(__file__).parent.parent / "pyproject.toml"), str(file)]
    for command in (["check"], ["format", "--diff"]):
        found = subprocess.run([sys.executable, "-m", "ruff", *command, *settings], capture_output=True, text=True)
        assert found.returncode == 0, found.stdout + found.stderr


def test_what_no_file_of_torch_can_say_is_refused_with_what_can():
    for name, sentence in (
        ("node_perturbation", r"credit\.kind = 'node_perturbation' is none of backprop"),
        ("sign_symmetry_batchwise", "draws new numbers"),
        ("weight_mirror", r"credit\.kind"),
    ):
        with pytest.raises(ValueError, match=rf"{name} cannot be exported to torch: .*{sentence}.*LocalOptimizer"):
            export(name)
    with pytest.raises(ValueError, match="has no equation"):
        EXPORTS["torch"](planted(Lstm()))
    with pytest.raises(ValueError, match="nonlinearity 'softplus'"):
        EXPORTS["torch"](planted(Mlp(activation="softplus")))
    with pytest.raises(ValueError, match="in bounds"):
        EXPORTS["torch"](planted(Delta(), synapse=Sgd(bound=1.0)))


def test_the_kinds_that_an_exported_file_knows_are_kinds():
    assert set(PATHS) <= set(CREDIT)
    assert set(STEPS) <= set(SYNAPSES)


@pytest.mark.parametrize("name", [*ZOO])
def test_json_of_every_row_is_read_back_as_the_same_learner(name, tmp_path):
    known = portable(name)
    file = tmp_path / "rule.json"
    text = export(name, "json", out=file)
    again = portable(str(file))
    assert file.read_text() == text
    assert (again.credit, again.rules, again.synapses, again.numbers) == (
        known.credit,
        dict(known.rules),
        dict(known.synapses),
        dict(known.numbers),
    )
    assert again.network == known.network
    assert again.learner.all_params == known.learner.all_params
    assert EXPORTS["json"](again) == text.replace(json.loads(text)["name"], name)


def test_a_model_trains_by_an_exported_json(tmp_path):
    export("three_term", "json", tmp_path / "rule.json")
    ((x, y),) = batches(1, classes=True)
    mine, theirs = models((nn.Softplus(), nn.Softplus()))
    LocalOptimizer.of(mine, "three_term").step(x, y)
    LocalOptimizer.of(theirs, str(tmp_path / "rule.json")).step(x, y)
    assert difference(mine, theirs) == 0


def test_a_file_that_is_no_exported_learner_is_refused(tmp_path):
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a learner"):
        portable(str(tmp_path / "other.json"))
    with pytest.raises(ValueError, match="could be read"):
        portable(str(tmp_path / "none.json"))


def test_a_file_that_lacks_something_is_refused_by_name_and_code_in_its_words_stays_words(tmp_path):
    whole = json.loads(export("feedback_alignment", "json"))
    file = tmp_path / "rule.json"
    for changed in ({"rules": []}, {"numbers": {"synapse.rate": None}}, {"network": {}}, {"plugins": 3}):
        file.write_text(json.dumps(whole | changed))
        with pytest.raises(ValueError, match="is damaged"):
            portable(str(file))
    words = 'x\\""" ; raise SystemExit ; """'
    file.write_text(json.dumps(whole | {"name": words, "summary": words, "from": [words]}))
    for to in ("torch", "sympy"):
        body = ast.parse(export(str(file), to)).body
        assert not any(isinstance(node, ast.Raise) for node in body)
        assert "raise SystemExit" in (ast.get_docstring(ast.Module(body, [])) or "")


def test_what_is_exported_again_from_json_says_where_it_was_found(tmp_path):
    known = dataclasses.replace(planted(Delta()), path=tmp_path / "run")
    file = tmp_path / "rule.json"
    file.write_text(EXPORTS["json"](known))
    again = portable(file)
    for to in EXPORTS:
        assert EXPORTS[to](again) == EXPORTS[to](dataclasses.replace(known, path=None, document=again.document))
        assert f"found by the search in {known.path}" in " ".join(EXPORTS[to](again).split())


def test_an_exported_file_refuses_a_model_that_it_would_train_wrongly(tmp_path):
    learner = written(tmp_path, MADE["feedback_alignment"]).LocalLearner
    learner(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Identity(), nn.Tanh(), nn.Linear(3, 2)))
    for parts, sentence in (
        ((nn.Linear(4, 3), nn.Tanh(), nn.Dropout(), nn.Linear(3, 2)), "Dropout.* is no Linear"),
        ((nn.Tanh(), nn.Linear(4, 2)), "Tanh.* is no Linear"),
        ((nn.Linear(4, 3), nn.Tanh(), nn.ReLU(), nn.Linear(3, 2)), "ReLU.* is no Linear"),
        ((nn.Sequential(nn.Linear(4, 3), nn.Tanh()), nn.Linear(3, 2)), "(?s)Sequential.* is no Linear"),
        ((nn.Linear(4, 2), nn.Sigmoid()), "must end in an nn.Linear; softmax is done here"),
        ((), "must end in"),
    ):
        with pytest.raises(ValueError, match=sentence):
            learner(nn.Sequential(*parts))


@pytest.mark.parametrize("name", ["oja", "three_term", "feedback_alignment", "node_perturbation"])
def test_the_snippet_of_sympy_runs_alone_and_is_the_equation(name, tmp_path):
    file = tmp_path / f"{name}_sympy.py"
    file.write_text(export(name, "sympy"))
    made = load_file(file)
    (expected,) = changes(portable(name)).values()
    assert sympy.simplify(made.dW - expected["dW"]) == 0
    assert "metarule" not in {
        node.module for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)
    }


def test_latex_has_a_display_per_equation_and_says_what_its_symbols_mean():
    text = export("three_term", "latex")
    assert text.count(r"\[") == text.count(r"\]") == 1
    assert r"\Delta W = 0.0122 \, \mathrm{error} \, \mathrm{pre} + " in text
    assert r"\item[$\mathrm{pre\_error}$] the direction in which the pre unit should move" in text
    assert text.count(r"\begin{itemize}") == text.count(r"\end{itemize}") == 1
    assert text.isascii()


def test_a_rule_without_an_equation_is_refused_where_one_is_wanted():
    for to in ("latex", "sympy"):
        with pytest.raises(ValueError, match="--distil"):
            EXPORTS[to](planted(Mlp()))


def test_the_command_line_writes_to_a_file_or_to_stdout_and_refuses_with_2(metarule, tmp_path):
    code, out, _ = metarule("export", "oja", "--to", "latex")
    assert (code, out) == (0, mr.export("oja", "latex"))
    code, out, err = metarule("export", "oja", "--to", "sympy", "--out", tmp_path / "oja.py")
    assert (code, out) == (0, "")
    assert "oja.py" in err
    assert (tmp_path / "oja.py").read_text() == mr.export("oja", "sympy")
    for arguments, sentence in (
        (("node_perturbation",), "LocalOptimizer"),
        (("oja", "--to", "matlab"), "to = 'matlab' is not one of json, latex, sympy, torch"),
        (("ojja",), "did you mean 'oja'"),
        (("oja", "--to", "json", "--out", tmp_path / "none" / "oja.json"), "cannot write"),
    ):
        code, _, err = metarule("export", *arguments)
        assert code == 2
        assert sentence in err
