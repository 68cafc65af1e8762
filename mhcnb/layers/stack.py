"""expand -> sites -> reduce: the span in which the state is n streams."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mhcnb import registry
from mhcnb.connections.ends import Ends
from mhcnb.layers.site import Site

Branches = Mapping[str, tuple[nn.Module, nn.Module | None]]  # label -> (branch, its norm)
Context = dict[str, Any]


class Block(nn.ModuleDict):
    """Sites by label, one after the other."""

    @property
    def sites(self) -> list[Site]:
        """In order."""
        return list(self.values())  # type: ignore[arg-type]

    def forward(self, X: Tensor, **context: Any) -> Tensor:
        """X [*b, n, d] -> X' [*b, n, d]."""
        for site in self.values():
            X = site(X, **context)
        return X


def apply(blocks: Sequence[Block], X: Tensor, context: Context) -> Tensor:
    """The plain way through blocks: backward finds all their activations kept."""
    for block in blocks:
        X = block(X, **context)
    return X


class Stack(nn.Module):
    """Blocks of named branches, each behind its own connection. Sites are counted over the stack, so that the
    attention of block i has index 2i and its MLP 2i + 1; they are named `{stack}.{i}.{label}`."""

    def __init__(self, connection: Any, d: int, blocks: Sequence[Branches], generator: torch.Generator) -> None:
        super().__init__()
        make, index = registry.load("connections", connection.name), 0
        self.depth = len(blocks)
        self.through: Callable[[Sequence[Block], Tensor, Context], Tensor] = apply  # set by `recompute`
        for i, branches in enumerate(blocks):
            block = Block()
            for label, (branch, norm) in branches.items():
                rule = make(connection, connection.streams, d, index, generator)
                block[label] = Site(rule, branch, norm)
                index += 1
            self.add_module(str(i), block)
        self.ends = Ends(connection, d)

    @property
    def blocks(self) -> list[Block]:
        """In order."""
        return [self.get_submodule(str(i)) for i in range(self.depth)]  # type: ignore[misc]

    def forward(self, x: Tensor, norm: Callable[[Tensor], Tensor], **context: Any) -> Tensor:
        """x [*b, d] through all sites and the final norm, [*b, d]."""
        return self.ends.reduce(self.through(self.blocks, self.ends.expand(x), context), norm)
