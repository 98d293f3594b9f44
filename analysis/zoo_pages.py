"""The pages of docs/zoo: what every row is, what of it is local, and what it reached; text from the code itself."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import sympy

from metarule.rules import Rule
from metarule.rules.linear import LinearRule
from metarule.terms import TERMS, equation, spelled
from metarule.zoo import GROUPS, ZOO, Algorithm

Rows = list[dict[str, Any]]

COMMAND = "metarule evaluate --all --json > docs/zoo/table.json\npython analysis/zoo.py docs/zoo/table.json docs/zoo"


def index_page(rows: Rows, failed: Iterable[Any], promised: int, free: int, remedies: Mapping[str, str]) -> str:
    """The whole table, its picture, what fell short and what was tried for it."""
    first = rows[0]
    failed = list(failed)
    lines = [
        "# The zoo", "",
        "Every known learning rule as credit assignment × rule × synapse model, trained with its own fixed numbers on "
        "three tasks: digits (64-64-32-10, 1437 training and 360 test images), the same behind frozen random upper "
        "layers (only the first layer learns), and an autoencoder (64-32-10-32-64, normalised mean squared error). "
        f"Means and 95 % intervals over {first['seeds']} seeds. *Angle*: between the row's update of the hidden layers "
        "that learn and backprop's in the same network, on digits, before and after training. *Cost*: time of a step "
        "in steps of backprop on the same network and batch, on digits. A row whose network settles, or codes its "
        "targets in another way, descends another loss than the one whose gradient it is compared with.", "",
        "The numbers of a row are the same on all three tasks. They were chosen on these tasks and this split, a few "
        "settings per row, so the figures are those of chosen settings; `metarule evaluate --task` tunes on other data "
        "than it tests on.", "",
        "<!-- not run: seven minutes on two cores -->", "```sh", COMMAND, "```", "",
        "![All rows on the three tasks](overview.png)", "",
    ]  # fmt: skip
    for group, members in GROUPS.items():
        own = [row for row in rows if row["learner"] in members]
        page = f"{group.replace(' ', '_')}.md"
        lines += [f"## [{group.capitalize()}]({page})", "", *result_table(own), ""]
    passed = promised - len({verdict.learner for verdict in failed})
    lines += [
        "## Against an independent prototype", "",
        "Most rows were first run in a prototype written apart from this code. The gates: digits within 2 points of "
        "its accuracy, and rows that teach hidden layers 2 points above the readout alone; behind the frozen readout "
        "within 5 points, negative controls at chance; the autoencoder within 0.05 of its error. "
        f"{passed} of {promised} rows pass all their gates; {free} of these have no figure to be held to.", "",
    ]  # fmt: skip
    if failed:
        lines += ["| row | task | reached | asked for |", "|---|---|---|---|"]
        lines += [f"| {v.learner} | {v.task} | {v.seen:.3f} | {v.asked} |" for v in failed]
        lines += [
            "",
            *(f"* **{name}**, what was tried: {remedies[name]}" for name in {v.learner: v for v in failed}),
            "",
        ]
    return "\n".join(lines)


def group_page(group: str, rows: Rows) -> str:
    """One group: its learning curves, its results, and every row in words and equations."""
    picture = f"{group.replace(' ', '_')}.png"
    module = importlib.import_module(f"metarule.zoo.{group.replace(' ', '_')}")
    lines = [f"# {group.capitalize()}", "", _prose(module.__doc__), ""]
    lines += [f"![Learning curves of the group]({picture})", ""]
    lines += [*result_table(rows), "", "[All rows, and the command that made these figures](README.md)", ""]
    for name in GROUPS[group]:
        lines += row_section(name, ZOO[name])
    return "\n".join(lines)


def result_table(rows: Rows) -> list[str]:
    """Accuracy or error on the three tasks, angle and cost, one line per row."""
    cells = {(row["learner"], row["task"]): row for row in rows}
    lines = [
        "| row | digits | frozen | autoencoder | angle | cost |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in dict.fromkeys(row["learner"] for row in rows):
        own = [cells.get((name, task)) for task in ("digits", "frozen", "autoencoder")]
        first = next(row for row in own if row)
        turn = " → ".join("–" if value is None else f"{value:.0f}°" for value in first["angle"].values())
        turn = "–" if set(first["angle"].values()) == {None} else turn
        lines.append(f"| {name} | {' | '.join(map(_cell, own))} | {turn} | {first['cost']:.1f} |")
    return lines


def row_section(name: str, row: Algorithm) -> list[str]:
    """A row in words: source, credit, rules with equations, synapse models, numbers, what is local."""
    lines = [f"## {name}", "", f"{row.summary[0].upper()}{row.summary[1:]}. *{row.source}*", ""]
    lines += [f"* **Credit** `{row.credit.kind}`: {_prose(inspect.getdoc(type(row.credit)))}"]
    for key, rule in row.rules.items():
        where = "" if key == "forward" else f" ({key})"
        lines.append(f"* **Rule**{where} `{rule.kind}`: {_equation(rule, key, row)}")
    for key, synapse in row.synapses.items():
        where = "" if key == "any" else f" ({key})"
        lines.append(f"* **Synapse**{where} `{synapse.kind}`: {_prose(inspect.getdoc(type(synapse)))}")
    lines.append(f"* **Host**: {_host(row)}")
    if row.values:
        lines.append("* **Numbers**: " + ", ".join(f"{key} = {value:g}" for key, value in row.values.items()))
    lines.append(f"* **Local**: {_locality(row)}")
    lines += [f"* Not for {task}: {reason}." for task, reason in row.not_for.items()]
    return [*lines, ""]


def _equation(rule: Rule, key: str, row: Algorithm) -> str:
    if not isinstance(rule, LinearRule):
        return _prose(inspect.getdoc(type(rule)))
    numbers = [row.values.get(f"rule.{key}.{term.name}", 0.0) if rule.params else 1.0 for term in rule.weighted]
    if all(number == int(number) for number in numbers):
        pairs = zip(numbers, rule.weighted, strict=True)
        parts = (int(number) * TERMS[term.name].expression for number, term in pairs)
        return f"dW = ⟨{spelled(sympy.Add(*parts))}⟩"
    return f"dW = ⟨{spelled(equation(rule.weighted, numbers))}⟩"


def _locality(row: Algorithm) -> str:
    read = sorted(set().union(*(rule.reads for rule in row.rules.values())))
    rules = "the rule reads" if len(row.rules) == 1 else "the rules read"
    local = all(rule.local for rule in row.rules.values())
    at = "all of it at the synapse" if local else "not all of it at the synapse"
    return f"{rules} {', '.join(read) or 'the weight alone'}, {at}. {row.credit.not_local}"


def _host(row: Algorithm) -> str:
    host = row.host
    parts = [
        f"{host.activation} units",
        *(f"{own} output where the task asks for {o}" for o, own in host.output.items()),
    ]
    if host.hidden is not None:
        parts.append(f"hidden layers of its own, {', '.join(map(str, host.hidden))}")
    if (host.init, host.init_scale) != ("glorot", 1.0):
        parts.append(f"initial weights {host.init} × {host.init_scale:g}")
    return ", ".join([*parts, f"{host.epochs} epochs of batches of {host.batch}"])


def _cell(row: dict[str, Any] | None) -> str:
    if row is None or row["mean"] is None:
        return "–"
    return f"{row['mean']:.3f} ± {row['high'] - row['mean']:.3f}" if row["high"] is not None else f"{row['mean']:.3f}"


def _prose(text: str | None) -> str:
    """A docstring on one line, without what it raises."""
    return " ".join((text or "").split("Raises ValueError")[0].split())
