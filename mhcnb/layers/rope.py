"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864): scores depend on the distance of two tokens alone."""

from typing import NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """cos and sin [t, 1, k/2] or [b, t, 1, k/2] of each position's angles."""

    cos: Tensor
    sin: Tensor


def rotation(positions: Tensor, k: int, theta: float, dtype: torch.dtype) -> Rotation:
    """Angles position · theta^(-2i/k) for i < k/2, at least in float32. positions [t] or [b, t]."""
    dtype = torch.promote_types(dtype, torch.float32)
    frequencies = theta ** -(torch.arange(0, k, 2, device=positions.device).to(dtype) / k)
    angles = (positions.to(dtype).unsqueeze(-1) * frequencies).unsqueeze(-2)
    return Rotation(angles.cos(), angles.sin())


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """x [b, t, h, k], the pairs (x_i, x_{i + k/2}) turned by their angles. Llama pairs the halves; the paper, and
    Meta's own files, pair neighbours: the same up to the order of a head's channels."""
    first, second = x.chunk(2, dim=-1)
    turned = first * by.cos - second * by.sin, second * by.cos + first * by.sin
    return torch.cat(turned, dim=-1).to(x.dtype)
