"""Runs side by side, read off their folders: loss curves and final figures. A run that is unfinished,
damaged or diverged never stops a comparison; it is left out or shown as far as it goes, and a remark says so."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pandas

from mhcnb.analysis.gains import Frame
from mhcnb.config import RunConfig, as_dict, flatten
from mhcnb.errors import MhcnbError
from mhcnb.run import Run

BASELINE = "residual"
FIGURES = ("tokens_per_s", "peak_memory_gb", "params", "total_time_s", "first_val_loss")


class Member(NamedTuple):
    """A run in a comparison, read once. Methods are compared within a setting (preset, and what else varies)."""

    run: Run
    config: RunConfig
    status: dict[str, Any]
    summary: dict[str, Any]
    env: dict[str, Any]
    results: list[dict[str, Any]]
    method: str = ""
    setting: str = ""


def read(runs: Iterable[Run]) -> tuple[list[Member], list[str]]:
    """The readable runs, labelled, and a remark for each that is left out, unfinished or not finite."""
    members, remarks = [], []
    for run in runs:
        try:
            members.append(Member(run, run.config, run.status(), run.summary(), run.env(), run.results()))
        except (MhcnbError, OSError) as error:
            remarks.append(f"{run.name} is left out: {error}")
    members = sorted(_label(members), key=lambda m: m.method != BASELINE)  # first what others are compared with
    return members, remarks + [remark for member in members for remark in _remarks(member)]


def curves(members: Iterable[Member]) -> Frame:
    """run, method, setting, seed, split (train, val), step, loss: train as logged, val as evaluated."""
    rows = []
    for m in members:
        for record in m.results:
            split, key = {"train": ("train", "loss"), "eval": ("val", "val_loss")}.get(record.get("type", ""), ("", ""))
            if record.get(key) is not None:
                rows.append((m.run.name, m.method, m.setting, m.config.seed, split, record["step"], record[key]))
    frame = pandas.DataFrame(rows, columns=["run", "method", "setting", "seed", "split", "step", "loss"])
    return frame.astype({"loss": float})  # also where there is none yet


def to_baseline(curves: Frame) -> Frame:
    """Validation losses less those of residual at the same setting, seed and step, as column `difference`; where
    there is no such residual, nothing. All runs see the same windows, so what is hard about them cancels."""
    val, key = curves[curves["split"] == "val"], ["setting", "seed", "step"]
    base = val[val["method"] == BASELINE].groupby(key)["loss"].mean().rename("base").reset_index()
    paired = val[val["method"] != BASELINE].merge(base, on=key)
    return paired.assign(difference=paired["loss"] - paired["base"]).drop(columns="base")


def finals(members: Iterable[Member]) -> Frame:
    """A row a run: run, method, setting, seed, state, step, val_loss, train_loss, the FIGURES, unigram_entropy.

    Losses of a run without summary are its latest; what nothing tells is nan.
    """
    rows = []
    for m in members:
        last = next((r for r in reversed(m.results) if r.get("type") == "eval"), {})
        row: dict[str, Any] = dict(run=m.run.name, method=m.method, setting=m.setting, seed=m.config.seed)
        row |= dict(state=m.status.get("state", "unknown"), step=m.status.get("step", 0))
        for loss in ("val_loss", "train_loss"):
            row[loss] = _number(m.summary.get(f"final_{loss}", last.get(loss)))
        row |= {figure: _number(m.summary.get(figure)) for figure in FIGURES}
        row["unigram_entropy"] = _number((m.env.get("data") or {}).get("val_unigram_entropy"))
        rows.append(row)
    columns = ["run", "method", "setting", "seed", "state", "step", "val_loss", "train_loss", *FIGURES]
    return pandas.DataFrame(rows, columns=[*columns, "unigram_entropy"])


def _remarks(member: Member) -> list[str]:
    """What a reader of the figures must know about one run."""
    state, step, steps = member.status.get("state"), member.status.get("step", 0), member.config.train.steps
    losses = [r[key] for r in member.results for key in ("loss", "val_loss") if r.get(key) is not None]
    found = []
    if state != "done":
        reason = f" ({member.status['reason']})" if member.status.get("reason") else ""
        found.append(f"{member.run.name} is {state or 'without a status'}, step {step} of {steps}{reason}")
    if not losses:
        found.append(f"{member.run.name} has no losses yet")
    if any(not math.isfinite(loss) for loss in losses):
        found.append(f"{member.run.name} has losses that are not finite; its curve ends there")
    return found


def _label(members: list[Member]) -> list[Member]:
    """Method: the connection's name and those of its fields that vary within it. Setting: the preset, likewise."""

    def method(values: dict[str, Any]) -> dict[str, Any]:
        return {key.removeprefix("connection."): v for key, v in values.items() if key.startswith("connection.")}

    def setting(values: dict[str, Any]) -> dict[str, Any]:
        return {key: v for key, v in values.items() if not key.startswith(("connection.", "seed", "log."))}

    methods, settings = _names(members, "name", method), _names(members, "preset", setting)
    return [m._replace(method=name, setting=where) for m, name, where in zip(members, methods, settings, strict=True)]


def _names(members: list[Member], main: str, select: Callable[[dict[str, Any]], dict[str, Any]]) -> list[str]:
    """For each run, the value of `main`, then the other selected values that differ among those that share it."""
    selected = [select(flat(m.config)) for m in members]
    alike: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for values in selected:
        alike[values[main]].append(values)
    result = []
    for member, values in zip(members, selected, strict=True):
        group = alike[values[main]]
        varying = [key for key in values if any(str(other.get(key)) != str(values[key]) for other in group)]
        if "dialect" in varying:  # it names what it fills
            varying = [key for key in varying if key not in type(member.config.connection).presets(values)]
        result.append(" ".join([values[main], *(f"{key}={values[key]}" for key in varying)]))
    return result


def flat(config: RunConfig) -> dict[str, Any]:
    """The configuration as {dotted key: value}."""
    return flatten(as_dict(config))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
