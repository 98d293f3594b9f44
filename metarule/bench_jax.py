"""The peer: a bench's work in JAX with the same factoring, in the order that suits it best.

Orders: `vmap`, all runs step together; `nested`, the same with what candidates share mapped once; `map`, one run after
another through all its steps, its weights in cache; `map of vmap`, the candidates of one episode at a time. Each is
compiled and warmed; the fastest is tried with transposed weights and with the loop over steps unrolled; on two cores
all of it also with the episodes shared out over two devices, beside JAX's own threads. (XLA's flags for wider vectors
and fast arithmetic changed nothing where they were tried.)

Inputs are converted and laid out beforehand, losses are all that is returned, nothing is done in Python per step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
import numpy as np
import torch
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # pyright: ignore[reportMissingImports]

from metarule.bench_process import Clock, timed
from metarule.bench_work import Setting

UNROLLED = (2, 4)
TRIES, FINALISTS = 3, 2


class Variant(NamedTuple):
    """How the work is laid out: the order, steps unrolled, weights stored J I, devices, and steps kept for reverse."""

    order: str
    unroll: int = 1
    turned: bool = False
    devices: int = 1
    remat: bool = False

    @property
    def label(self) -> str:
        """As in: map, unrolled 2, transposed, 2 devices."""
        parts = [self.order]
        parts += ["remat"] if self.remat else []
        parts += [f"unrolled {self.unroll}"] if self.unroll > 1 else []
        parts += ["transposed"] if self.turned else []
        parts += [f"{self.devices} devices"] if self.devices > 1 else []
        return ", ".join(parts)


class Given(NamedTuple):
    """What a population starts from: theta per candidate; first weights, feedback, order, asked per episode."""

    theta: Any
    weights: list[Any]
    feedback: list[Any]
    order: Any
    asked: Any


class Tables(NamedTuple):
    """What all runs share: images and targets, shown and held out."""

    images: Any
    targets: Any
    held_out: Any
    answers: Any


def step(variant: Variant, tables: Tables, theta: Any, feedback: list[Any], weights: list[Any], rows: Any) -> list[Any]:
    """The weights of one run after a batch."""
    error_pre, error_pre_error, oja = theta / rows.shape[0]
    forward = [weight.T for weight in weights] if variant.turned else weights
    back = [weight.T for weight in feedback] if variant.turned else feedback
    rates = [tables.images[rows]]
    for weight in forward[:-1]:
        rates.append(jnp.tanh(rates[-1] @ weight.T))
    rates.append(jax.nn.softmax(rates[-1] @ forward[-1].T))
    error = tables.targets[rows] - rates[-1]
    updated = list(weights)
    for layer in reversed(range(len(forward))):
        pre, post = rates[layer], rates[layer + 1]
        pre_error = (error @ back[layer].T) * (1 - pre * pre)
        left = jnp.concatenate((error, post))
        right = jnp.concatenate((error_pre * pre + error_pre_error * pre_error, oja * (pre - post @ forward[layer])))
        updated[layer] = weights[layer] + (right.T @ left if variant.turned else left.T @ right)
        error = pre_error
    return updated


def trained(
    variant: Variant, tables: Tables, theta: Any, weights: list[Any], feedback: list[Any], order: Any, asked: Any
) -> tuple[Any, list[Any]]:
    """Loss and weights of one run after all its steps."""

    def onward(weights: list[Any], rows: Any) -> tuple[list[Any], None]:
        return step(variant, tables, theta, feedback, weights, rows), None

    if variant.remat:
        length = _root(len(order))

        @jax.checkpoint
        def segment(weights: list[Any], rows: Any) -> tuple[list[Any], None]:
            return jax.lax.scan(onward, weights, rows, unroll=variant.unroll)[0], None

        weights, _ = jax.lax.scan(segment, weights, order.reshape(-1, length, order.shape[1]))
    else:
        weights, _ = jax.lax.scan(onward, weights, order, unroll=variant.unroll)
    x = tables.held_out[asked]
    forward = [weight if variant.turned else weight.T for weight in weights]
    for weight in forward[:-1]:
        x = jnp.tanh(x @ weight)
    log_likelihood = jax.nn.log_softmax(x @ forward[-1])
    return -jnp.take_along_axis(log_likelihood, tables.answers[asked][:, None], 1).mean(), weights


def _root(steps: int) -> int:
    """The divisor of T nearest to its root: steps of a segment."""
    return min((each for each in range(1, steps + 1) if steps % each == 0), key=lambda each: abs(each - steps**0.5))


def each_run(variant: Variant, function: Callable[..., Any], given: Given) -> Any:
    """`function` (theta, weights, feedback, order, asked) of every run, in the variant's order: (C E ...)."""
    theta, *shared = given
    if variant.order == "vmap":
        count = len(theta)
        # what candidates share was repeated beforehand, so that runs are one axis
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), shared)
        rows = jnp.repeat(theta, flat[-1].shape[0] // count, axis=0, total_repeat_length=flat[-1].shape[0])
        found = jax.vmap(function)(rows, *flat)
        return jax.tree.map(lambda leaf: leaf.reshape(count, -1, *leaf.shape[1:]), found)
    if variant.order == "nested":
        return jax.vmap(lambda row: jax.vmap(functools.partial(function, row))(*shared))(theta)
    over = jax.vmap if variant.order == "map of vmap" else _mapped
    # episodes outside: what their candidates share is read once
    found = jax.lax.map(lambda episode: over(lambda row: function(row, *episode))(theta), tuple(shared))
    return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), found)


def _mapped(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return functools.partial(jax.lax.map, function)


def inputs(variant: Variant, world: Setting) -> tuple[Tables, Given]:
    """A setting's numbers as the variant wants them, on its devices."""
    episodes, data = world.cell.episodes, world.data
    turn = (lambda weight: weight.transpose(1, 2)) if variant.turned else (lambda weight: weight)
    given = Given(
        _array(world.theta),
        [_array(turn(weight[:episodes])) for weight in world.weights],
        [_array(turn(weight[:episodes])) for weight in world.feedback],
        _array(data.order.to(torch.int32)),
        _array(data.asked.to(torch.int32)),
    )
    tables = Tables(*map(_array, (data.images, data.targets, data.held_out, data.answers.to(torch.int32))))
    if variant.order == "vmap":
        theta, *shared = given
        count = len(world.theta)
        given = Given(theta, *jax.tree.map(lambda leaf: np.repeat(leaf[None], count, axis=0), shared))
    if variant.devices == 1:
        return jax.device_put((tables, given))
    mesh = _mesh(variant.devices)
    put = functools.partial(_placed, mesh)
    return put(tables, _everywhere(tables)), put(given, _shares(variant, given))


def _array(values: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.numpy())


def _mesh(devices: int) -> Mesh:
    return Mesh(np.array(jax.devices()[:devices]), ("episodes",))


def _placed(mesh: Mesh, values: Any, parts: Any) -> Any:
    return jax.tree.map(lambda value, part: jax.device_put(value, NamedSharding(mesh, part)), values, parts)


def _everywhere(values: Any) -> Any:
    return jax.tree.map(lambda _: PartitionSpec(), values)


def _shares(variant: Variant, given: Given) -> Given:
    """Which axis of what is shared out over devices: the episodes."""
    part = PartitionSpec(None, "episodes") if variant.order == "vmap" else PartitionSpec("episodes")
    _, *shared = given
    return Given(PartitionSpec(), *jax.tree.map(lambda _: part, shared))


Ready = Callable[[], np.ndarray]
"""A compiled variant on its inputs: losses (R), or a gradient (P), once they are there."""


def losses(variant: Variant, world: Setting) -> Ready:
    """The population's losses, candidate-major."""

    def population(tables: Tables, given: Given) -> Any:
        return each_run(variant, lambda *run: trained(variant, tables, *run)[0], given)

    return _compiled(variant, world, population, PartitionSpec(None, "episodes"))


def gradient(variant: Variant, world: Setting) -> Ready:
    """The mean over runs of d loss / d theta; for orders that go run by run, of each run's own."""

    def slope(tables: Tables, given: Given) -> Any:
        def loss(theta: Any, *run: Any) -> Any:
            return trained(variant, tables, theta, *run)[0]

        if variant.order == "map":
            found = each_run(variant, jax.value_and_grad(loss), given)[1]
            return found.mean((0, 1))
        return jax.grad(lambda theta: each_run(variant, loss, given._replace(theta=theta)).mean())(given.theta)[0]

    return _compiled(variant, world, slope, PartitionSpec())


def _compiled(variant: Variant, world: Setting, function: Callable[..., Any], out: PartitionSpec) -> Ready:
    arguments = inputs(variant, world)
    if variant.devices > 1:
        tables, given = arguments
        specs = (_everywhere(tables), _shares(variant, given))
        function = jax.shard_map(function, mesh=_mesh(variant.devices), in_specs=specs, out_specs=out, check_vma=False)
    program = jax.jit(function).lower(*arguments).compile()

    def ready() -> np.ndarray:
        return np.asarray(program(*arguments).block_until_ready()).reshape(-1)

    ready()  # the warm-up
    return ready


class Contest(NamedTuple):
    """The fastest variants of some work, ready, and the seconds that all that were tried took."""

    finalists: dict[Variant, Ready]
    tried: dict[Variant, float]


def contest(
    make: Callable[[Variant, Setting], Ready], world: Setting, start: tuple[Variant, ...], clock: Clock, thorough: bool
) -> Contest:
    """The fastest of `start`; `thorough`: the best one is tried unrolled and transposed, too."""
    ready: dict[Variant, Ready] = {}
    seconds: dict[Variant, float] = {}

    def tried(variants: list[Variant]) -> list[Variant]:
        for variant in variants:
            ready[variant] = make(variant, world)
            seconds[variant] = min(timed(ready[variant], clock) for _ in range(TRIES))
        best = sorted(seconds, key=seconds.__getitem__)
        for variant in best[FINALISTS:]:
            ready.pop(variant, None)  # frees what it holds
        return best[:FINALISTS]

    best = tried(list(start))
    if thorough:
        best = tried([best[0]._replace(turned=True)])
        for count in UNROLLED:
            # further only where that much has helped
            if count <= world.cell.steps and best[0].unroll == count // 2:
                best = tried([best[0]._replace(unroll=count)])
    return Contest({variant: ready[variant] for variant in best}, seconds)


def populations(cores: int) -> tuple[Variant, ...]:
    """The orders that a contest over a population starts from."""
    orders = ("vmap", "nested", "map", "map of vmap")
    return tuple(Variant(order, devices=devices) for devices in range(1, cores + 1) for order in orders)


GRADIENTS = (Variant("vmap"), Variant("vmap", remat=True), Variant("map"), Variant("map", remat=True))
"""What a contest over gradients starts from."""
