"""Algorithm: a row of the zoo, and the network it was proven on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from metarule.credit import CreditAssignment
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.rules import Rule
from metarule.rules.textbook import Delta
from metarule.synapses import SynapseModel
from metarule.synapses.sgd import Sgd


@dataclass(frozen=True)
class Host:
    """The network and the course in which a row is proven: the same on every task, never tuned per task.

    `output` replaces the output that a task asks for, {"softmax": "sigmoid"}. `hidden` None takes the layers that the
    comparison gives to all rows.
    """

    activation: str = "tanh"
    output: Mapping[str, str] = field(default_factory=dict)
    hidden: tuple[int, ...] | None = None
    init: str = "glorot"
    init_scale: float = 1.0
    epochs: int = 40
    batch: int = 32

    def network(self, inputs: int, hidden: tuple[int, ...], outputs: int, output: str) -> Network:
        """A chain as the row wants it, where a task asks for these sizes and this output."""
        sizes = (inputs, *(hidden if self.hidden is None else self.hidden), outputs)
        output = self.output.get(output, output)
        return Network.chain(sizes, self.activation, output, bias=True, init=self.init, init_scale=self.init_scale)


@dataclass(frozen=True)
class Algorithm:
    """A row of the zoo: credit x rules x synapse models, with numbers that work.

    `rules` and `synapses` are keyed as in `Learner`. `values` are the row's numbers by parameter name; what is not
    named is at its `Param.start`. `free` is what a comparison tunes, one parameter at most; all else is held at the
    row's numbers. `not_for` says why a row cannot do a task, {"autoencoder": "..."}.
    """

    source: str
    summary: str
    credit: CreditAssignment
    rules: Mapping[str, Rule] = field(default_factory=lambda: {"forward": Delta()})
    synapses: Mapping[str, SynapseModel] = field(default_factory=lambda: {ANY: Sgd()})
    values: Mapping[str, float] = field(default_factory=dict)
    free: tuple[str, ...] = ("synapse.rate",)
    host: Host = field(default_factory=Host)
    not_for: Mapping[str, str] = field(default_factory=dict)

    def learner(self, network: Network) -> Learner:
        """The algorithm on a network, everything but `free` held at the row's numbers."""
        whole = self.searchable(network)
        held = {param.name: param.start for param in whole.params if param.name not in self.free}
        return Learner(network, self.credit, self.rules, self.synapses, fixed=held, start=whole.start)

    def searchable(self, network: Network) -> Learner:
        """The algorithm on a network with every parameter free, each starting from the row's number."""
        return Learner(network, self.credit, self.rules, self.synapses, start=self.values)

    @property
    def rule(self) -> Rule:
        """The rule of the forward projections, or of the readout where nothing else learns."""
        return next(iter(self.rules.values()))

    @property
    def synapse(self) -> SynapseModel:
        """The synapse model of the forward projections."""
        return next(iter(self.synapses.values()))
