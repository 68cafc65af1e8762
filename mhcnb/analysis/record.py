"""The maps that a model computes for one batch, read off its own sites: there is no analysis copy of a model."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

from mhcnb.connections.base import Maps
from mhcnb.layers.site import sites
from mhcnb.models.base import Batch, Model


class Record(NamedTuple):
    """One call of one site: pre, post [b, t, n] and res [b, t, n_out, n_in], detached, on the CPU.

    `call` counts from 0 and grows only where a site recurs.
    """

    site: str
    call: int
    maps: Maps


def record(model: Model, batch: Batch) -> list[Record]:
    """The maps of every call of every site for one batch, in call order; without gradient, in evaluation mode."""
    place = next(model.parameters()).device
    batch = {name: value.to(place) for name, value in batch.items()}
    records: list[Record] = []
    calls: Counter[str] = Counter()

    def keep(site: str, maps: Maps) -> None:
        records.append(Record(site, calls[site], Maps(*(m.detach().cpu() for m in maps))))
        calls[site] += 1

    with _evaluating(model), _probing(model, keep), torch.no_grad():
        model(batch, model.initial_carry(batch))
    return records


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; afterwards every module trains or not as before, frozen parts included."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


@contextmanager
def _probing(model: nn.Module, keep: Callable[[str, Maps], None]) -> Iterator[None]:
    """`keep(site, maps)` is called by every site for a while; afterwards the probes are those that were there."""
    connections = {name: site.connection for name, site in sites(model).items()}
    before = {name: connection.probe for name, connection in connections.items()}
    try:
        for name, connection in connections.items():
            connection.probe = lambda maps, site=name: keep(site, maps)
        yield
    finally:
        for name, connection in connections.items():
            connection.probe = before[name]
