"""The house stands: imports point down one list, and what must never be in the code is not in it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import metarule

PACKAGE = Path(metarule.__file__).parent
ROOT = PACKAGE.parent

# Every module or folder of the package; it may import what stands in lines above its own, and nothing else of the
# package. Names on one line never import one another. A new module joins where it belongs, or the test fails.
ORDER = """
signals params rng collect records glossary intervals replicates
archive tree terms nonlinearities recurrent lazy_weight positions
programs
program_text symbolic
mean_field
network
credit rules synapses tasks outer models
learner
block fingerprint
fused
adjoint
inner
family gradient_descent zoo learned_descent alignment
module_learner
unrolled
plugins tables
named_row
structural
spec
reading workers cluster evaluation findings
acceptance
runs results ledger
loop
trial
jobs
bench_roofline bench_work
bench_process bench_written
bench_jax bench_slopes
bench bench_memory bench_meta comparing
bench_gradient inspection
identification
catalog doctor contracts distillation
inspecting
portable sequential own_loop
borrowed
local_optimizer
exporting
api
cli
__main__
"""
RANK = {name: rank for rank, line in enumerate(ORDER.strip().splitlines()) for name in line.split()}

# what an outer loop may know of the package: it proposes rows of theta and hears numbers; `recurrent` is the arithmetic
# of an optimizer that was learned
OUTER_KNOWS = {"params", "rng", "collect", "outer", "recurrent"}
FORBIDDEN_IMPORTS = {"pickle", "dill", "cloudpickle", "marshal", "shelve"}
LONGEST = 400

MODULES = sorted(PACKAGE.rglob("*.py"))
EVERY_FILE = [*MODULES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "analysis").rglob("*.py"))]


def shown(file: Path) -> str:
    return str(file.relative_to(ROOT))


every_module = pytest.mark.parametrize("file", MODULES, ids=shown)


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def place(file: Path) -> str:
    """The name in ORDER that a file belongs to; "" for the package's own __init__."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


def imported(file: Path) -> set[str]:
    """Every module that a file imports, wherever in the file, as a dotted name."""
    names = set()
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports by a relative name; absolute names only"
            base = node.module or ""
            names |= {f"{base}.{alias.name}" for alias in node.names} if base == "metarule" else {base}
    return names


def of_package(file: Path) -> set[str]:
    """The names of ORDER that a file imports."""
    dotted = (name.split(".") for name in imported(file))
    return {parts[1] for parts in dotted if parts[0] == "metarule" and len(parts) > 1}


def test_every_module_has_its_place_in_the_order():
    missing = {place(file) for file in MODULES} - RANK.keys() - {""}
    assert not missing, f"add {sorted(missing)} to ORDER in {Path(__file__).name}, below all that they import"


@every_module
def test_imports_point_down_the_list(file):
    own = place(file)
    if own == "":
        return  # the package's front: it may name anything
    wrong = {name for name in of_package(file) if name != own and RANK[name] >= RANK[own]}
    assert not wrong, f"{shown(file)} imports {sorted(wrong)}, which do not stand above it"


@every_module
def test_outer_loops_know_parameters_and_noise_only(file):
    if place(file) == "outer":
        assert of_package(file) <= OUTER_KNOWS


@every_module
def test_nothing_in_the_package_imports_analyses_tests_or_unsafe_formats(file):
    roots = {name.partition(".")[0] for name in imported(file)}
    assert not roots & ({"analysis", "tests", "searches"} | FORBIDDEN_IMPORTS)


@every_module
def test_no_text_is_run_as_code_and_no_file_is_unpickled(file):
    for node in ast.walk(parsed(file)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in ("eval", "exec", "compile", "__import__"), f"line {node.lineno}: {called}"
        if called == "torch.load":
            safe = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert safe.get("weights_only") == "True", f"line {node.lineno}: torch.load without weights_only=True"


@every_module
def test_credit_rules_and_synapses_call_no_autograd(file):
    if place(file) not in ("credit", "rules", "synapses", "terms", "signals", "network"):
        return
    nodes = list(ast.walk(parsed(file)))
    named = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    named |= {node.id for node in nodes if isinstance(node, ast.Name)}
    assert not named & {"backward", "autograd", "requires_grad", "requires_grad_", "enable_grad", "func", "vjp", "grad"}


@every_module
def test_a_module_is_one_idea_and_not_a_long_one(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize("file", EVERY_FILE, ids=shown)
def test_every_file_starts_by_saying_what_it_is(file):
    docstring = ast.get_docstring(parsed(file))
    assert docstring, "no docstring"
    assert not docstring.startswith("\n")
    assert docstring.splitlines()[0].rstrip().endswith((".", ":", "?", ";")), "the first line is a sentence"


@pytest.mark.parametrize("room", ["credit", "rules", "synapses", "tasks", "outer", "models"])
def test_the_front_of_a_room_is_its_base_and_its_dict_and_nothing_else(room):
    body = parsed(PACKAGE / room / "__init__.py").body
    assert all(isinstance(node, (ast.Expr, ast.ImportFrom, ast.Assign)) for node in body)
    assert of_package(PACKAGE / room / "__init__.py") == {"collect", room}
