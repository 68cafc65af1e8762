"""Manifold-constrained hyper-connections (Xie et al. 2025, arXiv 2512.24880, eq. 7-9): res by Sinkhorn–Knopp."""

from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from mhcnb.connections import ops
from mhcnb.connections.base import Connection, Leave, Maps, gated, ungated, unlikely
from mhcnb.connections.birkhoff import sinkhorn
from mhcnb.connections.config import ConnectionConfig
from mhcnb.section import Positive


class MHCConfig(ConnectionConfig):
    """mHC's own fields. `order` names the side that is normalised last and is therefore exact, or off by eps."""

    iterations: Positive = 20
    order: Literal["rows", "columns"] = "rows"
    first: Literal["sums", "softmax"] = "sums"  # softmax: the first division is exact, eps then goes to the entries
    eps: Annotated[float, Field(ge=0)] = 0.0  # added to every sum before dividing by it
    pre_eps: Annotated[float, Field(ge=0, le=0.01)] = 0.0  # added to pre


class MHC(Connection):
    """pre = σ(·), post = 2σ(·), res = SK(exp(·)): one side sums to one exactly, the other as far as 20 rounds bring it.

    DeepSeek-V4 stores res transposed and ends on its columns, so that here, too, rows are the side that ends.

    n²(n+2)d + n(n+2) + 3 parameters, + nd with a norm weight.
    """

    Config = MHCConfig

    @property
    def exact(self) -> tuple[str, ...]:  # type: ignore[override]
        return () if self.config.eps else (self.config.order,)

    @property
    def res_width(self) -> int:
        """n²: row by row of res, so destination first."""
        return self.n**2

    def enter_fused(self, X: Tensor) -> tuple[Tensor, Leave]:
        """In one pass over X, with gates and norm weight multiplied into the projections beforehand."""
        from mhcnb.connections.kernels import operators

        c = self.config
        weight = ops.weighted(self.weight.float() * self._scales().float(), self.gamma if c.norm_weight else None)
        settings = operators.Settings(
            l2=c.norm == "l2",
            norm_eps=c.norm_eps,
            pre_eps=c.pre_eps,
            iterations=c.iterations,
            first=1 if c.order == "rows" else 2,
            eps=c.eps,
            floor=c.first == "softmax" and c.eps > 0,
        )
        u, entered = operators.enter(X, weight, self._biases().float(), settings)
        return u, partial(operators.write, entered)

    def constrain(self, logits: Maps) -> Maps:
        raw = logits.res.unflatten(-1, (self.n, self.n))
        c = self.config
        res = sinkhorn(raw, c.iterations, c.order, c.eps, c.first)
        return gated(logits, res, c.pre_eps)

    def start(self, pre: Tensor, post: Tensor) -> Maps:
        return ungated(pre, post, unlikely(torch.eye(self.n, dtype=torch.bool)), self.config.pre_eps)
