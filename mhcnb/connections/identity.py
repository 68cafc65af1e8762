"""Control: streams that never mix (iHC). res = I, pre and post as in mHC: what reading and writing alone are worth."""

import torch
from torch import Tensor

from mhcnb.connections.base import Connection, Maps, gated, ungated


class Identity(Connection):
    """pre = σ(·), post = 2σ(·), res = I.

    2n²d + 2n + 2 parameters, + nd with a norm weight.
    """

    exact = ("rows", "columns")
    gates = (0, 1, 1)  # res has no logits, so there is no third
    res_width = 0  # type: ignore[assignment]

    def constrain(self, logits: Maps) -> Maps:
        eye = torch.eye(self.n, dtype=logits.pre.dtype, device=logits.pre.device)
        return gated(logits, eye.expand(*logits.pre.shape, self.n))

    def start(self, pre: Tensor, post: Tensor) -> Maps:
        return ungated(pre, post, torch.empty(0))
