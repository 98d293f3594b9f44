"""LocalOptimizer: a learning rule trains a user's own nn.Sequential, in an ordinary loop and without autograd."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metarule.block import Block, World
from metarule.borrowed import Borrowed, are_classes, borrowed
from metarule.collect import unknown
from metarule.credit import CREDIT, CreditAssignment
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.own_loop import OwnLoop
from metarule.portable import Portable, Taught, carried, portable
from metarule.positions import Pair
from metarule.rules import Rule
from metarule.signals import Batch, State
from metarule.synapses import SynapseModel
from metarule.synapses.sgd import Sgd

CARRIED = ("credit", "rules", "synapses")
"""What a learner carries from step to step beside its weights."""

POSITIONS = ("mean", "sum")
"""What a convolution does with the changes that its positions ask for."""


class LocalOptimizer(torch.optim.Optimizer):
    """Trains `model` by `rule`, with the errors that `credit` sends; `step(x, y)` takes the batch, no gradients.

    Examples:
        >>> opt = mr.LocalOptimizer(model, run.rule, credit=run.credit)  # doctest: +SKIP
        >>> for x, y in loader:  # doctest: +SKIP
        ...     opt.step(x, y)

    `model`: an nn.Sequential of nn.Linear or nn.Conv2d, each with nn.Tanh, nn.ReLU, nn.Sigmoid, nn.Softplus or nothing
    behind it; nn.Flatten and nn.AvgPool2d between. Its weights are changed in place, in their own dtype and on their
    own device; parameters that need no gradient stay. A bias is the weight of a unit that is always on.
    `rule`, `synapse`: one for all layers, or by key as in `Learner`. `theta` are numbers by name, "error_pre" or in
    full "rule.forward.error_pre". What comes from a run (run.rule, run.credit) brings its numbers and its synapse
    model along.
    `lr` multiplies every rate, and torch.optim.lr_scheduler works on it; a rate that nobody gave is then 1. Without
    `lr` it is 1, and such a rate the synapse model's own.
    `output`: "softmax" (cross-entropy), "sigmoid" (binary cross-entropy) or "linear" (half the squared error), the mean
    over the batch. None: what the last module says; a layer is taken to give the logits of classes.
    All that is random comes from `seed` and the number of the step, as in the episode of this number.
    Positions of a convolution are events: its change is the mean over them, whatever the size of the image; with
    `positions` "sum" it is as many times that as there are positions, as in autograd's gradient.
    Raises ValueError where model, rule and credit assignment do not fit together.
    """

    def __init__(
        self,
        model: nn.Module,
        rule: Rule | Mapping[str, Rule],
        credit: CreditAssignment | None = None,
        synapse: SynapseModel | Mapping[str, SynapseModel] | None = None,
        theta: Mapping[str, float] | None = None,
        lr: float | None = None,
        output: str | None = None,
        seed: int = 0,
        positions: str = "mean",
    ) -> None:
        if positions not in POSITIONS:
            raise ValueError(unknown("positions", positions, POSITIONS))
        if lr is not None and not lr >= 0:
            raise ValueError(f"lr = {lr} must be a number from 0 on")
        self._borrowed, self._positions = borrowed(model, output), positions
        bare, sources = _assembled(self._borrowed.network, rule, credit, synapse)
        numbers = _brought(bare, sources) | _named(bare, theta or {})
        for param in replace(bare, fixed=numbers).params:
            if source := sources[param.name.partition(".")[0]]:
                raise ValueError(f"{source.name} has no value for {param.name}; give it in theta, or let the run go on")
            numbers[param.name] = 1.0 if lr is not None and param.name.endswith(".rate") else param.start
        self._learner = replace(bare, fixed=numbers)
        _check_positions(self._borrowed, self._learner)
        self._on: dict[Pair, Learner] = {}
        if self._borrowed.frozen() >= {projection.name for projection in self._learner.network.projections}:
            raise ValueError("no parameter of the model has requires_grad=True: nothing would learn")
        parameters = self._borrowed.parameters
        if len({(parameter.dtype, parameter.device) for parameter in parameters}) > 1:
            raise ValueError("the model's layers differ in dtype or device; move all of it with model.to(...)")
        self._progress: State = {"step": 0, "seed": seed}
        super().__init__(parameters, {"lr": 1.0 if lr is None else lr})

    @classmethod
    def of(
        cls,
        model: nn.Module,
        learner: str | Path | Taught,
        lr: float | None = None,
        output: str | None = None,
        seed: int = 0,
        positions: str = "mean",
    ) -> LocalOptimizer:
        """Trains `model` as a run, a run's folder, a row of the zoo or an exported .json does, with all its numbers.

        What a run or a .json names as its plug-ins, files of Python, is imported.

        Examples:
            >>> opt = mr.LocalOptimizer.of(model, "feedback_alignment")  # doctest: +SKIP
        """
        known = portable(learner)
        numbers = known.on(borrowed(model, output).network).fixed
        return cls(model, known.rules, known.credit, known.synapses, numbers, lr, output, seed, positions)

    @torch.no_grad()
    def step(  # pyright: ignore[reportIncompatibleMethodOverride]  (a gradient is not what it is given)
        self,
        x: Tensor | None = None,
        y: Tensor | None = None,
        reward: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """One update by a batch: inputs x, and y, classes (B) as whole numbers or numbers (B I); None where untaught.

        `reward`: the output's action (1 B I) -> what it is paid (1 B 1), for kinds of credit that hear a reward. Where
        it is not given, a right class is paid 1, values at a linear output minus half their squared error.
        Raises ValueError without a batch, or where it does not fit the model.
        """
        if not isinstance(x, Tensor):
            raise ValueError(
                "step() needs the batch: opt.step(x, y); a local rule learns from the activity that a batch makes, "
                "there is no gradient to read, and backward() is not called"
            )
        events = self._borrowed.events(x)
        taught = None if y is None else self._borrowed.targets(y, len(x))
        if reward is None and y is not None and taught is not None:
            valued = self._borrowed.network.output == "linear" and not are_classes(y)
            reward = functools.partial(_closeness if valued else _share, taught)
        batch = Batch(events, taught, reward)
        learner, now, own = self._learner_on(x), int(self._progress["step"]), self._borrowed.weights()
        world = self._world(learner, batch)
        columns = learner.columns(world.block.theta)
        if "weights" in self._progress:
            # the model may have been moved since, or the state may be another device's
            parts = {name: _moved(self._progress[name], x) for name in CARRIED}
            state = {**parts, "weights": own | _moved(self._progress["weights"], x)}
        else:  # only now are the weights those that it learns from
            state = learner.init(columns, world.episode_noise, given=own)
        state = world.advance(columns, state, range(now, now + 1), in_place=False)
        self._borrowed.give_back(state["weights"])
        others = {name: weight for name, weight in state["weights"].items() if name not in own}
        self._progress = {**self._progress, **state, "weights": others, "step": now + 1}

    def state_dict(self) -> dict[str, Any]:
        """`param_groups` as in torch, and `state`: all that the learner carries from step to step, by name."""
        return {**super().state_dict(), "state": dict(self._progress)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the `state_dict()` of an optimizer of the same model, rule and credit assignment, bit for bit.

        Raises ValueError where it is another one's.
        """
        progress = state_dict.get("state", {})
        mine = self._fresh()
        begun = {part: progress[part] for part in mine if part in progress}
        if not {"step", "seed"} <= progress.keys() or (begun and _shapes(begun) != _shapes(mine)):
            raise ValueError(
                "the state is not that of an optimizer of this model with this rule, credit assignment and synapse "
                f"model: it needs weights of {', '.join(sorted(mine['weights'])) or 'nothing but the model'}; make the "
                "optimizer as it was made then"
            )
        super().load_state_dict({**state_dict, "state": {}})
        self._progress = progress

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Raises ValueError: all parameters are in the one group of the model."""
        if self.param_groups:
            raise ValueError(
                "LocalOptimizer has one group, all of its model; freeze layers with requires_grad_(False), and give "
                "another model another optimizer"
            )
        super().add_param_group(param_group)

    def __getstate__(self) -> dict[str, Any]:
        # a copy of the model and its optimizer together goes on by itself; torch would leave out all but the groups
        return dict(vars(self))

    def _learner_on(self, x: Tensor) -> Learner:
        """The learner for images of this size, its rates those of `param_groups`."""
        size = (x.shape[2], x.shape[3]) if self._borrowed.convolves else (0, 0)
        if size not in self._on:
            network = self._borrowed.at(size) if self._borrowed.convolves else self._borrowed.network
            shared = self._borrowed.shared_by(network) if self._positions == "sum" else {}
            self._on[size] = replace(self._learner, network=network, schedule=functools.partial(self._rates, shared))
        return self._on[size]

    def _fresh(self) -> State:
        """What is carried before the first step, of the weights those that are not the model's own."""
        world = self._world(self._learner, Batch(self._borrowed.parameters[0].new_zeros(1, 1, 1), None, None))
        own = self._borrowed.weights()
        state = self._learner.init(self._learner.columns(world.block.theta), world.episode_noise, given=own)
        others = {name: weight for name, weight in state["weights"].items() if name not in own}
        return {**{part: state[part] for part in CARRIED}, "weights": others}

    def _rates(self, shared: Mapping[str, int], step: int) -> dict[str, float]:
        """What the rate of every plastic projection is multiplied with."""
        rate, frozen = float(self.param_groups[0]["lr"]), self._borrowed.frozen()
        return {
            projection.name: 0.0 if projection.name in frozen else rate * shared.get(projection.name, 1)
            for projection in self._learner.plastic
        }

    def _world(self, learner: Learner, batch: Batch) -> World:
        """The engine at work on one run and one batch."""
        like = self._borrowed.parameters[0]
        block = Block(
            learner, like.new_zeros(1, 0), OwnLoop(batch), [(0, self._progress["seed"])], 0, range(1),
            batch.x.shape[1], frozenset(), (), (1,), None, None, like.dtype, 1,
        )  # fmt: skip
        world = World(block)
        world.episode_noise, world.run_noise = (
            noise.to(like.device) for noise in (world.episode_noise, world.run_noise)
        )
        return world


def _assembled(
    network: Network,
    rule: Rule | Mapping[str, Rule],
    credit: CreditAssignment | None,
    synapse: SynapseModel | Mapping[str, SynapseModel] | None,
) -> tuple[Learner, dict[str, Portable | None]]:
    """The learner on a network, and what its rules, credit assignment and synapse models were found with."""
    _check_kinds(rule, credit, synapse)
    several = isinstance(rule, Mapping)
    known = carried(next(iter(rule.values())) if several else rule)
    rules: Mapping[str, Rule] = rule if several else {next(iter(known.rules), "forward") if known else "forward": rule}
    if credit is None and known is None:
        reads = frozenset().union(*(each.reads for each in rules.values()))
        fits = [kind for kind, each in CREDIT.items() if reads <= each.gives]
        raise ValueError(
            f"credit is missing: rule '{next(iter(rules.values())).kind}' reads {', '.join(sorted(reads))}; kinds of "
            f"credit that give it: {', '.join(fits)}"
        )
    synapses = synapse or (known.synapses if known else Sgd())
    synapses = synapses if isinstance(synapses, Mapping) else {ANY: synapses}
    whole = credit or (known.credit if known else None)
    assert whole is not None
    learner = Learner(network, whole, rules, synapses)
    sources = {"rule": known, "credit": carried(credit) if credit else known, "synapse": None if synapse else known}
    return learner, sources


def _check_kinds(rule: Any, credit: Any, synapse: Any) -> None:
    """Raises ValueError where a part is none: a name, a class, or one of another kind."""
    for name, given, kind in (
        ("rule", rule, Rule),
        ("credit", credit, CreditAssignment),
        ("synapse", synapse, SynapseModel),
    ):
        keyed = isinstance(given, Mapping) and name != "credit"
        parts = list(given.values()) if keyed else [] if given is None and name != "rule" else [given]
        wrong = [part for part in parts if not isinstance(part, kind)]
        if wrong or (keyed and not parts):
            raise ValueError(
                f"{name} = {wrong[0] if wrong else given!r} is no {kind.__name__}; give one, as in "
                "LocalOptimizer(model, Delta(), credit=Backprop()), or a name to LocalOptimizer.of(model, 'backprop')"
            )


def _brought(learner: Learner, sources: Mapping[str, Portable | None]) -> dict[str, float]:
    """The numbers that parts bring along from the runs they were found in."""
    brought = {}
    for param in learner.all_params:
        source = sources[param.name.partition(".")[0]]
        if source is not None and param.name in source.numbers:
            brought[param.name] = source.numbers[param.name]
    return brought


def _named(learner: Learner, theta: Mapping[str, float]) -> dict[str, float]:
    """Numbers by full name; raises ValueError where a name is not a parameter, or is that of several."""
    names = [param.name for param in learner.all_params]
    made = {}
    for given, value in theta.items():
        fits = [name for name in names if name == given or name.endswith(f".{given}")]
        if len(fits) != 1:
            said = f"theta: '{given}' may be {', '.join(fits)}; say which" if fits else unknown("theta", given, names)
            raise ValueError(said)
        if not math.isfinite(float(value)):
            raise ValueError(f"theta: '{given}' = {value} must be a finite number")
        made[fits[0]] = float(value)
    return made


def _check_positions(model: Borrowed, learner: Learner) -> None:
    """Raises ValueError where a model convolves, and its credit assignment or its rule is not defined for that."""
    if not model.convolves:
        return
    if not learner.credit.over_positions:
        fits = ", ".join(kind for kind, credit in CREDIT.items() if credit.over_positions)
        raise ValueError(
            f"credit.kind = '{learner.credit.kind}' is not defined where positions share a weight (nn.Conv2d); kinds "
            f"that are: {fits}"
        )
    for projection in model.pooled:
        if "pre_error" in learner.wanted.get(projection, ()):
            raise ValueError(
                f"the rule at '{projection}' reads pre_error, which an average over positions (nn.AvgPool2d) does not "
                "have; take a stride in place of the pooling"
            )


def _share(y: Tensor, action: Tensor) -> Tensor:
    """What an answer is paid: 1 where it is the right class, as on the digits."""
    return (action * y).sum(-1, keepdim=True)


def _closeness(y: Tensor, action: Tensor) -> Tensor:
    """What values are paid: minus half their squared error."""
    return -0.5 * (action - y).square().sum(-1, keepdim=True)


def _moved(part: Any, like: Tensor) -> Any:
    """Nested dicts whose tensors are on the device of `like`, and of its dtype where they are no whole numbers."""
    if isinstance(part, dict):
        return {name: _moved(each, like) for name, each in part.items()}
    if not isinstance(part, Tensor):
        return part
    return part.to(like) if part.is_floating_point() else part.to(like.device)


def _shapes(part: Any) -> Any:
    """Nested dicts of the shapes of tensors."""
    if isinstance(part, dict):
        return {name: _shapes(each) for name, each in part.items()}
    return tuple(part.shape) if isinstance(part, Tensor) else None
