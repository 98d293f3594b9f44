"""The three acceptance tasks: every row of the zoo on digits, on digits behind a frozen readout, and as an autoencoder.

Classification alone does not test credit assignment: feedback alignment solves it. Behind frozen random layers only
rows that measure the weights above can learn, and an autoencoder wants more of the error than its sign.
"""

from __future__ import annotations

from typing import NamedTuple

from metarule.network import Network
from metarule.tasks import Task
from metarule.tasks.digits import Digits
from metarule.zoo import Algorithm


class Trial(NamedTuple):
    """A task that every row is put to, and the hidden layers of a row that does not insist on its own."""

    task: Task
    hidden: tuple[int, ...]


TRIALS: dict[str, Trial] = {
    "digits": Trial(Digits(), (64, 32)),
    "frozen": Trial(Digits("frozen"), (64, 32)),
    "autoencoder": Trial(Digits("autoencoder"), (32, 10, 32)),
}


def host_network(row: Algorithm, trial: Trial) -> Network:
    """The network of a row on one of the tasks."""
    host = row.host
    sizes = (trial.task.inputs, *(host.hidden or trial.hidden), trial.task.outputs)
    output = host.output.get(trial.task.output, trial.task.output)
    return Network.chain(sizes, host.activation, output, bias=True, init=host.init, init_scale=host.init_scale)
