"""What 03-stability and 04-compare look at: runs are found, their data gathered, and whatever is missing is said."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import pandas
import torch
from pydantic import Field

from mhcnb import registry
from mhcnb.analysis import compare, gains
from mhcnb.analysis.compare import Member
from mhcnb.analysis.gains import Frame
from mhcnb.analysis.record import Record, record
from mhcnb.config import RunConfig
from mhcnb.errors import MhcnbError
from mhcnb.models.base import Batch
from mhcnb.notebook.parameters import checked
from mhcnb.paths import find
from mhcnb.run import find_runs
from mhcnb.training.checkpoint import load_model

Folder = Annotated[str, Field(min_length=1)]
Rows = Annotated[int, Field(ge=1)]
Reduction = Literal["per_token_then_mean", "mean_matrix_then_max"]


class Stability(NamedTuple):
    """One run in the laboratory: mean res by site, mean composite by stack, gains and sums by depth."""

    name: str
    title: str
    figures: Path
    matrices: dict[str, np.ndarray]
    composites: dict[str, np.ndarray]
    gains: Frame
    sums: Frame


class Laboratory(NamedTuple):
    """Several runs, and a folder for the figures that show all of them."""

    views: list[Stability]
    figures: Path

    @property
    def composites(self) -> dict[str, np.ndarray]:
        """The whole composite of each run, by its name, and by stack where there are several."""
        return {
            view.name if len(view.composites) == 1 else f"{view.name} {stack}": matrix
            for view in self.views
            for stack, matrix in view.composites.items()
        }


class Comparison(NamedTuple):
    """Runs side by side: loss curves, their differences to residual, final figures, the keys in which the
    configurations differ, gains by depth."""

    members: list[Member]
    figures: Path
    curves: Frame
    differences: Frame
    finals: Frame
    differing_keys: Frame
    gains: Frame

    @property
    def entropy(self) -> float:
        """The unigram entropy of the validation text, where all runs name the same; else nan."""
        values = self.finals["unigram_entropy"].dropna().unique()
        return float(values[0]) if len(values) == 1 else float("nan")


@checked
def stability(runs: Folder, rows: Rows = 4, reduction: Reduction = "per_token_then_mean") -> Laboratory:
    """Every run at or below a folder that has a checkpoint, recorded on `rows` windows of its validation data."""
    return Laboratory(_views(_members(runs), rows, reduction), find(runs) / "figures")


@checked
def comparison(runs: Folder, rows: Rows = 4, reduction: Reduction = "per_token_then_mean") -> Comparison:
    """Every run at or below a folder, read once; those with a checkpoint are recorded as in `stability`."""
    members = _members(runs)
    views = _views(members, rows, reduction)
    curves = compare.curves(members)
    return Comparison(
        members=members,
        figures=find(runs) / "figures",
        curves=curves,
        differences=compare.to_baseline(curves),
        finals=compare.finals(members),
        differing_keys=compare.differing_keys(members),
        gains=pandas.concat([v.gains for v in views]) if views else pandas.DataFrame({"setting": []}),
    )


def by_setting(frame: Frame, name: str) -> Iterator[tuple[str, Frame]]:
    """(name of a figure, its part of the frame) for each setting: methods are compared within one."""
    settings = frame["setting"].unique()
    for setting in settings:
        suffix = "" if len(settings) == 1 else "-" + re.sub(r"[^A-Za-z0-9.=_-]+", "-", setting)
        yield name + suffix, frame[frame["setting"] == setting]


def _members(runs: str) -> list[Member]:
    """The readable runs below a folder; prints the remarks, or what to do where there are none."""
    folder = find(runs)
    members, remarks = compare.read(find_runs(folder) if folder.is_dir() else [])
    print("\n".join([f"{folder}: {len(members)} runs", *remarks]))
    if not members:
        print(
            "Nothing to show yet. `make demo` trains the four methods in a few minutes and comes back here; one run:\n"
            f"  mhcnb train params/gpt/tiny.yaml connection.name=mhc --out {runs}/mhc\n"
            "Then run this notebook again."
        )
    return members


def _views(members: list[Member], rows: int, reduction: str) -> list[Stability]:
    """One view a run that has a checkpoint and data; says which and how much."""
    views = []
    for member in members:
        try:
            records, windows = _record(member, rows)
        except (MhcnbError, OSError) as error:
            print(f"{member.run.name}: no maps: {error}")
            continue
        print(f"{member.run.name}: {len(records)} maps recorded on {windows} windows of validation data")
        views.append(_view(member, records, reduction))
    return views


def _record(member: Member, rows: int) -> tuple[list[Record], int]:
    """(the maps of a run's last checkpoint, windows recorded), on this machine's accelerator where it has one."""
    model, config = load_model(member.run.path)
    place = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    batch = _validation(config, rows)
    return record(model.to(place), batch), len(batch["inputs"])


def _validation(config: RunConfig, rows: int) -> Batch:
    """The first of the windows that the run was evaluated on: the same for every method and seed."""
    source = registry.load("data", config.data.name)(config)
    total = config.train.micro_batch * config.train.eval_batches
    return source.evaluation_batch("val", 0, min(rows, total), total)


def _view(member: Member, records: list[Record], reduction: str) -> Stability:
    measured = gains.gains(records, reduction)
    measured = measured.assign(run=member.run.name, method=member.method, setting=member.setting)
    return Stability(
        name=member.run.name,
        title=f"{member.method} ({member.run.name})",
        figures=member.run.path / "figures",
        matrices=gains.mean_matrices(records),
        composites=gains.mean_composites(records),
        gains=measured,
        sums=gains.sums(records),
    )
