"""How an exported learner hears of its errors: the lines that carry them down, per kind of credit assignment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from metarule.credit import CreditAssignment
from metarule.exporting.torch_code import OpaqueError


class Path(NamedTuple):
    """`crosses` is what arrives below a layer whose error is `error`; `made` is B of place `place` or "" for none.

    `direct` paths come from the output in one go; `learns` where B changes as the weights do.
    """

    crosses: str
    says: str
    made: str = ""
    direct: bool = False
    learns: bool = False


BETWEEN = "[self.uniform(layer.in_features, layer.out_features) for layer in self.layers]"
FROM_OUTPUT = "[self.uniform(layer.in_features, self.layers[-1].out_features) for layer in self.layers]"
SIZE = "math.sqrt(2 / sum(layer.weight.shape))"


def _sign_symmetry(credit: Any) -> Path:
    if credit.magnitude == "fixed_random":
        return Path(
            "error @ (self.feedback[place].T.abs() * torch.sign(layer.weight))",
            "Errors return through weights with the sign of the forward ones and fixed random sizes.",
            BETWEEN,
        )
    if credit.magnitude != "uniform":
        raise OpaqueError(f"credit.magnitude = '{credit.magnitude}' draws new numbers at every step")
    return Path(
        f"{SIZE} * error @ torch.sign(layer.weight)",
        "Errors return through the signs of the forward weights, all of one size.",
    )


PATHS: dict[str, Callable[[Any], Path | None]] = {
    "backprop": lambda credit: Path("error @ layer.weight", "Errors return through the transposed forward weights."),
    "feedback_alignment": lambda credit: Path(
        "error @ self.feedback[place].T", "Errors return through fixed random weights.", BETWEEN
    ),
    "kolen_pollack": lambda credit: Path(
        "error @ self.feedback[place].T",
        "Errors return through weights of their own, which change as the forward ones do.",
        BETWEEN,
        learns=True,
    ),
    "sign_symmetry": _sign_symmetry,
    "direct_feedback_alignment": lambda credit: Path(
        "top @ self.feedback[place].T", "The output's error reaches every layer through fixed random weights.",
        FROM_OUTPUT, direct=True,
    ),
    "direct_random_target": lambda credit: Path(
        "y @ self.feedback[place].T", "The target itself reaches every layer through fixed random weights.",
        FROM_OUTPUT, direct=True,
    ),
    "none": lambda credit: None,
}  # fmt: skip
"""Kind of credit assignment -> the path of its errors; None where nobody teaches."""


def path_of(credit: CreditAssignment) -> Path | None:
    """The path of the errors of a credit assignment; raises OpaqueError where an exported file cannot carry them."""
    if credit.kind not in PATHS:
        raise OpaqueError(f"its credit.kind = '{credit.kind}' is none of {', '.join(PATHS)}")
    return PATHS[credit.kind](credit)
