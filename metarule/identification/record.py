"""Recording a row of the zoo while it learns a task."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from metarule.block import Recording as Snapshots
from metarule.identification.recording import Recording
from metarule.inner import Reference, Runs
from metarule.learner import Learner
from metarule.params import starts
from metarule.tasks import Task
from metarule.zoo import algorithm


def record(
    name: str, task: Task, hidden: tuple[int, ...] = (64, 32), steps: int = 50, batch: int = 16, seed: int = 0
) -> Recording:
    """One network that learns `task` by a row of the zoo, with a snapshot before each of `steps` updates."""
    row = algorithm(name)
    host = replace(row.host, hidden=None)
    learner = row.learner(host.network(task.inputs, hidden, task.outputs, task.output))
    engine = Reference(dtype=torch.float64)
    theta = starts(learner.params)[None]
    outcome = engine.evaluate(learner, theta, task, Runs((0,), (0,), seed), range(steps), batch, record=1)
    assert outcome.record is not None
    return observed(learner, outcome.record)


def observed(learner: Learner, snapshots: Snapshots, run: int = 0) -> Recording:
    """One run of an engine's snapshots as a recording, biases apart; feedback weights stay hidden, as in an animal."""
    network = learner.network
    weights, bias = {}, {}
    for projection in network.projections:
        whole = snapshots.series[f"weights/{projection.name}"][run].numpy()
        weights[projection.name] = whole[:, :, :-1] if projection.bias else whole
        if projection.bias:
            bias[projection.target] = whole[:, :, -1]
    series = snapshots.series
    return Recording(
        np.asarray(snapshots.steps, dtype=np.float64),
        weights,
        bias,
        {name: series[f"activity/{name}"][run].numpy() for name in network.sizes},
        series["input"][run].numpy(),
        series["target"][run].numpy() if "target" in series else None,
        meta={
            "source": "simulation",
            "nonlinearity": network.activations[network.populations[1].name],
            "beta": network.beta,
            "output": network.output,
            "updates_per_snapshot": 1,
        },
    )
