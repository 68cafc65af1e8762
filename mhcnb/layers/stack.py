"""expand -> sites -> reduce: the span in which the state is n streams."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mhcnb import registry
from mhcnb.connections.ends import Ends
from mhcnb.layers.site import Site

Branches = Mapping[str, tuple[nn.Module | None, ...]]  # label -> (branch, its norm, the norm after the write)
Context = dict[str, Any]


class Block(nn.ModuleDict):
    """Sites by label, one after the other."""

    @property
    def sites(self) -> list[Site]:
        """In order."""
        return list(self.values())  # type: ignore[arg-type]

    def forward(self, X: Tensor, first: int | None = None, **context: Any) -> Tensor:
        """X [*b, n, d] -> X' [*b, n, d]. Where no more is wanted of X [b, t, n, d] than the `first` tokens, the last
        site, whose branch looks at each token by itself, is spared the others."""
        *before, last = self.sites
        for site in before:
            X = site(X, **context)
        return last(X if first is None else X[:, :first], **context)


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
            for label, parts in branches.items():
                rule = make(connection, connection.streams, d, index, generator)
                block[label] = Site(rule, *parts)  # type: ignore[arg-type]
                index += 1
            self.add_module(str(i), block)
        self.ends = Ends(connection, d)

    @property
    def blocks(self) -> list[Block]:
        """In order."""
        return [self._modules[str(i)] for i in range(self.depth)]  # type: ignore[misc]

    def forward(self, x: Tensor, norm: Callable[[Tensor], Tensor], first: int | None = None, **context: Any) -> Tensor:
        """x [*b, d] through all sites and the final norm, [*b, d]; `first` as the last block has it."""
        *before, last = self.blocks
        X = self.ends.expand(x)
        if first is None:
            return self.ends.reduce(self.through([*before, last], X, context), norm)
        return self.ends.reduce(last(apply(before, X, context), first=first, **context), norm)
