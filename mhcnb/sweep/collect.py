"""Many runs as one table. Reads run folders only, finished or not."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhcnb.errors import MhcnbError, RunError
from mhcnb.run import Run, find_runs
from mhcnb.sweep.folder import RECORD, read_record

if TYPE_CHECKING:
    from pandas import DataFrame

log = logging.getLogger(__name__)
FIELDS = ("connection", "model", "preset", "seed", "steps", "first_val_loss", "final_val_loss", "final_train_loss")
FIELDS += ("tokens_per_s", "peak_memory_gb", "total_time_s", "params", "world_size")
ALIVE = ("starting", "running", None)  # what a run says that may have died since


def collect(paths: Iterable[str | Path]) -> "DataFrame":
    """A row for each run in the given run, sweep or other folders: run, path, state, step and the fields of
    summary.json. An unfinished run has the losses of its last evaluation; a cell without a run has its state alone.

    Raises RunError for a path with nothing in it.
    """
    import pandas

    rows: dict[Path, dict[str, Any]] = {}
    for path in map(Path, paths):
        found = {folder: _row(folder, state) for folder, state in _folders(path)}
        if not found:
            raise RunError(f"no run in {path}; `mhcnb train PARAMS --out DIR` makes one")
        rows |= found
    return pandas.DataFrame(list(rows.values()), columns=["run", "path", "state", "step", *FIELDS])


def table(frame: "DataFrame") -> str:
    """Plain text: method, size, seed, losses in nats, tokens/s, memory, time, parameters, state."""
    heads = ["method", "size", "seed", "val loss", "train loss", "tokens/s", "memory", "time", "parameters", "state"]
    rows = [_cells(row) for row in frame.to_dict("records")]
    if len({tuple(row[:3]) for row in rows}) < len(rows) or any(row[0] == "-" for row in rows):  # which is which?
        heads, rows = ["run", *heads], [[name, *row] for name, row in zip(frame["run"], rows, strict=True)]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    left = {"run", "method", "size", "state"}
    lines = []
    for row in [heads, ["-" * width for width in widths], *rows]:
        cells = zip(heads, row, widths, strict=True)
        lines.append("  ".join(f"{x:<{w}}" if head in left else f"{x:>{w}}" for head, x, w in cells).rstrip())
    return "\n".join(lines)


def _folders(path: Path) -> list[tuple[Path, str | None]]:
    """Run folders at or below `path` and the cells of sweeps without one, each with what cells.json says of it."""
    cells = {
        record.parent / name: entry.get("state")
        for record in sorted(path.rglob(RECORD))
        for name, entry in read_record(record.parent).get("cells", {}).items()
    }
    inside = {run.path for run in find_runs(path)}
    return [*cells.items(), *((folder, None) for folder in sorted(inside - cells.keys()))]


def _row(folder: Path, recorded: str | None) -> dict[str, Any]:
    run = Run(folder)
    row: dict[str, Any] = {"run": run.name, "path": str(folder), "state": recorded or "planned"}
    if not (folder / "config.yaml").is_file():
        return row
    try:
        config, status, summary = run.config, run.status(), run.summary()
        last = (run.results("eval") or [{}])[-1] if not summary else {}
    except MhcnbError as error:
        log.warning("%s", error)
        return row | {"state": "unreadable"}
    state = status.get("state")
    if state not in ALIVE or recorded not in ("failed", "died", "interrupted"):
        row["state"] = state or "starting"
    row["step"] = status.get("step", 0)
    row |= {"connection": config.connection.name, "model": config.model.name, "preset": config.preset}  # type: ignore[attr-defined]
    row |= {"seed": config.seed, "steps": config.train.steps}
    row |= {"final_val_loss": last.get("val_loss"), "final_train_loss": last.get("train_loss")}
    return row | {name: value for name, value in summary.items() if name in FIELDS and name != "steps"}


def _cells(row: dict[str, Any]) -> list[str]:
    step, steps = _form(row["step"], ".0f"), _form(row["steps"], ".0f")
    state = row["state"] if row["state"] == "done" or step == "-" else f"{row['state']} {step}/{steps}"
    forms = {"seed": ".0f", "final_val_loss": ".3f", "final_train_loss": ".3f", "tokens_per_s": ",.0f"}
    forms |= {"peak_memory_gb": ".2f", "total_time_s": ",.0f", "params": ",.0f"}
    units = {"peak_memory_gb": " GB", "total_time_s": " s"}
    figures = [_form(row[name], form, units.get(name, "")) for name, form in forms.items()]
    return [_form(row["connection"]), _form(row["preset"]), *figures, state]


def _form(value: Any, form: str = "", unit: str = "") -> str:
    """A value, or `-` where there is none (None, or pandas' nan)."""
    return "-" if value is None or value != value else f"{value:{form}}{unit}"
