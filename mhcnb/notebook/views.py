"""What 03-stability and 04-compare look at: runs are found, their data gathered, and whatever is missing is said."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import pandas
from pydantic import Field

from mhcnb.analysis import comparable, compare, timeline
from mhcnb.analysis.compare import Member
from mhcnb.analysis.gains import Frame
from mhcnb.notebook.measured import Measured, gains_of, measure_member, products_of, sums_of
from mhcnb.notebook.parameters import checked
from mhcnb.paths import find
from mhcnb.run import find_runs
from mhcnb.sweep.collect import COLUMNS, collect

Folder = Annotated[str, Field(min_length=1)]
Rows = Annotated[int, Field(ge=1)]
Reduction = Literal["per_token_then_mean", "mean_matrix_then_max"]


class Stability(NamedTuple):
    """One run in the laboratory: mean res by site, mean composite by stack; gains and sums by depth; the frames of
    `analysis.measure`; the gains that it recorded while it trained."""

    name: str
    title: str
    figures: Path
    matrices: dict[str, np.ndarray]
    composites: dict[str, np.ndarray]
    gains: Frame
    sums: Frame
    maps: Frame
    streams: Frame
    timeline: Frame


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
    """Runs side by side: a table with a row each; loss curves and final figures; what differs besides the connection,
    in words; gains, the streams' likeness and whole products (one row a run) of the last checkpoints; gains over
    training."""

    members: list[Member]
    folder: Path
    table: Frame
    curves: Frame
    finals: Frame
    cautions: list[str]
    gains: Frame
    maps: Frame
    streams: Frame
    products: Frame
    timeline: Frame

    @property
    def figures(self) -> Path:
        """Where its figures go."""
        return self.folder / "figures"

    @property
    def differences(self) -> Frame:
        """Validation losses less those of residual."""
        return compare.to_baseline(self.curves)

    @property
    def entropy(self) -> float:
        """The unigram entropy of the validation text, where all runs name the same; else nan."""
        values = self.finals["unigram_entropy"].dropna().unique()
        return float(values[0]) if len(values) == 1 else float("nan")


@checked
def stability(runs: Folder, rows: Rows = 4, reduction: Reduction = "per_token_then_mean") -> Laboratory:
    """Every run at or below a folder that has a checkpoint, measured on `rows` windows of its validation data."""
    members = _members(runs)
    found = [view for member in members if (view := measure_member(member, rows, reduction))]
    for member in members:
        if why := timeline.why_none(member):
            print(why)
    return Laboratory([_view(view) for view in found], find(runs) / "figures")


@checked
def comparison(
    runs: Folder,
    rows: Rows = 4,
    reduction: Reduction = "per_token_then_mean",
    methods: str = "",
    presets: str = "",
) -> Comparison:
    """Every run at or below a folder whose method and preset match (comma-separated patterns, empty: all), read once;
    those with a checkpoint are measured as in `stability`."""
    members, words = comparable.filtered(_members(runs), methods, presets)
    print("\n".join(words), end="\n" * bool(words))
    found = [view for member in members if (view := measure_member(member, rows, reduction))]
    finals, recorded = compare.finals(members), timeline.timeline(members)
    if members and recorded.empty:
        print("No run recorded its maps while it trained (log.maps_every): nothing to show over training.")
    maps = pandas.concat([v.maps for v in found], ignore_index=True) if found else pandas.DataFrame({"setting": []})
    return Comparison(
        members=members,
        folder=find(runs),
        table=_table(find(runs), members),
        curves=compare.curves(members),
        finals=finals,
        cautions=[*comparable.incomparable(members), *comparable.cautions(members)],
        gains=gains_of(maps) if found else maps,
        maps=maps,
        streams=pandas.concat([v.streams for v in found], ignore_index=True) if found else maps,
        products=products_of(maps, finals) if found else maps,
        timeline=recorded,
    )


def by_setting(frame: Frame, name: str) -> Iterator[tuple[str, Frame]]:
    """(name of a figure, its part of the frame) for each setting: methods are compared within one."""
    settings = frame["setting"].unique()
    for setting in settings:
        suffix = "" if len(settings) == 1 else "-" + re.sub(r"[^A-Za-z0-9.=_-]+", "-", setting)
        yield name + suffix, frame[frame["setting"] == setting]


def _table(folder: Path, members: list[Member]) -> Frame:
    """The members' rows of the table of all runs below the folder."""
    if not members:
        return pandas.DataFrame(columns=list(COLUMNS))
    frame = collect([folder])
    return frame[frame["path"].isin([str(m.run.path) for m in members])].reset_index(drop=True)


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


def _view(m: Measured) -> Stability:
    run = m.member.run
    return Stability(
        name=run.name,
        title=f"{m.member.method} ({run.name})",
        figures=run.path / "figures",
        matrices=m.matrices,
        composites=m.composites,
        gains=gains_of(m.maps),
        sums=sums_of(m.maps),
        maps=m.maps,
        streams=m.streams,
        timeline=timeline.timeline([m.member]),
    )
