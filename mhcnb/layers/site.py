"""Where a connection sits."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from mhcnb.connections.base import Branch, Connection, Maps, Probe


def call_branch(branch: Branch, u: Tensor, **context: Any) -> Tensor:
    """branch(u). Recomputation calls it in another way."""
    return branch(u, **context)


class Site(nn.Module):
    """One connection around one branch. `pre_norm` belongs to the branch, the input of both is [*b, d]; `post_norm`
    comes after the write, on each stream [*b, n, d]."""

    def __init__(
        self,
        connection: Connection,
        branch: nn.Module,
        pre_norm: nn.Module | None = None,
        post_norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.connection, self.branch = connection, branch
        self.pre_norm: Callable[[Tensor], Tensor] | None = pre_norm
        self.post_norm: Callable[[Tensor], Tensor] | None = post_norm

    def forward(self, X: Tensor, call: Callable[..., Tensor] = call_branch, **context: Any) -> Tensor:
        """X [*b, n, d] -> X' [*b, n, d]. The branch f is called as `call(f, norm(u), **context)`."""

        def normed(u: Tensor, **context: Any) -> Tensor:
            return call(self.branch, u if self.pre_norm is None else self.pre_norm(u), **context)

        X = self.connection(X, normed, **context)
        return X if self.post_norm is None else self.post_norm(X)


def sites(model: nn.Module) -> dict[str, Site]:
    """{"main.3.attn": Site}: the sites of a model in the order of its modules, named by their place in it."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Site)}


@contextmanager
def probing(
    model: nn.Module, probe: Callable[[str, Maps], Maps | None], names: Iterable[str] | None = None
) -> Iterator[None]:
    """`probe(site, maps)` is called by the named sites (all) for a while; what it returns, if anything, replaces the
    maps. It sees what the probes that were there before it made of them; those are back afterwards."""
    found = sites(model)
    connections = {name: found[name].connection for name in (found if names is None else names)}
    before = {name: connection.probe for name, connection in connections.items()}
    try:
        for name, connection in connections.items():
            connection.probe = _after(before[name], lambda maps, name=name: probe(name, maps))
        yield
    finally:
        for name, connection in connections.items():
            connection.probe = before[name]


def _after(first: Probe | None, second: Probe) -> Probe:
    if first is None:
        return second

    def both(maps: Maps) -> Maps:
        maps = first(maps) or maps
        return second(maps) or maps

    return both
