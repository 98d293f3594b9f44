"""How long does a synapse remember? A population stores random patterns, one a step, each on top of all earlier ones.

A memory is a pattern of N bits, one change of +-1 per synapse. Its signal t memories later is the mean of bit times
weight, its noise the spread of weights over root N: SNR(t) = root N signal(t) / std. Weights that decay, in one part or
two, and chains of discrete states forget exponentially in the end: their lifetime, up to SNR = 1, grows as log N (Fusi,
Drew and Abbott, 2005; Lahiri and Ganguli, 2013). A chain of coupled variables fades as 1 / root t, and its lifetime
grows as N, as far as its slowest variable reaches (Benna and Fusi, 2016).

Lines are theory: the impulse response h of a linear model, from its own step, over the root of sum h^2; for Markov
synapses the curve of Lahiri and Ganguli, from their matrices. Dots are signals in simulated populations.

    python analysis/memory_lifetime.py [FOLDER]
"""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from metarule import tree
from metarule.inspection.figures import PALETTE, dress, keep
from metarule.rng import noise_for
from metarule.signals import Change, State
from metarule.synapses import SynapseModel
from metarule.synapses.benna_fusi import BennaFusi
from metarule.synapses.fast_slow import FastSlow
from metarule.synapses.markov import Markov, MarkovCascade, MarkovSerial
from metarule.synapses.sgd import Sgd

ONE = torch.ones(1, 1, dtype=torch.float64)
LINEAR: dict[str, SynapseModel] = {
    "sgd, decay 1/50": Sgd(weight_decay=0.02),
    "fast and slow": FastSlow(fading=0.1, consolidation=0.01, leak=0.001),
    "Benna-Fusi, 8 variables": BennaFusi(variables=8),
}
MARKOV: dict[str, Markov] = {
    "Markov row, 16 states": MarkovSerial(16, strength=1.0),
    "Markov cascade, 16 states": MarkovCascade(16, strength=1.0),
}
TIMES = torch.logspace(0, 7, 211, dtype=torch.float64).round().unique() - 1
SYNAPSES = tuple(10 ** (each / 2) for each in range(4, 17))
SHOWN = 1e4
"""N of the curves that the figure shows; lifetimes are over all of `SYNAPSES`."""


class Curve(NamedTuple):
    """signal(t) = sum_i share_i factor_i^t per synapse, and the standard deviation of a weight."""

    shares: Tensor
    factors: Tensor
    std: float

    def snr(self, times: Tensor, synapses: float) -> Tensor:
        """root N signal(t) / std."""
        signal = (self.shares * self.factors ** times[:, None]).real.sum(1)
        return math.sqrt(synapses) / self.std * signal

    def lifetime(self, synapses: float) -> float:
        """The last of `TIMES` up to which the signal to noise ratio is at least 1; 0 where it never is."""
        below = (self.snr(TIMES, synapses) < 1).nonzero()
        first = int(below[0]) if len(below) else len(TIMES)
        return float(TIMES[first - 1]) if first else 0.0


def modes(read: Tensor, matrix: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """read . matrix^t . start as shares and factors."""
    factors, vectors = torch.linalg.eig(matrix)
    return (read.to(vectors) @ vectors) * torch.linalg.solve(vectors, start.to(vectors)), factors


def linear(model: SynapseModel) -> Curve:
    """The impulse response of a linear model; a weight that has stored for ever has the variance sum h^2."""
    zero = torch.zeros(1, 1, 1, dtype=torch.float64)
    learned = stepped(model, {"weight": zero, "state": model.init(ONE, zero)}, 1.0)
    sizes = [leaf.numel() for leaf in tree.leaves(learned)]
    shapes = [leaf.shape[1:] for leaf in tree.leaves(learned)]
    # every number of the synapse starts as 1 in a run of its own: one silent step gives the columns of the matrix
    starts = torch.eye(sum(sizes), dtype=torch.float64).split(sizes, dim=1)
    parts = [start.reshape(-1, *shape) for start, shape in zip(starts, shapes, strict=True)]
    matrix = flattened(stepped(model, tree.rebuilt(learned, parts), 0.0)).T
    read = flattened({**tree.mapped(learned, torch.zeros_like), "weight": zero + 1})[0]
    shares, factors = modes(read, matrix, flattened(learned)[0])
    power = torch.outer(shares, shares) / (1 - torch.outer(factors, factors))
    return Curve(shares, factors, math.sqrt(float(power.real.sum())))


def stepped(model: SynapseModel, before: State, size: float) -> State:
    """Weight and state after one change of a size."""
    weight = before["weight"]
    noise = noise_for([("step", run) for run in range(len(weight))])
    change = Change(full=torch.full_like(weight, size))
    moved, state = model.step(ONE.expand(len(weight), 1), weight, change, 1.0, before["state"], noise)
    return {"weight": moved.apply(weight), "state": state}


def flattened(state: State) -> Float[Tensor, "R n"]:
    """All numbers of a synapse side by side."""
    return torch.cat([leaf.flatten(1) for leaf in tree.leaves(state)], dim=1)


def markov(model: Markov) -> Curve:
    """1/2 p_inf (M^pot - M^dep) M_F^t w with M_F = (M^pot + M^dep) / 2; weights +-1 have standard deviation 1."""
    potentiation, depression = model.matrices()
    forgetting = (potentiation + depression) / 2
    values, vectors = torch.linalg.eig(forgetting.T)
    resting = vectors[:, values.real.argmax()].real
    resting = resting / resting.sum()
    strengths = torch.sign(torch.arange(model.states, dtype=torch.float64) - (model.states - 1) / 2)
    shares, factors = modes(resting @ (potentiation - depression) / 2, forgetting, strengths)
    return Curve(shares, factors, 1.0)


def simulated(model: SynapseModel, synapses: int, runs: int, steps: int) -> tuple[list[float], list[float]]:
    """Ages and signals per synapse in populations that stored `steps` patterns, means over runs and a bin of ages."""
    rate = ONE.expand(runs, 1)
    streams = noise_for([("memory", run) for run in range(runs)])
    weight = streams.at("start").uniform(1, synapses, low=-1e-9, high=1e-9)
    state = model.init(rate, weight)

    def pattern(step: int) -> Tensor:
        return torch.sign(streams.at("pattern", step).uniform(1, synapses) - 0.5)

    for step in range(steps):
        change, state = model.step(rate, weight, Change(full=pattern(step)), 1.0, state, streams.at("step", step))
        weight = change.apply(weight)
    edges = [0, *torch.logspace(0, math.log10(steps), 40).round().unique().long().tolist()]
    ages, found = [], []
    for first, last in itertools.pairwise(edges):
        signals = [float((pattern(steps - 1 - age) * weight).mean()) for age in range(first, last)]
        ages.append((first + last - 1) / 2)
        found.append(sum(signals) / len(signals))
    return ages, found


def numbers(synapses: int = 2000, runs: int = 8, steps: int = 3000) -> dict[str, Any]:
    """Everything that the figure shows."""
    curves = {name: linear(model) for name, model in LINEAR.items()}
    curves |= {name: markov(model) for name, model in MARKOV.items()}
    found: dict[str, Any] = {"times": TIMES.tolist(), "synapses": SYNAPSES, "shown": SHOWN, "models": {}}
    for name, curve in curves.items():
        ages, signals = simulated({**LINEAR, **MARKOV}[name], synapses, runs, steps)
        found["models"][name] = {
            "snr": curve.snr(TIMES, SHOWN).tolist(),
            "simulated_ages": ages,
            "simulated_snr": [signal * math.sqrt(SHOWN) / curve.std for signal in signals],
            "lifetimes": [curve.lifetime(size) for size in SYNAPSES],
        }
    return found


def figure(found: dict[str, Any]) -> Figure:
    """Signal to noise over age on the left, lifetime over population size on the right."""
    drawn = Figure(figsize=(9.6, 4.2), layout="constrained")
    left, right = drawn.subplots(1, 2)
    for place, (name, model) in enumerate(found["models"].items()):
        color = PALETTE[place]
        ages = [age + 1 for age in found["times"]]
        left.loglog(ages, [each if each > 0 else math.nan for each in model["snr"]], color=color)
        seen = [age + 1 for age in model["simulated_ages"]]
        left.loglog(seen, model["simulated_snr"], "o", color=color, mfc="white", ms=3.5)
        lived = [each if each >= 1 else math.nan for each in model["lifetimes"]]
        right.loglog(found["synapses"], lived, ".-", color=color, ms=5, label=name)
    left.axhline(1.0, color="0.5", lw=0.8, zorder=0)
    left.text(1.7e4, 1.06, "forgotten below", color="0.4", fontsize="small", ha="right")
    left.set(xlabel="age + 1 (memories stored since)", ylabel="signal to noise", xlim=(1, 2e4), ylim=(0.4, 50))
    right.set(xlabel="synapses N", ylabel="lifetime (memories stored until SNR = 1)", ylim=(5, 1e6))
    left.set_title(f"{found['shown']:,.0f} synapses: theory (lines), simulated (dots)", loc="left", fontsize="medium")
    right.set_title("Lifetime", loc="left", fontsize="medium")
    for axes in (left, right):
        dress(axes)
    right.legend(frameon=False, loc="upper left", fontsize="small")
    return drawn


if __name__ == "__main__":
    torch.set_num_threads(1)
    for file in keep(Path(sys.argv[1] if sys.argv[1:] else "runs/analysis"), "memory_lifetime", numbers(), figure):
        print(file)
