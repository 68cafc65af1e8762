"""Where a connection sits."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from mhcnb.connections.base import Connection


class Site(nn.Module):
    """One connection around one branch. `pre_norm` belongs to the branch; the input of both is [*b, d]."""

    def __init__(self, connection: Connection, branch: nn.Module, pre_norm: nn.Module | None = None) -> None:
        super().__init__()
        self.connection, self.branch = connection, branch
        self.pre_norm: Callable[[Tensor], Tensor] = pre_norm if pre_norm is not None else nn.Identity()

    def forward(self, X: Tensor, **context: Any) -> Tensor:
        """X [*b, n, d] -> X' [*b, n, d]."""
        return self.connection(X, lambda u, **c: self.branch(self.pre_norm(u), **c), **context)


def sites(model: nn.Module) -> dict[str, Site]:
    """{"main.3.attn": Site}: the sites of a model in the order of its modules, named by their place in it."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Site)}
