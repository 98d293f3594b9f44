"""How far the rows of a layer's weights are from orthonormal ones."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def orthonormality(weight: Float[Tensor, "R I J"]) -> Float[Tensor, "R"]:
    """E = |W W^T - I|_F / sqrt(I): 0 where rows are orthonormal (Shervani-Tabar and Rosenbaum 2023)."""
    size = weight.shape[1]
    gram = torch.bmm(weight, weight.transpose(1, 2))
    return (gram - torch.eye(size, dtype=gram.dtype)).flatten(1).norm(dim=1) / size**0.5


def least(size_out: int, size_in: int) -> float:
    """The smallest E that I rows of J numbers can have: 0 unless there are more rows than numbers in them."""
    return (max(size_out - size_in, 0) / size_out) ** 0.5
