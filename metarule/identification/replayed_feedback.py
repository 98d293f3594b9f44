"""Feedback weights that nobody recorded, fitted to the changes that they made, and what they would do next."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from metarule.identification.feedback_fit import Sums, sums
from metarule.identification.moments import Moments
from metarule.identification.recording import RecordingError
from metarule.network import Activity

RIDGE = 1e-9
"""Share of the mean Gram that keeps the fit finite where sources are dependent: softmax errors sum to 0."""


def with_fitted_feedback(seen: Moments, carried: str) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Changes (U I J) that fixed feedback makes, for every update that which was fitted to all others.

    error_l = f'_l (B_l source), source = the output's error, the target, or the error of the layer above, as `carried`
    says ("error", "target", "above"). Also returns edge -> cosine of B_l with the transpose of the weights above.
    Raises RecordingError where there are no targets or the network is no chain.
    """
    network = seen.network
    names = list(network.sizes)
    edges = [f"{source}->{target}" for source, target in itertools.pairwise(names)]
    if seen.batch.y is None:
        raise RecordingError("/target is missing, and what its feedback brings depends on it")
    if [p.name for p in network.projections] != edges:
        raise RecordingError("its feedback is fitted in chains of layers only")
    activity = network.forward(seen.weights, seen.batch.x)
    error = seen.batch.y - activity.rates[network.output_name]
    made, cosines = {edges[-1]: _outer(seen, activity, edges[-1], error)}, {}
    sources = {"error": error, "target": seen.batch.y, "above": error}
    source = sources[carried]
    for edge, above in zip(edges[-2::-1], edges[:0:-1], strict=True):
        name = edge.partition("->")[2]
        slope = network.gain(name, activity.rates)
        matrix = _matrix(seen, activity, edge, slope, source)  # U I O
        sent = slope * (source @ matrix.transpose(1, 2))
        made[edge] = _outer(seen, activity, edge, sent)
        forward = seen.weights[above][:, :, : matrix.shape[1]].transpose(1, 2)
        if forward.shape == matrix.shape:
            cosines[edge] = float((matrix * forward).sum() / (matrix.norm() * forward.norm() + 1e-30))
        if carried == "above":
            source = sent / (sent.square().mean().sqrt() + 1e-30)
    return made, cosines


def _pre(seen: Moments, activity: Activity, edge: str) -> Tensor:
    projection = next(p for p in seen.network.projections if p.name == edge)
    return seen.network.pre(projection, activity.rates)


def _outer(seen: Moments, activity: Activity, edge: str, error: Tensor) -> Tensor:
    return error.transpose(1, 2) @ _pre(seen, activity, edge) / error.shape[1]


def _matrix(seen: Moments, activity: Activity, edge: str, slope: Tensor, source: Tensor) -> Tensor:
    """Per update, B (U I O) with dW = (slope x source B^T)^T pre / S in all others."""
    pre, change = _pre(seen, activity, edge), seen.changes[edge]
    each = sums(*(part.numpy() for part in (pre, change, slope, source)))
    others = Sums(each.gram.sum(0) - each.gram, each.cross.sum(0) - each.cross)
    return torch.as_tensor(others.matrix(RIDGE))
