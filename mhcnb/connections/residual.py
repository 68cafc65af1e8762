"""The residual connection (He et al. 2016): one stream, maps 1, X' = X + f(X)."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from mhcnb.connections.base import Branch, Connection, Maps
from mhcnb.section import Named


class ResidualConfig(Named):
    """Nothing to choose. One stream, so every way of reducing is the same."""

    name: str = "residual"
    streams: ClassVar[int] = 1
    reduce: ClassVar[str] = "mean"
    decay_static: ClassVar[bool] = False


class Residual(Connection):
    """X' = X + f(X) on X [*b, 1, d]. No parameters."""

    Config = ResidualConfig
    exact = ("rows", "columns")
    res_width = 1  # type: ignore[assignment]

    def __init__(self, config: Any, n: int, d: int, index: int = 0, generator: torch.Generator | None = None) -> None:
        torch.nn.Module.__init__(self)
        self.config, self.n, self.d, self.index, self.probe = config, n, d, index, None

    def _maps(self, X: Tensor) -> tuple[Maps, Tensor]:
        """Ones of the shapes that every connection gives."""
        one = X.new_ones((), dtype=torch.promote_types(X.dtype, torch.float32))
        b = X.shape[:-2]
        return Maps(one.expand(*b, 1), one.expand(*b, 1), one.expand(*b, 1, 1)), X

    def forward(self, X: Tensor, branch: Branch, **context: Any) -> Tensor:
        """X + f(X), at the cost of an addition; by the general form where somebody looks."""
        if self.probe is not None:
            return super().forward(X, branch, **context)
        return X + branch(X.squeeze(-2), **context).unsqueeze(-2)
