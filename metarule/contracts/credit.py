"""The contract of a credit assignment: it gives what it declares, runs do not mix, no autograd inside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from metarule.contracts import probes
from metarule.contracts.base import Broken, Check, has_source, require, verified
from metarule.contracts.probes import RUNS
from metarule.credit import CreditAssignment
from metarule.network import Network, Projection
from metarule.signals import SIGNALS, Batch, Signals

SIZES, EVENTS = (6, 5, 4, 3), 2


def check_credit(credit: CreditAssignment) -> Iterator[Check]:
    """Every property of one credit assignment."""
    return verified(f"credit.{credit.kind}", credit, PROPERTIES)


def declares(credit: CreditAssignment) -> str:
    """declares signals that exist"""
    strangers = {*credit.gives} - {*SIGNALS}
    require(not strangers, f"gives names no signal: {', '.join(sorted(strangers))}; signals are {', '.join(SIGNALS)}")
    return f"gives {', '.join(sorted(credit.gives))}"


def gives(credit: CreditAssignment) -> str:
    """gives what it declares, finite and of the right shape, at every projection it steps"""
    network = _network(credit)
    stepped = _first_stages(credit, range(RUNS))
    for projection in network.projections:
        require(projection.name in stepped, f"no stage of a batch steps {projection.name}")
    for projection in (*network.projections, *credit.projections(network)):
        if projection.name not in stepped:
            continue
        for name in credit.gives_at(network, projection):
            value = getattr(stepped[projection.name], name)
            require(value is not None, f"{name} is declared but not given at {projection.name}")
            shape = _shape(name, network, projection, _events(stepped[projection.name]))
            probes.check_tensor(f"{name} at {projection.name}", value, shape, torch.float64)
    return f"{len(stepped)} projections"


def without_autograd(credit: CreditAssignment) -> None:
    """uses no autograd inside"""
    with torch.inference_mode():
        _first_stages(credit, range(RUNS))


def alone(credit: CreditAssignment) -> str:
    """run r of a batch equals run r alone"""
    whole, single = _first_stages(credit, range(RUNS)), _first_stages(credit, (1,))
    said = ""
    for projection, signals in whole.items():
        for name in SIGNALS:
            value = getattr(signals, name)
            if value is not None:
                said = probes.check_equal(f"{name} at {projection}", getattr(single[projection], name)[0], value[1])
    return said


def answers(credit: CreditAssignment) -> None:
    """answers when nobody teaches: rates of every population, finite"""
    network, weights, theta, x, _ = _world(credit, range(RUNS))
    state = credit.init(theta, network, weights, probes.noise("episode"))
    probes.check_state(state, RUNS)
    activity = credit.respond(theta, network, weights, state, x, probes.noise("respond"))
    for name, size in network.sizes.items():
        if name not in activity.rates:
            raise Broken(f"the answer lacks population {name}")
        probes.check_tensor(f"rates of {name}", activity.rates[name], (RUNS, EVENTS, size), torch.float64)


def _network(credit: CreditAssignment) -> Network:
    return Network.chain(
        SIZES,
        activation=credit.requires.get("activation", ("tanh",))[0],
        output=credit.requires.get("output", ("softmax",))[0],
        bias=True,
    )


def _world(credit: CreditAssignment, runs: Iterable[int]) -> tuple[Network, dict[str, Tensor], Tensor, Tensor, Tensor]:
    network = _network(credit)
    runs = list(runs)
    episode = probes.noise("episode", runs=runs)
    projections: tuple[Projection, ...] = network.projections + credit.projections(network)
    weights = {projection.name: network.draw(projection, episode) for projection in projections}
    theta = probes.random_theta(credit.params, probes.noise("theta", runs=runs))
    x = episode.at("x").normal(EVENTS, SIZES[0])
    y = torch.eye(SIZES[-1], dtype=x.dtype)[episode.at("y").integers(SIZES[-1], EVENTS)]
    return network, weights, theta, x, y


def _first_stages(credit: CreditAssignment, runs: Iterable[int]) -> dict[str, Signals]:
    """The signals of one batch at every projection, of the last stage that steps it; weights stay as drawn."""
    runs = list(runs)
    network, weights, theta, x, y = _world(credit, runs)
    state = credit.init(theta, network, weights, probes.noise("episode", runs=runs))
    probes.check_state(state, len(runs))
    batch = Batch(x, y, lambda action: -(action - y).square().sum(-1, keepdim=True))
    wanted = {p.name: credit.gives_at(network, p) for p in (*network.projections, *credit.projections(network))}
    found: dict[str, Signals] = {}
    for k in range(credit.stages(network, batch)):
        stream = probes.noise("stage", k, runs=runs)
        signals, state = credit.stage(k, theta, network, weights, state, batch, 0, stream, wanted)
        probes.check_state(state, len(runs))
        found |= signals
    return found


def _events(signals: Signals) -> int:
    """Events at a projection: those of the batch, unless the credit assignment puts time beside them."""
    given = (getattr(signals, name) for name in SIGNALS if name not in probes.SYNAPSE_SIDE)
    return next((value.shape[1] for value in given if value is not None), EVENTS)


def _shape(name: str, network: Network, projection: Projection, events: int) -> tuple[int, ...]:
    size_out, size_in = network.shape(projection)
    if name in probes.SYNAPSE_SIDE:
        return RUNS, size_out, size_in
    if name in probes.PRE_SIDE:
        return RUNS, events, size_in
    return (RUNS, events, size_out) if name in probes.POST_SIDE else (RUNS, events, 1)


PROPERTIES = (has_source, declares, gives, without_autograd, alone, answers)
