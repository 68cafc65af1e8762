"""What a run's last checkpoint does on windows of its validation data, as frames that say whose they are."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas
import torch

from mhcnb import registry
from mhcnb.analysis.compare import Member
from mhcnb.analysis.gains import Frame, mean_composites, mean_matrices
from mhcnb.analysis.measure import Measurement, measure
from mhcnb.analysis.record import record
from mhcnb.config import RunConfig
from mhcnb.data.base import Source
from mhcnb.errors import MhcnbError
from mhcnb.models.base import Batch, Model
from mhcnb.training.checkpoint import load_model

AT_ONCE = 16  # windows in a batch
PLACE = ["stack", "call", "depth", "index", "site", "scope"]
WHOSE = ["run", "method", "setting", "reduction"]


class Measured(NamedTuple):
    """A run's mean res by site and mean composite by stack, and the frames of `analysis.measure`, each with the
    columns run, method, setting and reduction."""

    member: Member
    matrices: dict[str, np.ndarray]
    composites: dict[str, np.ndarray]
    maps: Frame
    streams: Frame
    inputs: Frame
    coefficients: Frame


def measure_member(member: Member, rows: int, reduction: str) -> Measured | None:
    """The run's last checkpoint on `rows` windows of its validation data; says in words what was measured, or why
    nothing could be: no checkpoint, a damaged one, no data."""
    try:
        model, config = load_model(member.run.path)
        place = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
        batches, found = _validation(config, rows), model.to(place)
        first, measurement = next(_validation(config, 1)), measure(found, batches, reduction)
    except (MhcnbError, OSError) as error:
        print(f"{member.run.name}: no maps: {error}")
        return None
    say = f"{measurement.tokens:,} tokens in {_rows(config, rows)} windows of validation data"
    wrong = sum(not np.isfinite(v) for v in measurement.maps["mean"])
    if wrong:
        say += f"; {wrong} of {len(measurement.maps)} values are not finite: nan or overflow in its weights or maps"
    sites = measurement.maps[["site", "call"]].drop_duplicates()
    print(f"{member.run.name}: {len(sites)} maps of {say}")
    return _view(member, found, first, measurement)


def gains_of(maps: Frame) -> Frame:
    """A row a product with the columns forward and backward, as `plots.gains` draws them."""
    names = {"amax_forward": "forward", "amax_backward": "backward"}
    part = maps[maps["quantity"].isin(names)]
    table = part.pivot(index=PLACE + WHOSE, columns="quantity", values="mean").rename(columns=names)
    return table.reset_index().rename_axis(columns=None)


def sums_of(maps: Frame) -> Frame:
    """A row a product with each side's mean and worst deviation from 1 and the smallest column sum."""
    index, found = PLACE + WHOSE, {}
    for side in ("row", "column"):
        part = maps[maps["quantity"] == f"{side}_deviation"].set_index(index)
        found |= {f"{side}_mean_deviation": part["mean"], f"{side}_max_deviation": part["max"]}
    found["column_min"] = maps[maps["quantity"] == "min_column_sum"].set_index(index)["min"]
    return pandas.DataFrame(found).reset_index()


def products_of(maps: Frame, finals: Frame) -> Frame:
    """A row a run: its finals (method, setting, seed, val_loss, ...), sites, and forward and backward of the product
    of all its maps; where a model has several stacks or calls, of the one with the largest gain."""
    gains = gains_of(maps)
    whole = gains[gains["scope"] == "prefix"].sort_values("depth").groupby(["run", "stack", "call"]).tail(1)
    sites = gains[gains["scope"] == "single"].groupby("run").size().rename("sites")
    sides = whole.groupby("run")[["forward", "backward"]].max()
    whose = whole.groupby("run")["reduction"].first()
    return finals.merge(sides.join([sites, whose]).reset_index(), on="run")


def _view(member: Member, model: Model, batch: Batch, m: Measurement) -> Measured:
    own: dict[str, Any] = dict(run=member.run.name, method=member.method, setting=member.setting)
    own |= dict(reduction=m.reduction)
    records = record(model, batch)
    frames = (frame.assign(**own) for frame in (m.maps, m.streams, m.inputs, m.coefficients))
    return Measured(member, mean_matrices(records), mean_composites(records), *frames)


def _rows(config: RunConfig, rows: int) -> int:
    return min(rows, config.train.micro_batch * config.train.eval_batches)


def _validation(config: RunConfig, rows: int) -> Iterator[Batch]:
    """The first of the windows that the run was evaluated on: the same for every method and seed."""
    source: Source = registry.load("data", config.data.name)(config)
    total, wanted = config.train.micro_batch * config.train.eval_batches, _rows(config, rows)
    for first in range(0, wanted, AT_ONCE):
        yield source.evaluation_batch("val", first, min(AT_ONCE, wanted - first), total)
