"""Is a black-box rule's equation found from what it does: by our own terms, and by symbolic regression beyond them?

Rules with coefficients drawn per seed are shown as changes at probe signals only; found is what acts the same up to
a factor, within 5 % at every probe.

    python analysis/distilled.py
"""

from __future__ import annotations

import torch

from metarule.distillation import MissingError, distilled
from metarule.evaluation import interval
from metarule.rng import noise_for
from metarule.rules.expression import Expression
from metarule.symbolic import equivalent

SEEDS = 5

RULE = Expression(
    ("pre", "post", "weight", "reward"), ("add", "sub", "mul", "tanh", "sign", "square"), nodes=12, constants=2
)

PLANTED = {
    "Oja": "a * (pre * post - post * post * weight)",
    "rewarded Hebb with decay": "a * reward * pre * post - b * weight",
    "a fixed threshold": "pre * post * (post - a)",
    "a saturating reward": "a * tanh(reward) * pre * post - b * weight",
    "signs only": "sign(pre * post)",
}


def main() -> None:
    torch.set_num_threads(1)
    for name, program in PLANTED.items():
        for by in ("terms", "operon"):
            try:
                lines = [attempt(program, by, seed) for seed in range(SEEDS)]
            except MissingError as error:
                print(f"{name}, by {by}: {error}")
                continue
            shares = interval([share for _, share, _ in lines])
            found = sum(same for same, _, _ in lines)
            print(f"{name}, by {by}: {found} of {SEEDS}, held-out share {shares[0]:.4f} ", end="")
            print(f"[{shares[1]:.4f}, {shares[2]:.4f}]; seed 0: dW = {lines[0][2]}", flush=True)


def attempt(program: str, by: str, seed: int) -> tuple[bool, float, str]:
    """Was it found, the held-out share, and the equation."""
    numbers = noise_for([("distilled", seed)]).uniform(2, low=0.3, high=1.5)[0].tolist()
    row = RULE.row({"out": program}, dict(zip("ab", numbers, strict=True)), rate=1.0)
    planted = RULE.equation(row, (1, 1))
    assert planted is not None
    found = distilled(RULE, row, by=by)
    return equivalent(found.expression, planted, tolerance=0.05), found.r2_held_out, str(found.expression)


if __name__ == "__main__":
    main()
