"""The pages of docs/reference, made from the code: python docs/reference_pages.py"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import typer

import metarule
from metarule.catalog import catalog
from metarule.cli import app
from metarule.credit import CREDIT
from metarule.glossary import MEANINGS, known
from metarule.models import MODELS
from metarule.module_learner import Descent
from metarule.outer import OUTER
from metarule.plugins import settings
from metarule.rules import RULES
from metarule.signals import Signals
from metarule.synapses import SYNAPSES
from metarule.tables import BatterySpec, Budget, InnerSpec, NetworkSpec, SearchSpec
from metarule.tasks import TASKS
from metarule.terms import FACTORS, TERMS

FOLDER = Path(__file__).parent / "reference"

MADE = "<!-- made by docs/reference_pages.py -->"

PYTHON = {
    "python_search": (
        "Python: search and inspect",
        "Run searches, and use what they found.",
        ("search", "load", "go_on", "Run", "Search", "LocalOptimizer", "export"),
    ),
    "python_identify": (
        "Python: record and classify",
        "Record learning, and say which rule made a recording.",
        (
            *("record", "Recorder", "Recording", "classify"),
            *("ObservableExtractor", "RuleClassifier", "RuleRegressor", "LeaveOneRuleOut", "LeaveOneArchitectureOut"),
        ),
    ),
    "python_extend": (
        "Python: extend",
        "What a rule, a kind of credit, a synapse model, a task, an outer loop or a model of your own is made of.",
        (
            *("Rule", "CreditAssignment", "SynapseModel", "Task", "Episode", "OuterLoop", "Model"),
            *("Param", "Signals", "Change", "Batch", "Term", "Network", "Learner"),
        ),
    ),
}
"""Page -> its title, what its names are for, and the public names in the order in which they are read."""

ROOMS = {
    "tasks": ("Tasks", "[task]", "What is learned: `task.kind`.", TASKS),
    "credit": ("Credit assignment", "[credit]", "What reaches a synapse: `credit.kind`.", CREDIT),
    "rules": ("Rules", "[rule]", "How a synapse changes by what reaches it: `rule.kind`.", RULES),
    "synapses": ("Synapse models", "[synapse]", "What a synapse does with a change: `synapse.kind`.", SYNAPSES),
    "outer": ("Outer loops", "[outer]", "Who proposes rules: `outer.kind`.", OUTER),
    "models": ("Models", "[model]", "Torch modules that `higher` trains: `model.kind`.", MODELS),
}
"""Page -> its title, its table in a search file, what it is for, and its members."""

KEYS = {
    "`[task]`": "what is learned, by `kind`: [tasks](tasks.md)",
    "`[network]`": "who learns: [below](#network)",
    "`[credit]`": "what reaches a synapse, by `kind`: [credit assignment](credit.md); left out: `backprop`",
    "`[rule]`": "how it changes by that, by `kind`: [rules](rules.md). Several: `[rules.forward]`, `[rules.feedback]`, "
    'or by projection, `[rules."input->hidden1"]`',
    "`[synapse]`": "what it does with a change, by `kind`: [synapse models](synapses.md); left out: `sgd`. Several: "
    "`[synapses.NAME]`, likewise",
    "`algorithm`": "a row of [the zoo](../zoo/README.md) in place of credit, rule and synapse; tables beside it change "
    "what they name",
    "`[inner]`": "how a candidate is tried: [below](#inner)",
    "`[outer]`": "who proposes candidates, by `kind`: [outer loops](outer.md); for how long: [below](#budget)",
    "`[search]`": "what counts as better: [below](#search)",
    "`[battery]`": "the held-out test at the end: [below](#battery)",
    "`[fixed]`, `[start]`": "numbers that searches move otherwise, held or begun at a value: "
    '`"rule.forward.error_pre" = 0.03`',
    "`[structure]`": "lists of values for keys of the learner, to choose among: `outer.kind` is `optuna` or `genetic`",
    "`[[known]]`": "rules that are tried first",
    "`[model]`, `[descent]`": "in place of network, credit and rule: [a torch module](models.md), and how it is "
    "trained, [below](#descent)",
    "`plugins`": 'files with kinds [of your own](../a_rule_of_your_own.md), relative to this file: `["my_rule.py"]`',
}
"""Table or key at the top of a search file -> what it says."""

TABLES = {
    "network": NetworkSpec,
    "inner": InnerSpec,
    "budget": Budget,
    "search": SearchSpec,
    "battery": BatterySpec,
    "descent": Descent,
}
"""Heading -> the dataclass whose fields are the keys."""


def pages() -> dict[str, str]:
    """File name -> text, of every page in docs/reference."""
    return (
        {f"{name}.md": python_page(*PYTHON[name]) for name in PYTHON}
        | {f"{name}.md": room_page(*ROOMS[name]) for name in ROOMS}
        | {
            "command_line.md": command_line_page(),
            "search_file.md": search_file_page(),
            "terms.md": terms_page(),
            "searches.md": searches_page(),
        }
    )


def page(title: str, *parts: str) -> str:
    """Markdown with a title and the line that says where it comes from."""
    return "\n\n".join((f"# {title}", MADE, *(part.strip("\n") for part in parts))) + "\n"


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table; "" without rows."""
    lines = [tuple(head), *(tuple(map(str, row)) for row in rows)]
    lines.insert(1, ("---",) * len(lines[0]))
    shown = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines]
    return "\n".join(shown) if len(shown) > 2 else ""


def prose(text: str | None) -> str:
    """A docstring as Markdown: paragraphs on one line, what Markdown would take for its own signs escaped."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(literal(" ".join(paragraph.split())) for paragraph in paragraphs)


def literal(text: str) -> str:
    """Text outside of `code` with `*`, `_`, `<` and `[` as they are."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*_<\[\]])", r"\\\1", part) for part in parts)


def python_page(title: str, about: str, names: Iterable[str]) -> str:
    """The docstrings of public names, which mkdocstrings fills in."""
    homes = {name: getattr(metarule, name) for name in names}
    blocks = [
        f"::: {member.__module__}.{name}\n    options:\n      heading: {name}\n      toc_label: {name}"
        for name, member in homes.items()
    ]
    return page(title, about, "Names are those of `import metarule as mr`.", *blocks)


def room_page(title: str, key: str, about: str, members: Mapping[str, type]) -> str:
    """Every kind of a plug-in that comes with metarule: what it is, its source, its settings."""
    parts = [f"{about} One's own join by [a file](../a_rule_of_your_own.md)."]
    own = {name: member for name, member in members.items() if member.__module__.startswith("metarule.")}
    for name, member in own.items():
        source = getattr(member, "source", None)
        parts += [f"## {name}", prose(inspect.getdoc(member))]
        parts += [f"*Source: {literal(source)}*"] if source else []
        parts += [part for part in (settings_table(member),) if part]
    return page(f"{title}: `{key}`", *parts)


def settings_table(member: Any) -> str:
    """The keys of a table: name, type and default of every setting."""
    hints = typing.get_type_hints(member)
    rows = [(f"`{each.name}`", spelled(hints[each.name]), default(each)) for each in settings(member)]
    return table(("key", "type", "default"), rows)


def spelled(hint: Any) -> str:
    """A type as a reader of TOML would say it."""
    if dataclasses.is_dataclass(hint):
        return "{ " + ", ".join(each.name for each in settings(hint)) + " }"
    arguments = [each for each in typing.get_args(hint) if each is not Ellipsis]
    if typing.get_origin(hint) is tuple:
        inside = [spelled(each) for each in arguments]
        return f"list of {inside[0]}" if Ellipsis in typing.get_args(hint) else f"[{', '.join(inside)}]"
    if typing.get_origin(hint) is dict:
        return "table"
    if arguments:
        return " or ".join(spelled(each) for each in arguments if each is not type(None))
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}.get(
        getattr(hint, "__name__", ""), str(hint)
    )


def default(spec: dataclasses.Field[Any]) -> str:
    """What a key is where it is left out."""
    if spec.default_factory is not dataclasses.MISSING:
        return f"`{toml(spec.default_factory())}`"
    if spec.default is dataclasses.MISSING:
        return "must be given"
    return "–" if spec.default is None else f"`{toml(spec.default)}`"


def toml(value: Any) -> str:
    """A default as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(toml, value))}]"
    return "{}" if value == {} else str(value)


def search_file_page() -> str:
    """The tables of a search file, those without a kind in full."""
    parts = [
        "A search is a TOML file. Every key can be overridden on the command line, dotted: `outer.generations=50`. A "
        "wrong key or value is answered by what is allowed and the nearest name; `metarule search FILE --dry-run` "
        "checks a file and says what it would cost.",
        table(("table or key", "says"), KEYS.items()),
    ]
    for heading, spec in TABLES.items():
        parts += [f"## {heading}", prose(inspect.getdoc(spec)), settings_table(spec)]
    return page("The search file", *parts)


def terms_page() -> str:
    """Signals, the factors made of them, and the terms made of those."""
    factors = [
        (
            f"`{name}`",
            literal(MEANINGS[name].text),
            factor.side,
            ", ".join(f"`{each}`" for each in factor.reads) or "–",
            yes(factor.local),
        )
        for name, factor in FACTORS.items()
    ]
    named = [
        (f"`{name}`", f"`{term.expression}`".replace("**", "^"), yes(term.local), *called(name))
        for name, term in TERMS.items()
    ]
    axes = [
        (f"`{name}`", "(" + re.findall(r"Tensor, .(R [A-Z1 ]+)", hint)[0] + ")")
        for name, hint in Signals.__annotations__.items()
    ]
    return page(
        "Signals, factors and terms",
        "## Signals",
        prose(inspect.getdoc(Signals)),
        "Axes: R runs side by side, B events of a batch, I post units, J pre units.",
        table(("signal", "axes"), axes),
        "## Factors",
        "What a term may contain. *Local*: a synapse can know it; what is not local sums over other synapses.",
        table(("factor", "is", "side", "reads", "local"), factors),
        "## Terms",
        'The names that `rule.terms = ["error_pre", ...]` and the equations of reports use.',
        table(("term", "is", "local", "known as", "source"), named),
    )


def called(term: str) -> tuple[str, str]:
    """What the literature calls a term, and who wrote it down."""
    found = known(term)
    return ("–", "–") if found is None else (literal(found.name), literal(found.source))


def yes(truth: bool) -> str:
    """yes or no."""
    return "yes" if truth else "no"


def searches_page() -> str:
    """The questions and the simulations that come with metarule."""
    (searches,), (simulations,) = catalog("searches"), catalog("simulations")
    return page(
        "Searches and simulations that come with metarule",
        "`metarule search NAME` runs a search, `metarule search NAME --copy my.toml` writes it out to edit. What "
        "each of them cost and found is told in `searches/README.md` of the repository.",
        table(("search", "question"), ((f"`{each['name']}`", each["summary"]) for each in searches["members"])),
        "## Simulations",
        "What `metarule classify` compares a recording with is simulated: rules × data × architectures × step sizes. "
        "`metarule simulate NAME --out FOLDER` writes the networks of a file as recordings.",
        table(("simulation", "what for"), ((f"`{each['name']}`", each["summary"]) for each in simulations["members"])),
    )


def command_line_page() -> str:
    """Every verb with its arguments and options, from the texts that --help prints."""
    group: Any = typer.main.get_command(app)
    verbs = [each for name, command in group.commands.items() for each in leaves((name,), command)]
    parts = ["Exit codes: 0 done, 1 a contract is broken, 2 a mistake in what was given, 75 stopped and resumable."]
    for words, command in verbs:
        parts += [f"## metarule {' '.join(words)}", plain(command.help), options_table(command)]
    return page("The command line", *parts)


def leaves(words: tuple[str, ...], command: Any) -> list[tuple[tuple[str, ...], Any]]:
    """(words, command) of a verb, or of every verb of a group."""
    if not hasattr(command, "commands"):
        return [(words, command)]
    return [each for name, part in command.commands.items() for each in leaves((*words, name), part)]


def plain(text: str | None) -> str:
    """A help text without the escapes that rich wants."""
    return prose((text or "").replace("\\[", "["))


def options_table(command: Any) -> str:
    """Arguments first, then options, each with what it is and its default."""
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name != "argument"]
    rows = [(f"`{each.metavar or each.name.upper()}`", plain(each.help), usual(each)) for each in arguments]
    for each in options:
        takes = "" if each.is_flag else f" {each.metavar or each.name.upper()}"
        spellings = (f"`{name}{takes}`" for name in (*each.opts, *each.secondary_opts))
        rows.append((", ".join(spellings), plain(each.help), usual(each)))
    return table(("given", "is", "default"), rows)


def usual(param: Any) -> str:
    """What an argument or option is where it is not given."""
    if isinstance(param.show_default, str):
        return param.show_default
    if getattr(param, "is_flag", False):
        return "on" if param.default else "–"
    return f"`{param.default}`" if isinstance(param.default, (str, int, float, Path)) else "–"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, text in pages().items():
        (FOLDER / file).write_text(text)
