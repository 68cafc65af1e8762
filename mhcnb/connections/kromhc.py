"""KromHC (arXiv 2601.21579): res as a Kronecker product of 2x2 doubly stochastic matrices; 2 log2 n logits a token."""

import torch
from pydantic import field_validator
from torch import Tensor

from mhcnb.connections.base import Connection, Maps, gated, ungated
from mhcnb.connections.config import ConnectionConfig


class KromHCConfig(ConnectionConfig):
    """n is a power of two."""

    @field_validator("streams")
    @classmethod
    def _power_of_two(cls, n: int) -> int:
        if n & (n - 1):
            below = 1 << (n.bit_length() - 1)
            raise ValueError(f"streams must be a power of two, got {n}; nearest: {below} and {2 * below}")
        return n


class KromHC(Connection):
    """pre = σ(·), post = 2σ(·), res = U_1 ⊗ ... ⊗ U_K, U_k = [[p, 1-p], [1-p, p]] with (p, 1-p) = softmax(two logits),
    n = 2^K: both sides sum to one to rounding. U_1 acts on the highest bit of a stream's number.

    nd(2K+2n) + (2K+2n) + 3 parameters, + nd with a norm weight.
    """

    Config = KromHCConfig
    exact = ("rows", "columns")

    @property
    def res_width(self) -> int:
        """2K: of each factor, the logits of staying and of swapping."""
        return 2 * (self.n.bit_length() - 1)

    def constrain(self, logits: Maps) -> Maps:
        stay, swap = torch.softmax(logits.res.unflatten(-1, (-1, 2)), dim=-1).unbind(-1)  # [*b, K] each
        res = stay.new_ones(*stay.shape[:-1], 1, 1)
        for p, q in zip(stay.unbind(-1), swap.unbind(-1), strict=True):
            U = torch.stack([p, q, q, p], dim=-1).unflatten(-1, (2, 2))
            res = kron(res, U)
        return gated(logits, res)

    def start(self, pre: Tensor, post: Tensor) -> Maps:
        return ungated(pre, post, torch.tensor([0.0, -8.0]).repeat(self.res_width // 2))


def kron(A: Tensor, B: Tensor) -> Tensor:
    """A ⊗ B of each token: [*b, p, q], [*b, r, s] -> [*b, pr, qs]."""
    blocks = A[..., :, None, :, None] * B[..., None, :, None, :]
    return blocks.flatten(-4, -3).flatten(-2, -1)
