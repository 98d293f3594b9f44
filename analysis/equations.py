"""Is the equation that is found the rule that was planted? Support, coefficients and warnings, over seeds.

Oja from activity alone, by Gauss-Newton and by Adam; weights seen every tenth update; local rules with noise; feedback
that is fitted; inputs that make terms the same; rules that data cannot tell apart, and the experiment that can.

    python analysis/equations.py runs/analysis/equations --quick
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from asked import written

from metarule.credit.feedback import feedback_name
from metarule.evaluation import interval
from metarule.identification.dictionary import CLUSTERS, columns, normal, spelled, taylor, term
from metarule.identification.equation import equation, read
from metarule.identification.feedback_fit import feedback
from metarule.identification.record import observed
from metarule.identification.recording import Recording
from metarule.identification.rivals import rivals
from metarule.identification.shooting import Shooting, Trajectory
from metarule.identification.sparse import select
from metarule.identification.trajectory import fit
from metarule.identification.updates import single_updates
from metarule.inner import Reference, Runs
from metarule.params import starts
from metarule.records import jsonable
from metarule.rules.polynomial import Polynomial
from metarule.rules.textbook import Delta, Hebb, Oja
from metarule.signals import Signals
from metarule.tasks.digits import Digits
from metarule.terms import combine
from metarule.zoo import algorithm

SEEDS = tuple(range(10))
STEP = 0.1
EDGE = "input->output"
TAYLOR = taylor(post=2, pre=2, weight=2)
OJA = {"post_pre": 1.0, "post2_weight": -1.0}

RULES: dict[str, dict[str, float]] = {
    "hebb": {"post_pre": 1.0},
    "oja": OJA,
    "covariance": {"post_pre": 1.0, "pre": -0.5, "post": -0.2, "constant": 0.1},
    "bcm_fixed_threshold": {"post2_pre": 1.0, "post_pre": -0.6},
    "anti_hebb_with_decay": {"post_pre": -1.0, "weight": -0.5},
    "hebb_with_decay": {"post_pre": 1.0, "weight": -0.3},
    "instar": {"post_pre": 1.0, "post_weight": -1.0},
    "delta": {"error_pre": 1.0},
    "gated_delta": {"post_error_pre": 1.0},
    "delta_with_decay": {"error_pre": 1.0, "weight": -0.1},
}
"""Planted rule -> its terms; inputs with mean .2 and s.d. 1, sigmoid units, a batch of 4, step .1."""


def simulated(
    rule: Mapping[str, float],
    generator: np.random.Generator,
    inputs: np.ndarray,
    units: int = 10,
    start: np.ndarray | None = None,
    noise: tuple[float, float] = (0.0, 0.0),
) -> Recording:
    """A sigmoid layer that learns by a sum of terms on inputs (T S J), a snapshot before each update.

    `noise` is that on weights, in root mean squares of a single update's change, and on activity, in its s.d.
    """
    steps, width = len(inputs), inputs.shape[2]
    weight = generator.normal(size=(units, width)) / np.sqrt(width) if start is None else start
    teacher = generator.normal(size=weight.shape) * 2 / np.sqrt(width)
    known = [term(name) for name in rule]
    coefficients = torch.tensor([list(rule.values())], dtype=torch.float64) * STEP
    weights, rates, targets = [], [], []
    for t in range(steps):
        post, target = (1 / (1 + np.exp(-inputs[t] @ each.T)) for each in (weight, teacher))
        weights.append(weight)
        rates.append(post)
        targets.append(target)
        signals = {"weight": weight, "pre": inputs[t], "post": post, "error": target - post}
        read = Signals(**{name: torch.from_numpy(value)[None] for name, value in signals.items()})
        weight = weight + combine(tuple(known), coefficients, read).tensor(read.weight)[0].numpy()
    seen, active = np.array(weights), np.array(rates)
    change = np.sqrt(np.mean(np.diff(seen, axis=0) ** 2))
    return Recording(
        np.arange(steps, dtype=float),
        {EDGE: seen + noise[0] * change * generator.normal(size=seen.shape)},
        activity={"output": active + noise[1] * active.std() * generator.normal(size=active.shape)},
        input=inputs,
        target=np.array(targets),
        meta={"output": "sigmoid"},
    )


def check_rules() -> None:
    """The planted rules are the package's own where it has them."""
    for rule, name in ((Hebb(), "hebb"), (Delta(), "delta"), (Oja(), "oja")):
        parts = {part: sign for each in rule.weighted for sign, part in each.parts}
        assert parts == {term(key).parts[0][1]: value for key, value in RULES[name].items()}
    names = {each.name for each in Polynomial({"post": 2, "pre": 1, "weight": 1}).weighted}
    assert {*OJA, *RULES["bcm_fixed_threshold"], *RULES["instar"]} <= names


def f1(found: Sequence[str], planted: Sequence[str]) -> float:
    """Harmonic mean of the precision and the recall of a support."""
    return 2 * len({*found} & {*planted}) / (len(found) + len(planted))


def summary(values: Sequence[float]) -> list[float]:
    """Mean and 95 % interval of the mean over seeds."""
    return [float(value) for value in interval([float(value) for value in values])]


def oja_trajectories(seed: int, noise: float, count: int = 10) -> list[Trajectory]:
    """Oja on 10 x 10 sigmoid units, x ~ N(0, 1), 50 steps; only activity is seen."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        recording = simulated(OJA, generator, generator.normal(size=(50, 1, 10)), noise=(0.0, noise))
        whole = recording.weights[EDGE]
        assert recording.input is not None
        found.append(Trajectory(whole[0], recording.input, recording.activity["output"], np.full((50, 10, 10), np.nan)))
    return found


def from_activity(seeds: Sequence[int]) -> dict[str, Any]:
    """Target 1: exact support and coefficients within .05 at noise 0, 1 % and 10 % of the s.d. of activity."""
    found = {}
    for noise in (0.0, 0.01, 0.1):
        exact, worst, seconds = [], [], []
        for seed in seeds:
            start = time.perf_counter()
            selection, _ = fit(oja_trajectories(seed, noise), TAYLOR, STEP)
            seconds.append(time.perf_counter() - start)
            exact.append({*selection.support} == {*OJA})
            worst.append(max(abs(selection.coefficients.get(name, 0.0) - value) for name, value in OJA.items()))
        found[f"noise {noise}"] = {
            "exact support": f"{sum(exact)}/{len(exact)}",
            "largest coefficient error": max(worst),
            "coefficient error": summary(worst),
            "seconds": summary(seconds),
        }
    return found


def by_adam(seeds: Sequence[int], steps: int = 400, rate: float = 1e-2) -> dict[str, Any]:
    """The comparison: Adam from zero on the same noise-free activity; R2 and coefficients."""
    found: dict[str, list[float]] = {"R2 of activity": [], "R2 of weights": [], "post pre": [], "post^2 weight": []}
    spurious: list[float] = []
    for seed in seeds:
        seen = oja_trajectories(seed, 0.0)
        shooting = Shooting.of(seen, TAYLOR, STEP, CLUSTERS)
        names = [each.name for each in TAYLOR]
        theta, first, second = (np.zeros(len(names)) for _ in range(3))
        for step in range(1, steps + 1):
            slope = -2 * shooting.evaluate(theta, list(range(len(names)))).cross.sum(0) / shooting.freedom
            first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
            theta = theta - rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        activity = np.array([each.activity for each in seen])
        # residuals are in units of what learning did to activity
        left = shooting.evaluate(theta, []).energy.sum() * shooting.scales[0] ** 2
        found["R2 of activity"].append(1 - left / ((activity - activity.mean()) ** 2).sum())
        found["R2 of weights"].append(weights_r2(seen, dict(zip(names, theta, strict=True))))
        found["post pre"].append(theta[names.index("post_pre")])
        found["post^2 weight"].append(theta[names.index("post2_weight")])
        rest = {name: value for name, value in zip(names, theta, strict=True) if name not in OJA}
        spurious.append(max(abs(value) for value in rest.values()))
    return {name: summary(values) for name, values in found.items()} | {"largest spurious": summary(spurious)}


def weights_r2(seen: Sequence[Trajectory], rule: Mapping[str, float]) -> float:
    """R2 of the last weights that a rule would have made."""
    rules, ends = (rule, OJA), []
    for each in rules:
        known = {name: value for name, value in each.items() if value}
        ends.append(
            np.array(
                [
                    simulated(known, np.random.default_rng(0), one.input, start=one.weight).weights[EDGE][-1]
                    for one in seen
                ]
            )
        )
    return float(1 - ((ends[0] - ends[1]) ** 2).sum() / ((ends[1] - ends[1].mean()) ** 2).sum())


def from_coarse(seeds: Sequence[int], stride: int = 10) -> dict[str, Any]:
    """Target 2: weights at every tenth of 100 updates, no activity, one trajectory; and end-point regression."""
    exact, worst, naive = [], [], []
    for seed in seeds:
        generator = np.random.default_rng(seed)
        recording = simulated(OJA, generator, generator.normal(size=(101, 1, 10)))
        weights = np.full_like(recording.weights[EDGE], np.nan)
        weights[::stride] = recording.weights[EDGE][::stride]
        partial = replace(recording, weights={EDGE: weights}, activity={}, target=None)
        found = equation(partial, terms=[each.name for each in TAYLOR]).edges[0].selection
        exact.append({*found.support} == {*OJA})
        worst.append(max(abs(found.coefficients.get(name, 0.0) / STEP - value) for name, value in OJA.items()))
        naive.append(end_points(recording, stride))
    return {
        "exact support": f"{sum(exact)}/{len(exact)}",
        "largest coefficient error": max(worst),
        "end-point regression, post pre": summary([each["post_pre"] for each in naive]),
        "end-point regression, post^2 weight": summary([each["post2_weight"] for each in naive]),
    }


def end_points(recording: Recording, stride: int) -> dict[str, float]:
    """What regression of W[t + stride] - W[t] on the events at t makes of it, the planted terms only."""
    assert recording.input is not None
    weight, known = recording.weights[EDGE], [term(name) for name in OJA]
    designs, targets = [], []
    for t in range(0, len(weight) - stride, stride):
        design = columns(known, recording.activity["output"][t], recording.input[t], weight[t], None)
        designs.append(design.reshape(len(known), -1))
        targets.append((weight[t + stride] - weight[t]).ravel() / stride / STEP)
    theta = np.linalg.lstsq(np.concatenate(designs, axis=1).T, np.concatenate(targets), rcond=None)[0]
    return dict(zip(OJA, theta.tolist(), strict=True))


def local_rules(seeds: Sequence[int]) -> dict[str, Any]:
    """Target 3: F1 of the support, 40 updates of a 20-10 layer; noise on weights and on activity."""
    check_rules()
    found: dict[str, Any] = {}
    for noise in ((0.0, 0.0), (0.1, 0.001), (0.3, 0.01)):
        each, scores, covered = {}, [], []
        for name, rule in RULES.items():
            rows = []
            for seed in seeds:
                generator = np.random.default_rng([seed, *name.encode()])
                inputs = 0.2 + generator.normal(size=(40, 4, 20))
                one = equation(simulated(rule, generator, inputs, noise=noise)).edges[0].selection
                rows.append((f1(one.support, [*rule]), one.r2_held_out, one.support))
                covered += [
                    one.low[key] <= STEP * value <= one.high[key]
                    for key, value in rule.items()
                    if key in one.coefficients and noise[0]
                ]
            scores += [row[0] for row in rows]
            each[name] = {
                "F1": float(np.mean([row[0] for row in rows])),
                "held-out R2": float(np.mean([row[1] for row in rows])),
                "found at the first seed": [spelled(key) for key in rows[0][2]],
            }
        found[f"noise {noise[0]} of a change, {noise[1]} of activity"] = {
            "F1": summary(scores),
            "true coefficient within the 95 % interval": float(np.mean(covered)) if covered else None,
            "rules": each,
        }
    return found


def fitted_feedback(seeds: Sequence[int]) -> dict[str, Any]:
    """Target 4: feedback alignment on digits, 64-32-10, 14 single updates of 16; the fitted matrix and the true one.

    Errors of a softmax sum to 0, so that no data show the mean of a row of B; those of sigmoid outputs show all of it.
    """
    return {f"{output} output": _fitted_feedback(seeds, output) for output in ("sigmoid", "softmax")}


def _fitted_feedback(seeds: Sequence[int], output: str) -> dict[str, Any]:
    raw, shown, explained, wrong = [], [], [], []
    for seed in seeds:
        row = algorithm("feedback_alignment")
        task = Digits()
        learner = row.learner(replace(row.host, hidden=None).network(task.inputs, (32,), task.outputs, output))
        outcome = Reference(dtype=torch.float64).evaluate(
            learner, starts(learner.params)[None], task, Runs((0,), (0,), seed), range(15), 16,
            frozenset({"loss", "carry"}), record=1,
        )  # fmt: skip
        assert outcome.record is not None
        assert outcome.carry is not None
        recording = observed(learner, outcome.record)
        readout = next(each for each in learner.network.projections if each.source == "hidden1")
        truth = outcome.carry["weights"][feedback_name(readout)][0].numpy()
        updates = single_updates(recording)
        assert updates.error is not None
        fitted = feedback(updates.layers[0], {"error": updates.error}, updates.layers[1])
        assert fitted is not None
        raw.append(float(np.corrcoef(fitted.matrix.ravel(), truth.ravel())[0, 1]))
        shown.append(fitted.correlation(truth, updates.error))
        explained.append(fitted.r2_held_out)
        wrong.append(abs(fitted.on_weight or 0.0))
    return {
        "correlation with the true feedback": summary(raw),
        "the same, where the error can show it": summary(shown),
        "held-out R2": summary(explained),
        "|cosine| with the transposed weights": summary(wrong),
    }


def collinear(seeds: Sequence[int]) -> dict[str, Any]:
    """Target 5: inputs of 0 and 1, so that pre and pre^2 are the same; how often an equation is told as sure."""
    found = {}
    for name, rule in {"hebb": RULES["hebb"], "oja": OJA, "post pre^2": {"post_pre2": 1.0}}.items():
        told, text, directions = [], "", 0
        for seed in seeds:
            generator = np.random.default_rng(seed)
            inputs = (generator.random((40, 4, 20)) < 0.4).astype(float)
            (edge,) = equation(simulated(rule, generator, inputs)).edges
            told.append(edge.found)
            text, directions = edge.text, len(edge.selection.null_directions)
        found[name] = {"told as sure": f"{sum(told)}/{len(told)}", "null directions": directions, "text": text}
    # a published case: th_110 + .75 th_210 = 1.03 is determined where inputs are 0 or .75, the parts are not
    generator = np.random.default_rng(0)
    inputs = 0.75 * (generator.random((40, 4, 20)) < 0.4)
    planted = {"post_pre": 0.73, "post_pre2": 0.4}
    (edge,) = equation(simulated(planted, generator, inputs)).edges
    found["0.73 post pre + 0.40 post pre^2 at inputs 0 and .75"] = edge.text
    return found


def separated(seeds: Sequence[int]) -> dict[str, Any]:
    """Target 6: rules that are equal on the data, and whether the proposed experiment tells which one it was."""
    cases = {
        "0 or 1": ({"post_pre": 1.0}, {"post_pre2": 1.0}, lambda g: (g.random((40, 4, 20)) < 0.4).astype(float)),
        "-1 or 1": ({"post": 1.0}, {"post_pre2": 1.0}, lambda g: np.sign(g.normal(size=(40, 4, 20)))),
    }
    found = {}
    for name, (one, other, draw) in cases.items():
        ambiguous, right, difference, told = [], [], [], []
        for seed in seeds:
            for truth, rival in ((one, other), (other, one)):
                generator = np.random.default_rng(seed)
                recording = simulated(truth, generator, draw(generator))
                pairs = rivals(recording, rules={"truth": truth, "rival": rival})
                ambiguous.append(len(pairs) == 1)
                if not pairs or pairs[0].experiment is None:
                    right.append(False)
                    continue
                experiment = pairs[0].experiment
                difference.append(experiment.difference)
                shown = experiment.inputs.reshape(32, 2, -1)
                again = simulated(truth, generator, shown, start=recording.weights[EDGE][-1], noise=(0.1, 0.0))
                shares = [share(again, rule) for rule in (truth, rival)]
                right.append(shares[0] > shares[1] + 0.1 and not rivals(again, rules={"a": truth, "b": rival}))
                told.append({*equation(again).edges[0].selection.support} == {*truth})
        found[f"inputs {name}"] = {
            "called ambiguous": f"{sum(ambiguous)}/{len(ambiguous)}",
            "right one told after the experiment": f"{sum(right)}/{len(right)}",
            "found from the whole vocabulary after it": f"{sum(told)}/{len(told)}",
            "difference that was foretold": summary(difference),
        }
    return found


def share(recording: Recording, rule: Mapping[str, float]) -> float:
    """Share of the changes that a rule explains, its size fitted."""

    table = normal(read(recording)[0], [term(name) for name in rule])
    return select(table, "aic", 0).r2


TARGETS = {
    "from activity": from_activity,
    "Adam": by_adam,
    "weights at every tenth update": from_coarse,
    "local rules": local_rules,
    "feedback": fitted_feedback,
    "collinear inputs": collinear,
    "rivals": separated,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where figures.json goes")
    parser.add_argument("--only", nargs="*", choices=list(TARGETS), default=list(TARGETS), help="some of the targets")
    parser.add_argument("--quick", action="store_true", help="two seeds in place of ten")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    seeds = SEEDS[:2] if asked.quick else SEEDS
    found: dict[str, Any] = {"seeds": list(seeds)}
    for name in asked.only:
        # Adam takes half a minute a seed
        found[name] = TARGETS[name](seeds[:3] if name == "Adam" else seeds)
        print(json.dumps(jsonable({name: found[name]}), indent=1), flush=True)
    written(asked.folder, found)


if __name__ == "__main__":
    main()
