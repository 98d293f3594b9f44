"""How a network's answers are scored or paid; scores are differentiable, one number per run."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarule.signals import Batch
from metarule.tasks.base import Asked, Respond

CLASSIFICATION = {"held_out_loss": "min", "accuracy": "max"}
REGRESSION = {"held_out_loss": "min"}

SPLITS = ("search", "held_out")
"""The two values of `split`: the data that searches see, and the data that only the battery sees."""


def labelled(x: Float[Tensor, "R B J"], labels: Int[Tensor, "R B"], classes: int) -> Batch:
    """A batch with one-hot targets, where the right answer is paid 1."""
    targets = torch.eye(classes, dtype=x.dtype, device=x.device)[labels]
    return Batch(x, targets, lambda action: (action * targets).sum(-1, keepdim=True))


def output_drive(respond: Respond, x: Float[Tensor, "R B J"]) -> Float[Tensor, "R B I"]:
    """The drive of the output population, the last one of an activity."""
    drives = respond(x).drives
    return drives[next(reversed(drives))]


def classification(respond: Respond, x: Float[Tensor, "R B J"], labels: Int[Tensor, "R B"]) -> dict[str, Tensor]:
    """Cross-entropy of the softmax of the output drive, and the fraction of right answers, (R) each.

    An answer that is not a finite number is never right.
    """
    drive = output_drive(respond, x)
    log_likelihood = torch.log_softmax(drive, dim=-1).gather(-1, labels[:, :, None])[:, :, 0]
    highest, answer = drive.detach().max(dim=-1)
    right = (answer == labels) & highest.isfinite()
    return classified(log_likelihood.mean(dim=1), right.to(drive.dtype).mean(dim=1))


def classified(log_likelihood: Float[Tensor, "R"], right: Float[Tensor, "R"]) -> dict[str, Tensor]:
    """The scores of a classification, from means over answers: the right one's log-likelihood, and if it was given."""
    return {"held_out_loss": -log_likelihood, "accuracy": right}


def answered(respond: Respond, asked: Asked) -> dict[str, Tensor]:
    """`classification` of what an episode asks."""
    return classification(respond, asked.x[asked.rows], asked.answers)


def regression(
    respond: Respond, x: Float[Tensor, "R B J"], y: Float[Tensor, "R B I"], centre: Float[Tensor, "..."]
) -> dict[str, Tensor]:
    """NMSE = sum |rate - y|^2 / sum |y - centre|^2, (R): 1 is the answer that always says `centre`."""
    rates = respond(x).rates
    residual = (rates[next(reversed(rates))] - y).square().sum(dim=(1, 2))
    return {"held_out_loss": residual / (y - centre).square().sum(dim=(1, 2))}
