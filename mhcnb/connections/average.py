"""Control: streams that mix completely. res = J/n, pre and post as in mHC: what passes a site is the streams' mean."""

import torch
from torch import Tensor

from mhcnb.connections.base import Connection, Maps, gated, ungated


class Average(Connection):
    """pre = σ(·), post = 2σ(·), res = J/n, J all ones.

    2n²d + 2n + 2 parameters, + nd with a norm weight.
    """

    exact = ("rows", "columns")
    gates = (0, 1, 1)  # res has no logits, so there is no third
    res_width = 0  # type: ignore[assignment]

    def constrain(self, logits: Maps) -> Maps:
        return gated(logits, logits.pre.new_full((*logits.pre.shape, self.n), 1 / self.n))

    def start(self, pre: Tensor, post: Tensor) -> Maps:
        return ungated(pre, post, torch.empty(0))
