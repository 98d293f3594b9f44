"""Does a wide random network fold or flatten its inputs? The length of a circle, layer by layer, against theory.

With weights N(0, gain^2 / J) and biases N(0, 0.3^2) a curve in the space of drives grows per layer by sqrt(chi),
chi = gain^2 E[tanh'(sqrt(q) z)^2] at the variance q that drives settle to: below 1 the network is ordered and inputs
meet, above 1 it is chaotic and near ones part (Poole et al., 2016). Lengths are those of a circle's tangents, carried
through the layers, so that a curve folded ever more finely is still measured whole.

    python analysis/curve_length.py [FOLDER]
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from metarule.inspection.figures import PALETTE, dress, keep
from metarule.mean_field import chi, variance
from metarule.network import Network
from metarule.rng import noise_for

GAINS = (0.8, 1.5, 2.5, 4.0)
BIAS = 0.3


def images(gain: float, size: int = 1000, layers: int = 10, points: int = 100) -> tuple[Tensor, Tensor]:
    """Drives that a circle of B points causes, and the tangents of their curve by angle, (L B I) each.

    The circle's radius is the one at which drives have their settled variance from the first layer on.
    """
    network = Network.chain((size,) * (layers + 1), "tanh", "linear", bias=True, init="gaussian", init_scale=gain)
    noise = noise_for([(0, "episode", 0)])
    weights = {projection.name: network.draw(projection, noise) for projection in network.projections}
    for name, weight in weights.items():
        weight[:, :, -1] = BIAS * noise.at("bias", name).normal(size)
    radius = math.sqrt(size * (variance("tanh", gain, BIAS) - BIAS**2)) / gain
    angle = torch.arange(points, dtype=torch.float64)[:, None] * (2 * math.pi / points)
    one, other = radius * noise.at("plane").orthonormal(2, size)[0]
    drives, rates = network.forward(weights, (angle.cos() * one + angle.sin() * other)[None])
    tangent = (angle.cos() * other - angle.sin() * one)[None]
    tangents = []
    for projection in network.projections:
        tangents.append(tangent @ weights[projection.name][:, :, :-1].transpose(1, 2))
        tangent = tangents[-1] * network.gain(projection.target, rates)
    return torch.cat([drives[projection.target] for projection in network.projections]), torch.cat(tangents)


def lengths(tangents: Float[Tensor, "L B I"]) -> Float[Tensor, "L"]:
    """Length of the curve in each layer."""
    return 2 * math.pi * tangents.norm(dim=2).mean(dim=1)


def growth(length: Float[Tensor, "L"]) -> float:
    """The factor per layer, the geometric mean over all layers."""
    return float((length[-1] / length[0]) ** (1 / (len(length) - 1)))


def theory(gain: float) -> float:
    """The factor per layer that mean-field theory says."""
    return math.sqrt(chi("tanh", gain, BIAS))


def numbers() -> dict[str, Any]:
    """Everything that the figure shows."""
    measured = [images(gain) for gain in GAINS]
    curves = [lengths(tangents) for _, tangents in measured]
    finer = [0.4 + 0.05 * place for place in range(80)]
    return {
        "gains": GAINS,
        "growth": [growth(curve) for curve in curves],
        "theory": [theory(gain) for gain in GAINS],
        "lengths": [(curve / curve[0]).tolist() for curve in curves],
        "variance": [float(drives.square().mean()) for drives, _ in measured],
        "variance_theory": [variance("tanh", gain, BIAS) for gain in GAINS],
        "curve": [finer, [theory(gain) for gain in finer]],
    }


def figure(found: dict[str, Any]) -> Figure:
    """Theory as lines, ten layers of 1000 units as points."""
    drawn = Figure(figsize=(9.6, 3.8), layout="constrained")
    left, right = drawn.subplots(1, 2)
    right.axhline(1.0, color="0.5", lw=0.8, zorder=0)
    right.plot(*found["curve"], color="0.3")
    for place, gain in enumerate(found["gains"]):
        layers = range(1, len(found["lengths"][place]) + 1)
        left.semilogy(layers, [found["theory"][place] ** (layer - 1) for layer in layers], color=PALETTE[place])
        left.semilogy(layers, found["lengths"][place], "o", color=PALETTE[place], mfc="white", label=f"gain {gain:g}")
        right.plot([gain], [found["growth"][place]], "o", color=PALETTE[place], mfc="white")
    left.set(xlabel="layer", ylabel="length of the curve / in layer 1")
    right.set(xlabel="gain of the weights", ylabel="growth per layer", ylim=(0.3, 1.7))
    right.text(4.3, 0.98, "order", ha="right", va="top", color="0.3")
    right.text(4.3, 1.01, "chaos", ha="right", va="bottom", color="0.3")
    left.legend(frameon=False)
    for axes, title in ((left, "A circle through ten layers of 1000 tanh units"), (right, "Growth per layer: √chi")):
        axes.set_title(title, loc="left", fontsize="medium")
        dress(axes)
    return drawn


if __name__ == "__main__":
    torch.set_num_threads(1)
    for file in keep(Path(sys.argv[1] if sys.argv[1:] else "runs/analysis"), "curve_length", numbers(), figure):
        print(file)
