"""OwnLoop: a batch of a user's own training loop, as a task of one step that the engine can train on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metarule.signals import Batch
from metarule.tasks import Task
from metarule.tasks.base import Episode


@dataclass(frozen=True, eq=False)
class OneBatch(Episode):
    """Whatever the step, the batch that the user's loop is at."""

    batch: Batch

    def train(self, step):
        return self.batch

    def score(self, respond, weights):
        raise NotImplementedError  # the user's loop scores


@dataclass(frozen=True, eq=False)
class OwnLoop(Task):
    """One step on `batch`; the loop around it, its data and its scores are the user's."""

    batch: Batch

    source = "the user's loop"
    metrics: ClassVar[Mapping[str, str]] = {}  # the user's own

    @property
    def inputs(self):
        return self.batch.x.shape[2]

    @property
    def outputs(self):
        return 0 if self.batch.y is None else self.batch.y.shape[2]

    def sample(self, noise, batch):
        return OneBatch(self.batch)

    def held_out(self):
        return self
