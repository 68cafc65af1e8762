"""What a connection costs against the streams, the width, the tokens and the depth; and in memory."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mhcnb.bench.gpt import Size, gpt
from mhcnb.bench.measure import side_by_side
from mhcnb.bench.place import Place, one_thread, there_and_back
from mhcnb.errors import ConfigError

STREAMS = 4  # where something else varies
FIELDS = {"C": "width", "T": "tokens", "depth": "layers"}  # axis -> field of Size; n belongs to the connection
COLUMNS = ("axis", "value", "method", "ratio", "low", "high")
KINDS = ("none", "connection", "block")  # of train.recompute


def costs(size: Size, axes: Mapping[str, Sequence[int]], methods: Sequence[str], where: Place, rounds: int) -> Any:
    """A frame axis, value, method, ratio, low, high: forward and backward of a GPT, and the quartiles of its time, over
    residual's, as one of n, C, T, depth varies from `size` and 4 streams. A method that cannot have a value (mhc_lite
    at n = 8) has no row there. Raises ConfigError for an unknown axis or method."""
    import pandas

    rows = []
    for axis, values in axes.items():
        if axis != "n" and axis not in FIELDS:
            raise ConfigError(f"no axis is called {axis!r}; known: n, {', '.join(FIELDS)}")
        for value in values:
            at = size if axis == "n" else _varied(size, axis, value)
            streams = value if axis == "n" else STREAMS
            rows += [{"axis": axis, "value": value, **row} for row in _point(at, streams, methods, where, rounds)]
    return pandas.DataFrame(rows, columns=[*COLUMNS])


def _varied(size: Size, axis: str, value: int) -> Size:
    """Heads keep their width."""
    heads = max(1, size.heads * value // size.width) if axis == "C" else size.heads
    return size._replace(**{FIELDS[axis]: value}, heads=heads)


def _point(size: Size, streams: int, methods: Sequence[str], where: Place, rounds: int) -> list[dict[str, Any]]:
    batch = size.batch_of(where.device)
    losses = {"residual": gpt("residual", size)}
    for name in methods:
        if name != "residual":
            try:
                losses[name] = gpt(name, size, streams=streams)
            except ConfigError:  # more streams than it can have
                continue
    with one_thread():
        contenders = {name: there_and_back(loss, batch, where) for name, loss in losses.items()}
        base, *others = side_by_side("costs", contenders, rounds)
    return [
        dict(method=t.name, ratio=t.ratio, low=t.low_s / base.median_s, high=t.high_s / base.median_s) for t in others
    ]


def memory(size: Size, methods: Sequence[str], dtype: torch.dtype = torch.float32) -> Any:
    """A frame method, recompute, activations, update: bytes of one training process, from shapes alone; see
    training.footprint. `activations`: kept for backward; `update`: the most at any moment of an update."""
    import pandas

    from mhcnb.training.footprint import memory as counted

    rows = []
    for name in methods:
        for kind in KINDS:
            config = size.config({"name": name}, recompute=kind, micro_batch=size.batch)
            found = counted(config, dtype)
            rows.append(dict(method=name, recompute=kind, activations=found.activations, update=found.update))
    return pandas.DataFrame(rows)
