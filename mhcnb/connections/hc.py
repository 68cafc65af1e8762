"""Hyper-connections, static + dynamic (Zhu et al. 2024, arXiv 2409.19606, eq. 10-13). Signs and sums are free.

Each stream j, normed alone, emits what it gives: its pre and post entries and column j of res. The paper writes the
transposed matrices: A_r = resᵀ, A_m = preᵀ, B = post.
"""

import torch
from torch import Tensor

from mhcnb.connections.base import Connection, Maps


class HC(Connection):
    """res = A_rᵀ + s_α·tanh(norm(X) W_r)ᵀ, pre = A_m + s_α·tanh(norm(X) w_m), post = B + s_β·tanh(norm(X) w_β).

    d(n+2) + n(n+2) + 2 parameters, + d with a norm weight.
    """

    norm = "stream"
    gates = (0, 1, 0)

    @staticmethod
    def squash(x: Tensor) -> Tensor:
        return torch.tanh(x)

    @property
    def res_width(self) -> int:
        """n²: row by row of A_r, so source first."""
        return self.n**2

    def constrain(self, logits: Maps) -> Maps:
        return logits._replace(res=logits.res.unflatten(-1, (self.n, self.n)).mT)

    def start(self, pre: Tensor, post: Tensor) -> Maps:
        return Maps(pre, post, torch.eye(self.n))

    def own_start(self) -> tuple[Tensor, Tensor]:
        """One-hot pre, so that site k reads stream k mod n, and post 1 (paper, eq. 14)."""
        return torch.where(self._own_stream(), 1.0, 0.0), torch.ones(self.n)
