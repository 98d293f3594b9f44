"""Why start orthogonal? What twenty random layers do to a vector, and how long deep linear networks then take to learn.

A product of orthogonal matrices keeps every length: all its singular values are 1 (dynamical isometry). A product of
Gaussian matrices of variance 1/J keeps lengths only on average: it stretches few directions and loses all others. Hence
the learning time, at the best rate for each depth, does not grow with depth from an orthogonal start, and does from a
Gaussian one (Saxe, McClelland and Ganguli, 2014).

    python analysis/isometry.py [FOLDER]
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from statistics import median
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from metarule.inner import Reference, Runs
from metarule.inspection.figures import PALETTE, dress, keep
from metarule.network import Network
from metarule.rng import noise_for
from metarule.tasks.linear_map import LinearMap
from metarule.zoo import ZOO

INITS = ("orthogonal", "gaussian")
DEPTHS = (2, 4, 8, 16, 32)
RATES = tuple(10 ** (-each / 4) for each in range(1, 10))
LEARNED, MOST = 0.1, 400
"""The NMSE from which on a map counts as learned, and the steps after which a network is given up."""

LOST = 600
"""Where the figure shows a run that was given up."""


def singular_values(init: str, layers: int = 20, size: int = 100) -> Float[Tensor, "J"]:
    """Singular values of the product of `layers` initial weight matrices, the largest first."""
    network = Network.chain((size,) * (layers + 1), "linear", "linear", init=init)
    noise = noise_for([(0, "episode", 0)])
    product = torch.eye(size, dtype=torch.float64)[None]
    for projection in network.projections:
        product = network.draw(projection, noise) @ product
    return torch.linalg.svdvals(product)[0]


def learning_times(init: str, layers: int, episodes: int = 8, rates: tuple[float, ...] = RATES) -> Tensor:
    """Steps until a network of `layers` layers has learned, by rate and episode (C E), looked at every second one.

    All run side by side, until one rate has learned all episodes; inf where a run has not learned by then.
    """
    task = LinearMap(items=10, properties=10, problem="modes", singular_values=(1.0, 0.8, 0.6, 0.4))
    network = Network.chain((task.items,) * (layers + 1), "linear", "linear", init=init)
    learner = ZOO["backprop"].learner(network)
    theta = torch.tensor(rates, dtype=torch.float64)[:, None]
    runs = Runs(tuple(range(len(rates))), tuple(range(episodes)))
    taken = torch.full((len(rates), episodes), math.inf)
    carry = None
    for done in range(2, MOST + 1, 2):
        outcome = Reference(dtype=torch.float64).evaluate(
            learner, theta, task, runs, range(done - 2, done), task.items, frozenset({"loss", "carry"}), carry=carry
        )
        carry = outcome.carry
        taken[(outcome.loss[..., 0] < LEARNED) & taken.isinf()] = done
        if taken.isfinite().all(dim=1).any():
            break
    return taken


def at_best_rate(taken: Float[Tensor, "C E"]) -> list[float]:
    """Steps by episode at the rate that most runs learn with, the quickest of these; inf where one has not learned."""
    return min(
        taken.tolist(), key=lambda steps: (steps.count(math.inf), sum(each for each in steps if each < math.inf))
    )


def numbers() -> dict[str, Any]:
    """Everything that the figure shows."""
    spectra = {init: singular_values(init).tolist() for init in INITS}
    steps = {init: [at_best_rate(learning_times(init, layers)) for layers in DEPTHS] for init in INITS}
    medians = {init: [median(each) for each in found] for init, found in steps.items()}
    return {"singular_values": spectra, "depths": DEPTHS, "steps": steps, "median_steps": medians}


def figure(found: dict[str, Any]) -> Figure:
    """Spectra on the left, learning times on the right."""
    drawn = Figure(figsize=(9.6, 3.8), layout="constrained")
    left, right = drawn.subplots(1, 2)
    depths = found["depths"]
    for place, init in enumerate(INITS):
        color, values = PALETTE[place], found["singular_values"][init]
        left.semilogy(range(1, len(values) + 1), values, ".", color=color, label=init)
        middles = [min(each, LOST) for each in found["median_steps"][init]]
        right.loglog(depths, middles, color=color, label=f"{init}, median of 8")
        for depth, steps in zip(depths, found["steps"][init], strict=True):
            # eight equal numbers are one point: spread them a little
            across = depth * 1.015 ** (torch.arange(len(steps)) - (len(steps) - 1) / 2)
            right.plot(across, [min(each, LOST) for each in steps], "o", color=color, mfc="white", ms=3.5)
    left.axhline(1.0, color="0.5", lw=0.8, zorder=0)
    left.set(xlabel="rank", ylabel="singular value", ylim=(1e-18, 1e3))
    right.set(xlabel="layers", ylabel=f"steps to NMSE {LEARNED}, best rate", ylim=(2, 900))
    right.set_xticks(depths, [str(depth) for depth in depths])
    right.set_yticks([5, 10, 20, 50, 100, 200, 400, LOST], ["5", "10", "20", "50", "100", "200", "400", "not in 400"])
    right.minorticks_off()
    for axes, title in ((left, "20 random layers of 100 units"), (right, "Deep linear networks, 10 units wide")):
        axes.set_title(title, loc="left", fontsize="medium")
        dress(axes)
    left.legend(frameon=False, loc="lower left")
    right.legend(frameon=False, loc="lower right")
    return drawn


if __name__ == "__main__":
    torch.set_num_threads(1)
    for file in keep(Path(sys.argv[1] if sys.argv[1:] else "runs/analysis"), "isometry", numbers(), figure):
        print(file)
