"""Where the state becomes n streams, and one again."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mhcnb.connections import ops
from mhcnb.connections.base import logit


class Ends(nn.Module):
    """The entry and exit of a stack: one copy to n streams, and back to one.

    `config.reduce` names the exit: norm(mean), norm(sum), norm_sum: the sum of norm(each), or head: norm(Σ_i w_i X_i)
    with w = σ(gate · normed(vec X) W + bias) + head_eps, learned, as in DeepSeek-V4. It starts as the mean.
    """

    def __init__(self, config: Any, d: int) -> None:
        super().__init__()
        self.config, n = config, config.streams
        if config.reduce == "head":
            self.weight = nn.Parameter(torch.zeros(n * d, n))
            self.gate = nn.Parameter(torch.full((1,), 0.01))
            self.bias = nn.Parameter(logit(torch.full((n,), 1 / n - config.head_eps)))
            self.gamma = nn.Parameter(torch.zeros(n * d)) if config.norm_weight else None

    def expand(self, x: Tensor) -> Tensor:
        """x [*b, d] to X [*b, n, d]."""
        X = x.unsqueeze(-2)
        return X if self.config.streams == 1 else X.repeat_interleave(self.config.streams, dim=-2)

    def reduce(self, X: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
        """X [*b, n, d] to x [*b, d], through the model's final norm."""
        if self.config.streams == 1:
            return norm(X.squeeze(-2))
        rule = self.config.reduce
        if rule == "norm_sum":
            return norm(X).sum(-2)
        if rule == "head":
            with torch.autocast(X.device.type, enabled=False):
                x = ops.read_plain(self.shares(X), X)
            return norm(x)
        return norm(X.mean(-2) if rule == "mean" else X.sum(-2))

    def shares(self, X: Tensor) -> Tensor:
        """w [*b, n] of reduce: head, in at least float32."""
        dtype, c = torch.promote_types(X.dtype, torch.float32), self.config
        raw, _ = ops.project(X, ops.weighted(self.weight.to(dtype), self.gamma), c.norm, c.norm_eps)
        return torch.sigmoid(self.gate.to(dtype) * raw + self.bias.to(dtype)) + c.head_eps
