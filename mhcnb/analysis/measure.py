"""The connections of a model over many batches: statistics per token, in memory that does not grow with the tokens."""

from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mhcnb.analysis.gains import REDUCTIONS, Frame, Product, products, require_reduction, spans, stack_of
from mhcnb.analysis.quantities import REFERENCES, all_quantities
from mhcnb.analysis.record import Record, observing, run
from mhcnb.analysis.running import Running
from mhcnb.analysis.streams import state
from mhcnb.connections.base import Connection, Maps
from mhcnb.errors import DataError
from mhcnb.layers.site import sites
from mhcnb.models.base import Batch, Model

TOKENS = 1024  # at a time: their matrices stay in cache
CALL = ("site", "call", "index")
STATE = ("stack", "call", "depth", "index", "site", "quantity")
PRODUCT = ("stack", "call", "depth", "index", "site", "scope", "quantity")
RANGE = 30.0  # of Sinkhorn's logits: above it, 20 rounds may leave a side far from one (mHC-lite section 3)


class Measurement(NamedTuple):
    """What `measure` found; the columns of each frame follow.

    maps: stack, call, depth, index, site, scope, quantity; mean, min, max, p50, p99, worst (the token, counted over
        all batches, whose value is furthest from the quantity's REFERENCE; -1 for an average matrix), reduction
    streams: stack, call, depth, index, site, quantity; mean, min, max. Of the state that enters the site; at
        `{stack}.exit` of the one that is reduced. cosine: mean over pairs of streams, 1 for one stream;
        effective_rank: exp of the entropy of σ/Σσ; rms_0, rms_1, ...: of each stream
    inputs: site, call, index; mean, p50, p99, max of the range of logits, log(1/ν), and share_above_30
    coefficients: site, call, index, quantity; mean, min, max of pre_0, ..., post_0, ..., gate_pre, gate_post, gate_res
    """

    maps: Frame
    streams: Frame
    inputs: Frame
    coefficients: Frame
    tokens: int
    reduction: str


class _Visit(NamedTuple):
    """One call of one site, reduced to what is kept: all but `maps` are [T] by name, in float64 on the CPU."""

    record: Record
    streams: dict[str, Tensor]
    coefficients: dict[str, Tensor]
    span: Tensor | None


def measure(model: Model, batches: Iterable[Batch], reduction: str = REDUCTIONS[0]) -> Measurement:
    """Measures all tokens of the batches, one batch at a time; without gradient, in evaluation mode.

    `reduction`: each token's quantities, then statistics over tokens; or the quantities of each average matrix
    (which concerns the frame `maps` alone). Raises DataError where there is no batch, or calls differ between batches.
    """
    require_reduction(reduction)
    series = _Series(reduction)
    for batch in batches:
        visits, exits = _observe(model, batch)
        series.add(visits, exits)
    return series.result()


def _observe(model: Model, batch: Batch) -> tuple[list[_Visit], dict[tuple[str, int], dict[str, Tensor]]]:
    """The visits of one batch, and the states that leave each span, by (stack, call)."""
    visits: list[_Visit] = []
    exits: dict[tuple[str, int], dict[str, Tensor]] = {}
    calls: Counter[str] = Counter()
    found = sites(model)
    last = {stack_of(name): site for name, site in found.items()}

    def keep(name: str, X: Tensor, maps: Maps) -> None:
        kept = Maps(*(m.flatten(end_dim=-2 - (m is maps.res)).cpu() for m in maps))
        connection = found[name].connection
        span = _range(connection, X)
        visits.append(_Visit(Record(name, calls[name], kept), state(X), _coefficients(connection, kept), span))
        calls[name] += 1

    def leave(stack: str, site: nn.Module, args: tuple, X: Tensor) -> None:
        exits[stack, sum(s == stack for s, _ in exits)] = state(X)

    with ExitStack() as hooks, observing(model, keep):
        for stack, site in last.items():
            hooks.callback(site.register_forward_hook(partial(leave, stack)).remove)
        run(model, batch)
    return visits, exits


def _range(connection: Connection, X: Tensor) -> Tensor | None:
    """log(1/ν) [T]: the largest less the smallest logit, where a Sinkhorn follows; ν is the ratio of exp(logits)."""
    if not hasattr(connection.config, "iterations"):
        return None
    logits = connection.logits(X).res.flatten(end_dim=-2)
    return (logits.amax(-1) - logits.amin(-1)).cpu().double()


def _coefficients(connection: Connection, maps: Maps) -> dict[str, Tensor]:
    """pre and post by stream [T], and the learned gates [1], which are no function of the token."""
    found = {
        f"{name}_{i}": values[:, i].double()
        for name, values in (("pre", maps.pre), ("post", maps.post))
        for i in range(values.shape[-1])
    }
    gate = getattr(connection, "gate", None)
    if gate is None:
        return found
    used = zip(("pre", "post", "res")[: 3 if connection.res_width else 2], connection.gates, strict=False)
    return found | {f"gate_{name}": gate[i].detach().cpu().double().expand(len(maps.pre)) for name, i in used}


class _Series:
    """The running statistics behind a Measurement, each a table of named rows."""

    def __init__(self, reduction: str) -> None:
        self.reduction, self.tokens = reduction, 0
        self.keys: dict[str, list[tuple]] = {}
        self.running: dict[str, Running] = {}
        self.above = torch.zeros(0, dtype=torch.int64)
        self.average: Tensor | None = None  # [products, n, n]: the sum of all tokens' matrices, where that is asked for

    def add(self, visits: list[_Visit], exits: dict[tuple[str, int], dict[str, Tensor]]) -> None:
        """The tokens of one batch."""
        records = [v.record for v in visits]
        count = len(records[0].maps.res)
        for first in range(0, count, TOKENS):
            part = slice(first, first + TOKENS)
            self._matrices([r._replace(maps=Maps(*(m[part] for m in r.maps))) for r in records])
        self._grow("streams", _flat(_states(visits, exits)))
        calls = {(v.record.site, v.record.call, index): v for index, v in enumerate(visits, 1)}
        self._grow("coefficients", _flat({key: v.coefficients for key, v in calls.items()}))
        ranges = {key: v.span for key, v in calls.items() if v.span is not None}
        self._grow("inputs", ranges, quantiles=True)
        if ranges:
            above = (torch.stack(list(ranges.values())) > RANGE).sum(1)
            self.above = self.above + above if len(self.above) else above
        self.tokens += count

    def _matrices(self, records: list[Record]) -> None:
        walk = list(products(records))
        P = torch.stack([p.P for p in walk])
        if self.reduction == REDUCTIONS[0]:
            self._grow("maps", _by_quantity(walk, P), quantiles=True)
            return
        self._same("maps", list(_by_quantity(walk, P[:, :0])))
        total = P.sum(1)
        self.average = total if self.average is None else self.average + total

    def _grow(self, table: str, values: dict[tuple, Tensor], quantiles: bool = False) -> None:
        self._same(table, list(values))
        if not values:
            return
        if table not in self.running:
            self.running[table] = Running(torch.tensor([REFERENCES.get(key[-1], 0.0) for key in values]), quantiles)
        self.running[table].add(torch.stack(list(values.values())))

    def _same(self, table: str, keys: list[tuple]) -> None:
        if self.keys.setdefault(table, keys) != keys:
            raise DataError("two batches do not call the same sites equally often; measure them apart")

    def result(self) -> Measurement:
        """The frames."""
        if not self.tokens:
            raise DataError("nothing to measure: no batch was given; give at least one")
        inputs = self._frame("inputs", CALL, ("mean", "p50", "p99", "max"))
        inputs["share_above_30"] = (self.above / self.tokens).tolist()
        return Measurement(
            maps=self._frame("maps", PRODUCT, ("mean", "min", "max", "p50", "p99", "worst")).assign(
                reduction=self.reduction
            ),
            streams=self._frame("streams", STATE, ("mean", "min", "max")),
            inputs=inputs,
            coefficients=self._frame("coefficients", (*CALL, "quantity"), ("mean", "min", "max")),
            tokens=self.tokens,
            reduction=self.reduction,
        )

    def _frame(self, table: str, names: tuple[str, ...], columns: tuple[str, ...]) -> Frame:
        import pandas

        keys = pandas.DataFrame(self.keys[table], columns=list(names))
        if table == "maps" and self.average is not None:
            values = torch.stack([of for of in all_quantities(self.average / self.tokens).values()], 1).flatten()
            return keys.assign(**{column: values.numpy() if column != "worst" else -1 for column in columns})
        of = self.running.get(table)
        return keys.assign(**{column: of.column(column).numpy() if of else [] for column in columns})


def _by_quantity(walk: list[Product], P: Tensor) -> dict[tuple, Tensor]:
    """{(stack, call, depth, index, site, scope, quantity): [T]} of matrices P [products, T, n, n]."""
    found = all_quantities(P)
    return {(*p[:-1], name): values[i] for i, p in enumerate(walk) for name, values in found.items()}


def _states(visits: list[_Visit], exits: dict[tuple[str, int], dict[str, Tensor]]) -> dict[tuple, dict[str, Tensor]]:
    """The state that enters each site, then the one that leaves each span, by (stack, call, depth, index, site)."""
    entering = {(v.record.site, v.record.call): v.streams for v in visits}
    found = {}
    for (stack, call), span in spans([v.record for v in visits]).items():
        for depth, index, r in span:
            found[stack, call, depth, index, r.site] = entering[r.site, r.call]
        depth, index, _ = span[-1]
        found[stack, call, depth + 1, index, f"{stack}.exit"] = exits[stack, call]
    return found


def _flat(by_key: dict[tuple, dict[str, Tensor]]) -> dict[tuple, Tensor]:
    return {(*key, name): values for key, found in by_key.items() for name, values in found.items()}
