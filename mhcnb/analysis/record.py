"""The maps that a model computes for one batch, read off its own sites: there is no analysis copy of a model."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mhcnb.connections.base import Maps
from mhcnb.layers.site import probing, sites
from mhcnb.models.base import Batch, Model, evaluating


class Record(NamedTuple):
    """One call of one site: pre, post [b, t, n] and res [b, t, n_out, n_in], detached, on the CPU.

    `call` counts from 0 and grows only where a site recurs.
    """

    site: str
    call: int
    maps: Maps


def record(model: Model, batch: Batch) -> list[Record]:
    """The maps of every call of every site for one batch, in call order; without gradient, in evaluation mode."""
    records: list[Record] = []
    calls: Counter[str] = Counter()

    def keep(site: str, X: Tensor, maps: Maps) -> None:
        records.append(Record(site, calls[site], Maps(*(m.detach().cpu() for m in maps))))
        calls[site] += 1

    with observing(model, keep):
        run(model, batch)
    return records


def run(model: Model, batch: Batch) -> None:
    """One forward pass, on the model's device."""
    place = next(model.parameters()).device
    batch = {name: value.to(place) for name, value in batch.items()}
    model(batch, model.initial_carry(batch))


@contextmanager
def observing(model: nn.Module, keep: Callable[[str, Tensor, Maps], None]) -> Iterator[None]:
    """`keep(site, X, maps)` is called by every site, X [*b, n, d] the state that enters it. Meanwhile there are no
    gradients and no dropout; afterwards everything is as it was."""
    with evaluating(model), _probing(model, keep), torch.no_grad():
        yield


@contextmanager
def _probing(model: nn.Module, keep: Callable[[str, Tensor, Maps], None]) -> Iterator[None]:
    """A hook at each site holds its X until the connection's probe tells the maps."""
    entering: dict[str, Tensor] = {}

    def enter(name: str, site: nn.Module, args: tuple) -> None:
        entering[name] = args[0]

    hooks = [site.register_forward_pre_hook(partial(enter, name)) for name, site in sites(model).items()]
    try:
        with probing(model, lambda site, maps: keep(site, entering.pop(site), maps)):
            yield
    finally:
        for hook in hooks:
            hook.remove()
