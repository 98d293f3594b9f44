"""How does a deep linear network learn? The library's own backprop against the closed form of each mode's course.

Of white inputs and a map with singular values s, two layers learn each mode on its own, from strength u0:
u(t) = s e^(2st) / (e^(2st) - 1 + s/u0), t in steps times rate, and a^2 - b^2 of the layers' shares is conserved.
L layers that start alike follow du/dt = L u^(2 - 2/L) (s - u) (Saxe, McClelland and Ganguli, 2014). Of small random
weights the part c = (W1 v + W2^T u) / 2 grows, so that u0 = |c|^2 foretells when a mode is half learned: strong ones
first, which in a tree of items are the broad distinctions (Saxe, McClelland and Ganguli, 2019).

    python analysis/deep_linear.py [FOLDER]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.integrate import solve_ivp
from torch import Tensor

from metarule.inner import Reference, Runs
from metarule.inspection.figures import PALETTE, dress, keep
from metarule.network import Network
from metarule.rng import Noise, noise_for
from metarule.tasks.linear_map import LinearMap
from metarule.zoo import ZOO

STRENGTHS = (5.0, 3.0, 1.0, 0.5)
SHARES = ((1.6, 0.02), (0.8, 0.02), (0.05, 0.05), (0.02, 0.8), (0.02, 1.6))
PANELS = (
    ("Modes are learned one by one", "time (steps × rate)", "strength u"),
    ("Distance from theory: first order in the rate", "rate", "largest |simulated - closed form|"),
    ("$a^2 - b^2$ is conserved", "share of the first layer, a", "share of the second layer, b"),
    ("Deeper: $du/dt = L\\,u^{2-2/L}\\,(s - u)$", "time (steps × rate)", "strength u"),
    ("Small random weights: strong modes first", "half-time foretold (steps × rate)", "half-time measured"),
    ("A tree of items: broad distinctions first", "time (steps × rate)", "strength u / s"),
)

Start = Callable[[Network, Tensor, Tensor, Noise], dict[str, Tensor]]
"""(network, left and right singular vectors (R I K) and (R J K), noise) -> initial weights."""


class Course(NamedTuple):
    """What R networks went through: S times, K modes, and the weights of every layer (R S I J)."""

    times: Float[Tensor, "S"]
    left: Float[Tensor, "R 1 I K"]
    right: Float[Tensor, "R 1 J K"]
    weights: list[Tensor]

    @property
    def strength(self) -> Float[Tensor, "R S K"]:
        """u^T W_L ... W_1 v of every mode."""
        through = self.right
        for weight in self.weights:
            through = weight @ through
        return (self.left * through).sum(2)


def course(
    task: LinearMap, hidden: tuple[int, ...], rate: float, time: float, start: Start | None = None, runs: int = 1
) -> Course:
    """Train `runs` linear networks for `time`, from small random weights where no `start` is given."""
    sizes = (task.inputs, *hidden, task.outputs)
    network = Network.chain(sizes, "linear", "linear", init="gaussian", init_scale=1e-3)
    learner = ZOO["backprop"].learner(network)
    theta = torch.full((1, 1), rate, dtype=torch.float64)
    noise = noise_for([(0, "episode", run) for run in range(runs)])
    left, right = modes(task, noise)[1:]
    state = learner.init(learner.columns(theta.expand(runs, 1)), noise)
    if start:
        state["weights"] = start(network, left, right, noise)
    steps = round(time / rate)
    record = Reference(dtype=torch.float64).evaluate(
        learner, theta, task, Runs((0,), tuple(range(runs))), range(steps), task.items,
        record=max(1, steps // 200), carry=state,
    ).record  # fmt: skip
    assert record is not None
    weights = [record.series[f"weights/{projection.name}"] for projection in network.projections]
    return Course(torch.tensor(record.steps, dtype=torch.float64) * rate, left[:, None], right[:, None], weights)


def modes(task: LinearMap, noise: Noise) -> tuple[Tensor, Tensor, Tensor]:
    """Singular values (K), left (R I K) and right vectors (R J K) of the maps that the runs of `noise` are to learn."""
    left, values, right = torch.linalg.svd(task.sample(noise.at("data"), task.items).map, full_matrices=False)
    count = int((values[0] > 1e-9).sum())
    return values[0, :count], left[:, :, :count], right.transpose(1, 2)[:, :, :count]


def decoupled(shares: Float[Tensor, "R L K"]) -> Start:
    """W_l = B_l diag(share_l) B_(l-1)^T with orthonormal B, from right to left singular vectors: no mode is mixed."""

    def start(network: Network, left: Tensor, right: Tensor, noise: Noise) -> dict[str, Tensor]:
        inner = [noise.at("basis", each.name).orthonormal(each.size, right.shape[2]) for each in network.populations]
        bases = [right, *inner[1:-1], left]
        return {
            projection.name: torch.einsum("rik,rk,rjk->rij", bases[layer + 1], shares[:, layer], bases[layer])
            for layer, projection in enumerate(network.projections)
        }

    return start


def alike(start: float, layers: int, count: int) -> Start:
    """The decoupled start in which each of `count` modes has strength `start`, shared equally by the layers."""
    return decoupled(torch.full((1, layers, count), start ** (1 / layers), dtype=torch.float64))


def closed_form(strength: Tensor, start: Tensor | float, times: Float[Tensor, "S"]) -> Float[Tensor, "K S"]:
    """u(t) of two layers whose shares start equal."""
    return strength[:, None] / (1 + (strength / start - 1)[:, None] * torch.exp(-2 * strength[:, None] * times))


def integrated(strength: float, start: float, layers: int, times: Float[Tensor, "S"]) -> Float[Tensor, "S"]:
    """u(t) of `layers` layers that start alike, by numerical integration."""
    span, at = (0.0, float(times[-1])), times.numpy()
    found = solve_ivp(lambda _, u: layers * u ** (2 - 2 / layers) * (strength - u), span, [start], t_eval=at, rtol=1e-9)
    return torch.as_tensor(found.y[0])


def half_time(times: Float[Tensor, "S"], course: Float[Tensor, "S"], strength: float) -> float:
    """When a course passes half its end, on a straight line between snapshots."""
    place = int((course >= strength / 2).nonzero()[0])
    return float(np.interp(strength / 2, course[place - 1 : place + 1], times[place - 1 : place + 1]))


def maps(*strengths: float) -> LinearMap:
    """Random maps with these singular values."""
    return LinearMap(items=6, properties=5, problem="modes", singular_values=strengths)


def two_layers(time: float = 10.0, rates: tuple[float, ...] = (0.01, 0.003, 0.001)) -> dict[str, Any]:
    """Four modes at the last rate, and at every rate the largest distance from the closed form."""
    strengths, start = torch.tensor(STRENGTHS, dtype=torch.float64), 0.01
    found: dict[str, Any] = {"strengths": STRENGTHS, "start": start, "rates": rates, "largest_gap": []}
    for rate in rates:
        seen = course(maps(*STRENGTHS), (8,), rate, time, alike(start, 2, len(STRENGTHS)))
        simulated, expected = seen.strength[0].T, closed_form(strengths, start, seen.times)
        found["largest_gap"].append(float((simulated - expected).abs().max()))
        found |= {"times": seen.times.tolist(), "simulated": simulated.tolist(), "closed_form": expected.tolist()}
    return found | {"order": float(np.polyfit(np.log(rates), np.log(found["largest_gap"]), 1)[0])}


def conserved(strength: float = 2.0, rate: float = 2e-3, time: float = 4.0) -> dict[str, Any]:
    """Shares a and b of one mode in its two layers, from unequal starts; the drift of a^2 - b^2 in units of s."""
    starts = torch.tensor(SHARES, dtype=torch.float64)[:, :, None]
    seen = course(maps(strength), (8,), rate, time, decoupled(starts), runs=len(starts))
    first = (seen.weights[0] @ seen.right).norm(dim=2)[..., 0]
    last = (seen.weights[1].transpose(2, 3) @ seen.left).norm(dim=2)[..., 0]
    kept = first.square() - last.square()
    drift = float((kept - kept[:, :1]).abs().max()) / strength
    return {"strength": strength, "rate": rate, "drift": drift, "first": first.tolist(), "last": last.tolist()}


def deeper(
    layers: tuple[int, ...] = (2, 3, 4, 8), strength: float = 2.0, start: float = 0.1, rate: float = 2e-3
) -> dict[str, Any]:
    """One mode in deeper networks against its equation, integrated."""
    found: dict[str, Any] = {"strength": strength, "rate": rate, "layers": layers, "simulated": [], "integrated": []}
    for depth in layers:
        seen = course(maps(strength), (8,) * (depth - 1), rate, 3.0, alike(start, depth, 1))
        found["times"] = seen.times.tolist()
        found["simulated"].append(seen.strength[0, :, 0].tolist())
        found["integrated"].append(integrated(strength, start, depth, seen.times).tolist())
    return found | {"largest_gap": float(np.abs(np.subtract(found["simulated"], found["integrated"])).max())}


def from_random(task: LinearMap, time: float, runs: int = 8, rate: float = 2e-3) -> dict[str, Any]:
    """When small random weights have half learned each mode, and when their growing part says they will."""
    seen = course(task, (64,), rate, time, runs=runs)
    strengths = modes(task, noise_for([(0, "episode", 0)]))[0]
    grows = seen.weights[0][:, :1] @ seen.right + seen.weights[1][:, :1].transpose(2, 3) @ seen.left
    start = grows.square().sum(2)[:, 0] / 4  # R K
    reached = [[half_time(seen.times, run[:, k], float(s)) for run in seen.strength] for k, s in enumerate(strengths)]
    return {
        "strengths": strengths.tolist(), "times": seen.times.tolist(),
        "simulated": seen.strength[0].T.tolist(), "foretold": closed_form(strengths, start[0], seen.times).tolist(),
        "half_times": reached, "mean_half_times": [float(np.mean(each)) for each in reached],
        "foretold_half_times": (torch.log(strengths / start - 1) / (2 * strengths)).T.tolist(),
    }  # fmt: skip


def numbers() -> dict[str, Any]:
    """Everything that the figure shows."""
    return {
        "two_layers": two_layers(), "conserved": conserved(), "deeper": deeper(),
        "random": from_random(maps(*STRENGTHS), time=18.0), "tree": from_random(LinearMap(), time=9.0),
    }  # fmt: skip


def figure(found: dict[str, Any]) -> Figure:
    """Theory as lines, the library's learners as points."""
    drawn = Figure(figsize=(11.0, 6.6), layout="constrained")
    panels = list(drawn.subplots(2, 3).flat)
    for axes, (title, across, up) in zip(panels, PANELS, strict=True):
        axes.set(xlabel=across, ylabel=up)
        axes.set_title(title, loc="left", fontsize="medium")
        dress(axes)
    two, shares, deep, random, tree = found.values()
    names = [f"s = {s:g}" for s in two["strengths"]]
    _against(panels[0], two["times"], two["simulated"], two["closed_form"], names)
    for s, name in zip(two["strengths"], names, strict=True):
        panels[0].text(two["times"][-1], s + 0.1, name, ha="right")
    panels[1].loglog(two["rates"], two["largest_gap"][-1] * np.array(two["rates"]) / two["rates"][-1], label="∝ rate")
    panels[1].loglog(two["rates"], two["largest_gap"], "o", color=PALETTE[0], label=f"fitted order {two['order']:.3f}")
    panels[1].set_yticks([0.01, 0.03, 0.1], ["0.01", "0.03", "0.1"])
    panels[1].set_xticks(two["rates"], [f"{rate:g}" for rate in two["rates"]])
    along = np.linspace(0.01, 2.4, 300)
    for place, (a, b) in enumerate(zip(shares["first"], shares["last"], strict=True)):
        square = along**2 - a[0] ** 2 + b[0] ** 2
        panels[2].plot(along[square > 0], np.sqrt(square[square > 0]), color=PALETTE[place])
        panels[2].plot(a[::8], b[::8], "o", color=PALETTE[place], ms=3.5, mfc="white")
    panels[2].plot(along, shares["strength"] / along, color="0.5", ls="--")
    panels[2].text(0.82, 2.2, "ab = s", ha="right", color="0.3")
    panels[2].set(xlim=(0, 2.4), ylim=(0, 2.4), aspect="equal")
    _against(panels[3], deep["times"], deep["simulated"], deep["integrated"], [f"L = {L}" for L in deep["layers"]])
    for place, (foretold, measured) in enumerate(zip(random["foretold_half_times"], random["half_times"], strict=True)):
        panels[4].loglog(foretold, measured, "o", color=PALETTE[place], ms=4, mfc="white", label=names[place])
    panels[4].loglog([1, 16], [1, 16], color="0.5", lw=1, zorder=0)
    for axis in (panels[4].xaxis, panels[4].yaxis):
        axis.set_ticks([1, 2, 5, 10], ["1", "2", "5", "10"])
    end = np.array(tree["strengths"])[:, None]
    kinds = ("all", "halves", "pairs", "pairs")
    labels = [f"{kind}, s = {s:.2f}" for kind, s in zip(kinds, tree["strengths"], strict=True)]
    _against(panels[5], tree["times"], np.array(tree["simulated"]) / end, np.array(tree["foretold"]) / end, labels)
    panels[5].set(ylim=(-0.05, 1.7), yticks=[0, 0.25, 0.5, 0.75, 1])
    for axes, place in ((panels[1], "upper left"), (panels[3], "lower right"), (panels[4], "upper left")):
        axes.minorticks_off()
        axes.legend(frameon=False, loc=place)
    panels[5].legend(frameon=False, loc="upper left", ncols=2, fontsize="small", handlelength=1.2, columnspacing=1.0)
    return drawn


def _against(axes: Axes, times: list[float], simulated: Any, theory: Any, labels: list[str]) -> None:
    for place, (points, line, label) in enumerate(zip(simulated, theory, labels, strict=True)):
        axes.plot(times, line, color=PALETTE[place], label=label)
        axes.plot(times[::8], points[::8], "o", color=PALETTE[place], ms=3.5, mfc="white")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for file in keep(Path(sys.argv[1] if sys.argv[1:] else "runs/analysis"), "deep_linear", numbers(), figure):
        print(file)
