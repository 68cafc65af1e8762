"""mHC-lite (arXiv 2601.05732): res as a mixture of all n! permutation matrices, doubly stochastic without iterating."""

import torch
from pydantic import field_validator
from torch import Tensor

from mhcnb.connections.base import Connection, Maps, gated, permutations, ungated, unlikely
from mhcnb.connections.birkhoff import permutation_matrices
from mhcnb.connections.config import ConnectionConfig

LARGEST = 6


class MHCLiteConfig(ConnectionConfig):
    """n is at most 6: the logits are n! a token."""

    @field_validator("streams")
    @classmethod
    def _few(cls, n: int) -> int:
        if n > LARGEST:
            count = permutations(n)
            raise ValueError(
                f"at most {LARGEST} streams: n! = {count} permutations at n = {n}, "
                f"+{n * 768 * count / 1e6:.0f} M parameters per sublayer at width 768; use mhc for more streams"
            )
        return n


class MHCLite(Connection):
    """pre = σ(·), post = 2σ(·), res = Σ_k softmax(·)_k P_k (Birkhoff–von Neumann): both sides sum to one to rounding.

    nd(n!+2n) + (n!+2n) + 3 parameters, + nd with a norm weight.
    """

    Config = MHCLiteConfig
    exact = ("rows", "columns")
    basis: Tensor

    def __init__(self, config: MHCLiteConfig, n: int, d: int, index: int = 0, generator=None) -> None:
        super().__init__(config, n, d, index, generator)
        self.register_buffer("basis", permutation_matrices(n).flatten(1), persistent=False)

    @property
    def res_width(self) -> int:
        """n!, in the order of itertools.permutations."""
        return permutations(self.n)

    def constrain(self, logits: Maps) -> Maps:
        share = torch.softmax(logits.res, dim=-1)
        res = (share @ self.basis.to(share.dtype)).unflatten(-1, (self.n, self.n))
        return gated(logits, res)

    def start(self, pre: Tensor, post: Tensor) -> Maps:
        identity = (permutation_matrices(self.n) == torch.eye(self.n)).all(dim=(1, 2))
        return ungated(pre, post, unlikely(identity))
