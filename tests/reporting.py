"""What tests of reports show: a document with every section that an inspection can have."""

from __future__ import annotations

import math
from typing import Any

LAYERS = ("input->hidden1", "hidden1->hidden2", "hidden2->output")
STEPS = list(range(0, 251, 25))
TERMS = {"error_pre": 0.31, "error_pre_error": 1.22, "subspace_oja": 0.32, "weight_decay": 0.001}
LEARNERS = {"discovered": 0.824, "backprop": 0.802, "feedback_alignment": 0.321}
CONDITIONS = (
    ("width", "twice the width", True), ("width", "half the width", True), ("depth", "one more layer", True),
    ("depth", "one layer less", None), ("data", "Gaussian clusters", False), ("noise", "label noise 0.2", True),
    ("order", "one class after another", False), ("batch", "batches of 8", None),
)  # fmt: skip


def interval(mean: float, half: float) -> dict[str, float]:
    """A mean with a symmetric interval."""
    return {"mean": mean, "low": mean - half, "high": mean + half}


def rows(shift: float = 0.0, **more: Any) -> list[dict[str, Any]]:
    """The battery of three learners."""
    common = {"task": "few_shot", "metric": "accuracy", "episodes": 40, "seeds": 1}
    return [{"learner": name, **common, **interval(mean + shift, 0.015), **more} for name, mean in LEARNERS.items()]


def differences(shift: float = 0.0, **more: Any) -> list[dict[str, Any]]:
    """The discovered rule against its baselines."""
    return [
        {
            "learner": "discovered",
            "other": name,
            "metric": "accuracy",
            **interval(0.824 - mean + shift, 0.018),
            **more,
        }
        for name, mean in list(LEARNERS.items())[1:]
    ]


def stress() -> dict[str, Any]:
    """Every condition, every verdict, knock-outs and knock-ins."""
    size = {"True": 0.02, "False": -0.15, "None": -0.005}
    return {
        "rows": rows(condition="own task", group="own task", detail="1078 images")
        + [
            row
            for group, name, holds in CONDITIONS
            for row in rows(size[str(holds)], condition=name, group=group, detail=name)
        ],
        "differences": [gap for _, name, holds in CONDITIONS for gap in differences(size[str(holds)], condition=name)],
        "verdicts": [
            {"condition": name, "group": group, "holds": holds, "sentence": f"With {name}: {holds}."}
            for group, name, holds in CONDITIONS
        ],
        "knockouts": [
            {
                "term": term,
                "kind": kind,
                "metric": "accuracy",
                **interval(0.5, 0.03),
                "change": interval(-0.3 * value, 0.03),
                "necessary": value > 1,
                "sentence": f"without {term} it loses {30 * value:.0f} points: no gain is shown",
            }
            for kind in ("knock-out", "knock-in")
            for term, value in TERMS.items()
        ],
        "notes": [],
        "how": "The rule kept its numbers; every baseline was tuned under each condition.",
        "episodes": 40,
        "seeds": 1,
        "seconds": 12.0,
    }


def probes() -> dict[str, Any]:
    """Two probes over training, in every layer."""

    def over(start: float, end: float, layer: int) -> dict[str, Any]:
        mean = [end + (start - end) * math.exp(-step / (40 + 30 * layer)) for step in STEPS]
        return {"steps": STEPS, "mean": mean, "low": [x * 0.95 for x in mean], "high": [x * 1.05 for x in mean]}

    def curve(name: str, label: str, unit: str, start: float, end: float) -> dict[str, Any]:
        layers = {layer: over(start, end * (1 + 0.15 * k), k) for k, layer in enumerate(LAYERS)}
        return {"name": name, "label": label, "unit": unit, "layers": layers, "sentence": f"The {label} falls."}

    return {
        "curves": [
            curve("angle_to_backprop", "angle to backprop", "degrees", 90.0, 45.0),
            curve("orthonormality", "distance from orthonormal rows", "", 1.0, 0.2),
        ],
        "curl": {"asymmetry": interval(0.4, 0.02), "sentence": "The rule is not the gradient of anything."},
        "fixed_points": [{"layer": LAYERS[0], "drift": 0.01, "sentence": f"{LAYERS[0]} comes to rest."}],
        "contrasts": [
            {
                "term": "subspace_oja",
                "to": ["error_pre"],
                "probe": "orthonormality",
                "layer": layer,
                "with": 0.2,
                "without": 0.9,
                "difference": interval(-0.7, 0.05),
                "sentence": "Oja makes rows orthonormal.",
            }
            for layer in (*LAYERS, "mean of layers")
        ],
        "episodes": 5,
        "sentences": ["Oja makes rows orthonormal and does not align."],
    }


def surfaces() -> dict[str, Any]:
    """A surface with a ridge, 21 x 21."""
    ends = [-2 + 0.2 * k for k in range(21)]
    change = [[x * y - y * y * 0.5 for x in ends] for y in ends]
    signals = {"rule": "forward", "x": "pre", "y": "post", "held": {"error": 1.0, "weight": 0.1}}
    return {"surfaces": [signals | {"x_values": ends, "y_values": ends, "change": change, "equation": None}]}


def document(name: str = "made") -> dict[str, Any]:
    """A finished run with everything that can be known of it."""
    losses = [2.0 * math.exp(-k / 6) + 0.5 for k in range(30)]
    equation = "dW = 0.0338·error·pre + 0.132·error·pre_error + 0.0351·post·(pre - reconstruction)"
    return {
        **{"schema": 1, "name": name, "run": f"runs/{name}", "task": "few_shot", "credit": "feedback_alignment"},
        **{"model": None, "structure": {}, "outer": "cma_es", "generations": 30, "planned": 30, "finished": True},
        "equation": equation,
        "latex": [r"\Delta W = 0.0338 error pre"],
        "equations": [
            {
                "rule": "forward",
                "name": "dW",
                "text": equation,
                "latex": r"\Delta W = 0.0338 error pre",
                "sympy": equation.removeprefix("dW = ").replace("·", "*"),
            }
        ],
        "terms": [
            {
                **{"name": term, "raw": value / 10, "normalised": value, "low": 0.9 * value, "high": 1.2 * value},
                **{"known_as": f"{term} (literature)", "source": "2023", "local": term != "subspace_oja"},
                "seeds": {"values": [value], "mean": value, "low": 0.8 * value, "high": 1.1 * value},
            }
            for term, value in TERMS.items()
        ],
        "theta": TERMS,
        "objectives": ["held_out_loss"],
        "learning_curve": [
            {
                "generation": k,
                "loss_mean": None if k == 3 else loss,
                "loss_best": 0.9 * loss,
                "scores": {"held_out_loss": loss, "accuracy": 1 - loss / 4},
            }
            for k, loss in enumerate(losses)
        ],
        "coefficients": {term: [value * (1 - 0.9**k) for k in range(30)] for term, value in TERMS.items()},
        "battery": rows(),
        "differences": differences(),
        "tunings": {
            "backprop": {"best": 0.035, "bracketed": True},
            "feedback_alignment": {"best": 0.05, "bracketed": False},
        },
        "trained_on": "1078 images",
        "tested_on": "719 images",
        "front": [],
        "locality": {
            "local": False,
            "level": "layer",
            "sentence": "subspace_oja reads a sum over the layer.",
            "signals": [
                {"name": "pre", "side": "pre", "local": True, "meaning": "activity before the synapse"},
                {"name": "reconstruction", "side": "pre", "local": False, "meaning": "W^T post"},
            ],
            "credit": {"kind": "feedback_alignment", "sentence": "Errors come through fixed random weights."},
        },
        "nearest": [
            {
                **{"name": rule, "distance": distance, "cosine": 1 - distance, "equivalent": distance < 0.1},
                **{"summary": "a rule", "source": "Somebody (1989)"},
            }
            for rule, distance in (("pseudo_gradient", 0.05), ("oja", 0.6), ("hebb", 0.9))
        ],
        "known_as": None,
        "identifiability": {
            "method": "Hessian",
            "sentence": "3 of 4 directions are determined.",
            "spectrum": [
                {
                    "eigenvalue": 10.0**-k,
                    "share": 0.9 * 10.0**-k,
                    "determined": k < 3,
                    "direction": {term: 0.97, "error_pre": 0.2},
                }
                for k, term in enumerate(TERMS)
            ],
            "null_terms": [{"name": "weight_decay", "share": 0.0001, "sentence": "weight_decay does nothing here."}],
            "reduced_equation": "dW = 0.0338·error·pre",
            "classes": [{"members": ["made", "other"], "sentence": "made and other act the same."}],
        },
        "provenance": {
            "command": f"metarule search first_rule --seed 0 --name {name}",
            "versions": {"metarule": "0.1.0", "torch": "2.13.0"},
            "seeds": {"search": 0},
            "search": {"task": {"kind": "few_shot", "ways": 5}, "outer": {"kind": "cma_es", "sigma": 0.3}},
            "search_sha256": "0" * 64,
        },
        "stress": stress(),
        "probes": probes(),
        "surfaces": surfaces(),
        "distilled": [
            {"rule": "forward", "equation": "dW = post·pre - post²·weight", "by": "regression", "r2_held_out": 0.998}
        ],
    }


def episodes() -> dict[str, dict[str, list[float]]]:
    """Forty episodes per learner; one of them diverged."""
    found = {name: {"accuracy": [mean + 0.1 * math.sin(7 * k) for k in range(40)]} for name, mean in LEARNERS.items()}
    found["feedback_alignment"]["accuracy"][3] = math.inf
    return found


def comparison() -> dict[str, Any]:
    """Two runs compared."""
    runs = [document("first"), document("second")]
    runs[1]["learning_curve"] = runs[1]["learning_curve"][:20]
    pair = {"a": "first", "b": "second", "task": "few_shot", "episodes": 40, "seeds": 1}
    curves = [[line["loss_mean"] for line in run["learning_curve"]] for run in runs]
    panel = {"task": "few_shot", "number": "held_out_loss", "title": "held out loss", "falls": True}
    return {
        "runs": runs,
        "notes": ["second is not finished"],
        "panels": [panel | {"lines": [{"run": place, "values": values} for place, values in enumerate(curves)]}],
        "coefficients": [
            {"name": term, "values": [value, -value if value < 0.1 else None]} for term, value in TERMS.items()
        ],
        "batteries": [
            {"task": "few_shot", "metric": "accuracy", "learner": name}
            | {"values": [interval(mean, 0.02), interval(mean - 0.01, 0.02)]}
            for name, mean in LEARNERS.items()
        ],
        "tests": [
            pair | {"metric": "accuracy", **interval(0.01, 0.004), "p": 0.0001, "p_holm": 0.0001},
            pair | {"metric": "held_out_loss", **interval(-0.01, 0.02), "p": 0.3, "p_holm": 0.3},
        ],
        "pairing": "Runs of the same task and seed were tested on the same episodes.",
        "test": "Student's paired t-test",
        "classes": [{"members": ["first", "second"], "sentence": "first and second act the same."}],
        "settings": [{"key": "search.seed", "values": [0, 1]}, {"key": "outer.sigma", "values": [0.3, None]}],
    }
