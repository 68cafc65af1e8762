"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864): scores depend on the distance of two tokens alone."""

from typing import NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """cos [t, 1, k] or [b, t, 1, k] of each position's angles, for both halves of a head; and sin, with the sign that
    the other half comes with."""

    cos: Tensor
    sin: Tensor


def rotation(positions: Tensor, k: int, theta: float, dtype: torch.dtype) -> Rotation:
    """Angles position · theta^(-2i/k) for i < k/2, at least in float32. positions [t] or [b, t]."""
    dtype = torch.promote_types(dtype, torch.float32)
    frequencies = theta ** -(torch.arange(0, k, 2, device=positions.device).to(dtype) / k)
    angles = (positions.to(dtype).unsqueeze(-1) * frequencies).unsqueeze(-2)
    cos, sin = angles.cos(), angles.sin()
    return Rotation(torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1))


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """x [b, t, h, k], the pairs (x_i, x_{i + k/2}) turned by their angles. Llama pairs the halves; the paper, and
    Meta's own files, pair neighbours: the same up to the order of a head's channels."""
    return torch.addcmul(x * by.cos, x.roll(x.shape[-1] // 2, -1), by.sin).to(x.dtype)
