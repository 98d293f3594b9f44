"""ModuleLearner: a torch module and how gradient descent trains it, with the numbers that a search may move."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metarule.collect import unknown
from metarule.gradient_descent import UNROLLED, objection, unrolled
from metarule.learned_descent import LearnedDescent
from metarule.models import Model
from metarule.nonlinearities import LOSSES
from metarule.params import Param
from metarule.recurrent import Recurrent
from metarule.rng import Noise, noise_for
from metarule.rules import Rule
from metarule.signals import Batch

LEARNABLE = ("rate", "rates", "weights", "momentum", "weight_decay", "optimizer")
"""What a search may learn of gradient descent: see `Descent.learn`."""

LEARNED = "Learned"
"""The optimizer that is a coordinate-wise LSTM with the same numbers for all weights."""


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    **{name: getattr(torch.optim, name) for name in UNROLLED},
    LEARNED: LearnedDescent,
}
"""Those of torch.optim that `higher` differentiates rightly, and the learned one."""


@dataclass(frozen=True)
class Descent:
    """Which optimizer of torch.optim trains a module, and which of its numbers are searched over.

    `learn` names "rate" (one for all layers), "rates" (one for each layer), "weights" (the initial weights themselves,
    from a fixed draw; Finn et al., 2017), "momentum" and "weight_decay", where the optimizer has them. With
    `optimizer = "Learned"`, a coordinate-wise LSTM (Andrychowicz et al., 2016), "optimizer" is its numbers, and
    `rate` the size of its answers. `rate` is where rates start; `options` are further settings of the optimizer by
    torch's names, of the LSTM `hidden`, `layers` and `reach`. Raises ValueError on unknown names and on what `higher`
    would not differentiate rightly.
    """

    optimizer: str = "SGD"
    learn: tuple[str, ...] = ("rates",)
    rate: float = 0.1
    options: dict[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(unknown("descent.optimizer", self.optimizer, OPTIMIZERS))
        for name in self.learn:
            if name not in LEARNABLE:
                raise ValueError(unknown("descent.learn", name, LEARNABLE))
        if not self.learn or {"rate", "rates"} <= set(self.learn):
            raise ValueError(f"descent.learn = {list(self.learn)} must name something, and one of 'rate' and 'rates'")
        if self.rate <= 0:
            raise ValueError(f"descent.rate = {self.rate} must be positive")
        if ("optimizer" in self.learn) != (self.optimizer == LEARNED):
            raise ValueError(
                f"descent.learn = 'optimizer' goes with descent.optimizer = '{LEARNED}', and with no other"
            )
        if self._plain:
            return
        try:
            made = self.over([{"params": [nn.Parameter(torch.zeros(1))]}])
        except (TypeError, ValueError) as error:
            raise ValueError(f"descent.options = {self.options} do not fit {self.optimizer}: {error}") from error
        learned = {name: torch.zeros(()) for name in self.learn if name in ("momentum", "weight_decay")}
        if refused := objection(made, learned):
            raise ValueError(f"descent: {refused}")

    @property
    def _plain(self) -> bool:
        """Whether it is SGD and no more, which every search holds unasked.

        There is nothing to try, and torch imports its compiler, a second and a half, to make any optimizer.
        """
        return self.optimizer == "SGD" and not self.options and {*self.learn} <= {"rate", "rates", "weights"}

    def over(self, groups: list[dict]) -> torch.optim.Optimizer:
        """The optimizer over parameter groups."""
        return OPTIMIZERS[self.optimizer](groups, lr=self.rate, **self.options)


ONE_RATE = "one_rate"
"""The baseline of a search over a module: the same descent, its initial weights as drawn, with one tuned rate."""


@dataclass(frozen=True, eq=False)
class ModuleLearner:
    """A model of given sizes, trained by descent on the loss that matches `output`; `params` are what is learned.

    `fixed` keeps numbers out of theta, `start` says where those in theta start, by name.
    """

    model: Model
    inputs: int
    outputs: int
    output: str
    descent: Descent = field(default_factory=Descent)
    fixed: Mapping[str, float] = field(default_factory=dict)
    start: Mapping[str, float] = field(default_factory=dict)

    rules: ClassVar[Mapping[str, Rule]] = {}

    def __post_init__(self) -> None:
        names = {param.name for param in self._all_params}
        for owner, given in (("fixed", self.fixed), ("start", self.start)):
            for name in given:
                if name not in names:
                    raise ValueError(unknown(owner, name, names))

    def with_one_rate(self) -> ModuleLearner:
        """The same module and optimizer (SGD for a learned one) with nothing but one rate to learn."""
        descent = Descent() if self.descent.optimizer == LEARNED else self.descent
        return replace(self, descent=replace(descent, learn=("rate",)), fixed={}, start={})

    def module(self, noise: Noise) -> nn.Module:
        """The module of one run, before training; `noise` is its episode's."""
        with _drawing_from(noise.at("module")):
            made = self.model.module(self.inputs, self.outputs, noise)
        return made.to(noise.dtype)

    @functools.cached_property
    def _template(self) -> nn.Module:
        return self.module(noise_for([("module",)]))

    @functools.cached_property
    def layers(self) -> dict[str, list[str]]:
        """Layer -> names of its own parameters, in the module's order."""
        found: dict[str, list[str]] = {}
        for name, _ in self._template.named_parameters():
            found.setdefault(name.rpartition(".")[0] or "module", []).append(name)
        return found

    @functools.cached_property
    def _recurrent(self) -> Recurrent:
        return self.descent.over([{"params": [nn.Parameter(torch.zeros(1))]}]).param_groups[0]["network"]

    @functools.cached_property
    def _all_params(self) -> tuple[Param, ...]:
        learn, found = self.descent.learn, []
        if "rate" in learn:
            found.append(Param("rate", start=self.descent.rate, log=True))
        if "rates" in learn:
            found += [Param(f"rate.{layer}", start=self.descent.rate, log=True) for layer in self.layers]
        if "momentum" in learn:
            found.append(Param("momentum", start=0.5, scale=0.2, low=0.0, high=0.99))
        if "weight_decay" in learn:
            found.append(Param("weight_decay", start=1e-4, low=1e-8, log=True))
        if "optimizer" in learn:
            network = self._recurrent
            numbers = zip(network.names, network.starts(), strict=True)
            found += [Param(f"optimizer.{name}", start=start) for name, start in numbers]
        if "weights" in learn:
            found += [
                Param(f"{name}[{place}]", start=value, scale=0.1)
                for name, tensor in self._template.named_parameters()
                for place, value in enumerate(tensor.detach().flatten().tolist())
            ]
        return tuple(replace(param, start=self.start.get(param.name, param.start)) for param in found)

    @functools.cached_property
    def params(self) -> tuple[Param, ...]:
        """What an outer loop sees: everything learned that is not fixed."""
        return tuple(param for param in self._all_params if param.name not in self.fixed)

    @property
    def weights_per_run(self) -> int:
        """Numbers that one run trains."""
        return sum(tensor.numel() for tensor in self._template.parameters())

    @property
    def rule_numbers_per_run(self) -> int:
        """Numbers that rules take besides: it has none."""
        return 0

    @property
    def units(self) -> tuple[int, ...]:
        """The sizes of its ends."""
        return (self.inputs, self.outputs)

    def complexity(self, theta: Float[Tensor, "C P"]) -> Float[Tensor, "C"]:
        """The numbers that are not 0."""
        return (theta != 0).sum(1).to(theta.dtype)

    def trained(
        self,
        row: Float[Tensor, "P"],
        noise: Noise,
        batches: Iterable[Batch],
        track: bool,
        after: Callable[[int, nn.Module], None],
    ) -> nn.Module:
        """The module of one run after a step of descent per batch, differentiable in `row` where `track` says so."""
        module = self.module(noise)
        values = {param.name: row[place] for place, param in enumerate(self.params)}
        values |= {name: row.new_tensor(value) for name, value in self.fixed.items()}
        named = dict(module.named_parameters())
        groups = [{"params": [named[name] for name in names]} for names in self.layers.values()]
        learned: dict[str, Tensor | list[Tensor]] = {}
        if "rate" in values:
            learned["lr"] = values["rate"]
        elif "rates" in self.descent.learn:
            learned["lr"] = [values[f"rate.{layer}"] for layer in self.layers]
        learned |= {name: values[name] for name in ("momentum", "weight_decay") if name in values}
        if "optimizer" in self.descent.learn:
            learned["theta"] = torch.stack([values[f"optimizer.{name}"] for name in self._recurrent.names])[None]
        initial = None
        if "weights" in self.descent.learn:
            initial = [
                torch.stack([values[f"{name}[{place}]"] for place in range(tensor.numel())]).reshape(tensor.shape)
                for name, tensor in named.items()
            ]
        return unrolled(module, self.descent.over(groups), batches, self.loss, learned, track, initial, after)

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """The mean loss of a batch of one run."""
        assert batch.y is not None
        return LOSSES[self.output](module(batch.x[0]), batch.y[0]).mean()


@contextmanager
def _drawing_from(noise: Noise) -> Iterator[None]:
    """torch's own generator, seeded from an address; afterwards it stands where it stood."""
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(int(noise.integers(2**31)[0]))
        yield
