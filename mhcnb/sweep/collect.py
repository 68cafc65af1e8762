"""Many runs as one table. Reads run folders only, finished or not."""

import logging
import math
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhcnb import yamlfile
from mhcnb.config import flatten
from mhcnb.durable import write_text
from mhcnb.errors import MhcnbError, RunError
from mhcnb.records import last_record
from mhcnb.run import Run, find_runs
from mhcnb.sweep.folder import RECORD, read_record
from mhcnb.sweep.state import judged

if TYPE_CHECKING:
    from pandas import DataFrame

log = logging.getLogger(__name__)
FIELDS = ("connection", "model", "preset", "seed", "steps", "first_val_loss", "final_val_loss", "final_train_loss")
FIELDS += ("tokens_per_s", "peak_memory_gb", "total_time_s", "params", "world_size")
SHARES = {"final_accuracy": "cells", "final_blank_accuracy": "blank cells", "final_exact_accuracy": "exact"}
FIELDS += tuple(SHARES)  # of puzzles that are right, where it is about puzzles
COLUMNS = ("run", "path", "state", "step", *FIELDS, "reason")
SAID = {"connection.name": "connection", "model.name": "model", "preset": "preset", "seed": "seed"}
SAID |= {"train.steps": "steps"}  # keys of the configuration that have a column anyway
ATTEMPT = "train.resume"  # how a run came about, not what it is
ENDED = ("done", "stopped", "failed", "diverged")  # what a run says at its end
Row = dict[str, Any]


def collect(paths: Iterable[str | Path]) -> "DataFrame":
    """A row for each run in the given run, sweep or other folders: run, path, state, step, the fields of summary.json,
    the reason of an end, and every key of the configurations that differs among them.

    An unfinished run has the losses of its last evaluation; a cell without a run has its state alone. What is damaged
    is said in the log and left empty. Raises RunError for a path with nothing in it.
    """
    import pandas

    rows: dict[Path, Row] = {}
    configs: dict[Path, Row] = {}
    for path in map(Path, paths):
        found = _folders(path)
        if not found:
            raise RunError(f"no run in {path}; `mhcnb train PARAMS --out DIR` makes one")
        for folder, entry, driver in found:
            where = folder.resolve()
            configs[where] = _config(folder)
            rows.setdefault(where, _row(folder, entry, driver, configs[where]))
    keys = _differing([config for config in configs.values() if config])
    table = [row | {key: _plain(configs[where].get(key)) for key in keys} for where, row in rows.items()]
    return pandas.DataFrame(table, columns=[*COLUMNS, *keys])


def export(frame: "DataFrame", folder: Path) -> list[Path]:
    """Writes the table as results.csv and results.md; returns the paths. Raises RunError where the disk refuses."""
    texts = {"results.csv": frame.to_csv(index=False), "results.md": markdown(frame)}
    try:
        for name, text in texts.items():
            write_text(folder / name, text)
    except OSError as error:
        raise RunError(f"cannot write to {folder}: {error.strerror} (errno {error.errno})") from error
    return [folder / name for name in texts]


def table(frame: "DataFrame") -> str:
    """Plain text: method, size, seed, differing keys, losses in nats, for puzzles the shares that are right, tokens/s,
    memory, time, parameters, state."""
    heads, rows, left = _texts(frame)
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = []
    for row in [heads, ["-" * width for width in widths], *rows]:
        cells = zip(heads, row, widths, strict=True)
        lines.append("  ".join(f"{x:<{w}}" if head in left else f"{x:>{w}}" for head, x, w in cells).rstrip())
    return "\n".join(lines)


def markdown(frame: "DataFrame") -> str:
    """The same as a pipe table."""
    heads, rows, left = _texts(frame)
    marks = ["---" if head in left else "--:" for head in heads]
    escaped = [[x.replace("|", "\\|") for x in row] for row in [heads, marks, *rows]]
    return "\n".join(f"| {' | '.join(row)} |" for row in escaped) + "\n"


def _texts(frame: "DataFrame") -> tuple[list[str], list[list[str]], set[str]]:
    """(heads, rows, the heads of words), all text. Of the keys that differ, those that do so within a method and size:
    what a method or a size brings with it is said by its name."""
    groups = frame.groupby(["connection", "preset"], dropna=False)
    keys = [key for key in frame.columns if key not in COLUMNS and max(groups[key].nunique(), default=0) > 1]
    shares = [name for name in SHARES if len(frame[name].dropna())]
    heads = ["method", "size", "seed", *keys, "val loss", "train loss", *(SHARES[name] for name in shares)]
    heads += ["tokens/s", "memory", "time", "parameters", "state"]
    rows = [_cells(row, keys, shares) for row in frame.to_dict("records")]
    known = len(keys) + 3
    if len({tuple(row[:known]) for row in rows}) < len(rows) or any(row[0] == "-" for row in rows):  # which is which?
        names = frame["path" if len(set(frame["run"])) < len(frame) else "run"]
        heads, rows = ["run", *heads], [[name, *row] for name, row in zip(names, rows, strict=True)]
    return heads, rows, {"run", "method", "size", "state", *keys}


def _folders(path: Path) -> list[tuple[Path, Row, Row]]:
    """(folder, its entry in cells.json, the driver) of each run at or below `path`, and of the cells without one."""
    cells: dict[Path, tuple[Row, Row]] = {}
    for sweep in sorted(record.parent for record in path.rglob(RECORD)):
        if record := _read(partial(read_record, sweep)):
            driver = record.get("driver", {})
            cells |= {sweep / name: (entry, driver) for name, entry in record.get("cells", {}).items()}
    inside = {run.path for run in find_runs(path)}
    return [(folder, *told) for folder, told in cells.items()] + [(f, {}, {}) for f in sorted(inside - cells.keys())]


def _config(folder: Path) -> Row:
    """The configuration, flat; {} where there is none that can be read. Not built: a run of another version counts."""
    try:
        return flatten(yamlfile.read_mapping(folder / "config.yaml")[0]) if (folder / "config.yaml").is_file() else {}
    except (MhcnbError, OSError) as error:
        log.warning("%s", error)
        return {}


def _row(folder: Path, entry: Row, driver: Row, config: Row) -> Row:
    run = Run(folder)
    status, summary = _read(run.status), _read(run.summary)
    if status is None or (not config and (folder / "config.yaml").exists()):
        return {"run": run.name, "path": str(folder), "state": "unreadable"}
    said = status.get("state")
    state = said if said in ENDED else judged(entry, status, driver) if entry or said else "starting"
    row: Row = {"run": run.name, "path": str(folder), "state": state}
    row["reason"] = entry.get("error") or status.get("reason") or ""
    if not config:
        return row
    row |= {"step": status.get("step", 0)} | {column: config.get(key) for key, column in SAID.items()}
    if summary:
        return row | {name: value for name, value in summary.items() if name in FIELDS and name != "steps"}
    last = last_record(run.records.path, "eval")
    speed = last_record(run.records.path, "train").get("tokens_per_s")
    losses = {"final_val_loss": last.get("val_loss"), "final_train_loss": last.get("train_loss")}
    shares = {name: last.get(name.removeprefix("final_")) for name in SHARES if "blank_accuracy" in last}
    return row | losses | shares | {"tokens_per_s": speed}


def _read(read: Any) -> Row | None:
    """What a file says, or None where it is damaged, which is said."""
    try:
        return read()
    except (MhcnbError, OSError) as error:
        log.warning("%s", error)
        return None


def _differing(configs: list[Row]) -> list[str]:
    """The keys whose values differ among runs that have them, in the order of the files."""
    values: dict[str, set[str]] = defaultdict(set)
    for config in configs:
        for key, value in config.items():
            values[key].add(str(value))
    return [key for key, found in values.items() if len(found) > 1 and key not in SAID and key != ATTEMPT]


def _plain(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _cells(row: Row, keys: list[str], shares: list[str]) -> list[str]:
    step, steps = _form(row["step"], ".0f"), _form(row["steps"], ".0f")
    state = row["state"] if row["state"] == "done" or step == "-" else f"{row['state']} {step}/{steps}"
    forms = {"final_val_loss": ".3f", "final_train_loss": ".3f", **dict.fromkeys(shares, ".1%")}
    forms |= {"tokens_per_s": ",.0f", "peak_memory_gb": ".2f", "total_time_s": ",.0f", "params": ",.0f"}
    units = {"peak_memory_gb": " GB", "total_time_s": " s"}
    figures = [_form(row[name], form, units.get(name, "")) for name, form in forms.items()]
    chosen = [_form(row[key]) for key in keys]
    return [_form(row["connection"]), _form(row["preset"]), _form(row["seed"], ".0f"), *chosen, *figures, state]


def _form(value: Any, form: str = "", unit: str = "") -> str:
    """A value, or `-` where there is none (None, or pandas' nan)."""
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return "-" if missing else f"{value:{form}}{unit}"
