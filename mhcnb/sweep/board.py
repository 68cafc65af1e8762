"""Where a sweep stands, read off its folder: its record, what each cell's run says of itself, and what is left to do.

Of a cell a few small files and the end of its records are read: quick, however many there are and however long.
"""

import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from mhcnb.errors import RunError
from mhcnb.records import last_record
from mhcnb.run import Run
from mhcnb.sweep.folder import ENDED_BADLY, STATES, SweepFolder, read_record
from mhcnb.sweep.plan import Plan
from mhcnb.sweep.progress import duration
from mhcnb.sweep.state import LETTERS, OPEN, judged, lives

SILENT_S = 60.0
MOST = 10  # cells of a kind that are told one by one
NAMED = re.compile(r"([^-]+)-(.+?)-s(\d+)((?:-[A-Za-z_][\w.]*=.*)?)")  # see names.cell_names
STEPS = re.compile(r"^train:\n(?:[ -].*\n)*?  steps: (\d+)$", re.MULTILINE)  # in config.yaml as a run writes it


class Seen(NamedTuple):
    """A cell as it stands. `seconds`: what it took, or will take; `left`: of those, what is still to come; `note`: why
    it ended, or that it is silent. None: not known."""

    name: str
    method: str
    row: str
    state: str
    step: int = 0
    steps: int | None = None
    loss: float | None = None
    speed: float | None = None  # tokens a second
    seconds: float | None = None
    left: float | None = None
    note: str = ""
    notebook: Path | None = None  # executed, as far as it went


class Board(NamedTuple):
    """All cells in the order of the plan. `driver`: who works on it, in words; `left`: seconds until all are done."""

    path: Path
    cells: list[Seen]
    driver: str
    left: float | None


def read(path: Path, planned: Plan | None = None) -> Board:
    """The board of a sweep's folder, or of any folder of runs. Without a plan it has the cells that the folder tells.
    Raises RunError where cells.json is damaged."""
    record = read_record(path)
    entries, driver = record.get("cells", {}), record.get("driver", {})
    found = sorted(config.parent.name for config in path.glob("*/config.yaml"))
    names = [cell.name for cell in planned.cells] if planned else dict.fromkeys([*entries, *found])
    steps = {cell.name: cell.config.train.steps or None for cell in planned.cells} if planned else {}
    cells = [_cell(path / name, entries.get(name, {}), driver, steps.get(name)) for name in names]
    running = sum(cell.state == "running" for cell in cells)
    workers = max(1, running, planned.workers if planned else 0)
    return Board(path, cells, _driver(driver, cells), _left(cells, workers))


def status(planned: Plan, folder: SweepFolder) -> str:
    """Where a planned sweep stands, as plain text: `mhcnb sweep FILE --status`."""
    board = read(folder.path, planned)
    return "\n".join([*say(board), "", grid(board)])


def place(name: str) -> tuple[str, str]:
    """(column, row) of a cell: its method with the fields that it varies; size, seed and what else the grid chose."""
    if not (match := NAMED.fullmatch(name)):
        return "run", name
    method, size, seed, rest = match.groups()
    chosen = re.split(r"-(?=[A-Za-z_][\w.]*=)", rest)[1:]
    own = [key.removeprefix("connection.") for key in chosen if key.startswith("connection.")]
    return " ".join([method, *own]), " ".join(
        [size, f"s{seed}", *(k for k in chosen if not k.startswith("connection."))]
    )


def say(board: Board) -> list[str]:
    """How many cells are in which state and the time left; then who works, each running cell, and what went wrong."""
    counts = Counter(cell.state for cell in board.cells)
    each = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    still = sum(counts[state] for state in OPEN)
    rest = f"; {still} to go" if still else ""
    rest += f", about {duration(board.left)} left" if still and board.left is not None else ""
    cells = f"{len(board.cells)} cell{'s' * (len(board.cells) != 1)}"
    lines = [f"{board.path.name}: {cells}: {each}{rest}" if board.cells else f"{board.path.name}: no cells"]
    lines += [board.driver] if board.driver else []
    running = [_tell(cell) for cell in board.cells if cell.state == "running"]
    bad = [_tell(cell) for cell in board.cells if cell.state in ENDED_BADLY]
    return [*lines, *_first(running), *_first(bad)]


def facts(cell: Seen) -> list[str]:
    """Step of steps, loss, tokens/s and time left, as far as they are known."""
    said = [f"step {cell.step} of {'?' if cell.steps is None else cell.steps}"] if cell.steps or cell.step else []
    said += [f"{'val ' * (cell.state == 'done')}loss {cell.loss:.3f}"] if cell.loss is not None else []
    said += [f"{cell.speed:,.0f} tokens/s"] if cell.speed is not None else []
    return said + ([f"{duration(cell.left)} left"] if cell.state == "running" and cell.left is not None else [])


def grid(board: Board) -> str:
    """Plain text: a row for each size, seed and other choice, a column for each method."""
    at = {(cell.row, cell.method): _short(cell) for cell in board.cells}
    methods = list(dict.fromkeys(cell.method for cell in board.cells))
    rows = [[row, *(at.get((row, method), "") for method in methods)] for row in dict.fromkeys(row for row, _ in at)]
    lines = [["", *methods], *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    used = dict.fromkeys(state for state in STATES if any(cell.state == state for cell in board.cells))
    legend = ", ".join(f"{LETTERS[state]} {state}" for state in used)
    table = ["  ".join(f"{x:<{w}}" for x, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*table, "", f"{legend}; executed notebooks: {board.path}/CELL/notebook.ipynb"])


def _short(cell: Seen) -> str:
    """`R 120/300 4.312`."""
    step = f"{cell.step}/{'?' if cell.steps is None else cell.steps}"
    shown = [step] if cell.state != "done" and cell.step else []
    return " ".join([LETTERS[cell.state], *shown, *([f"{cell.loss:.3f}"] if cell.loss is not None else [])])


def _tell(cell: Seen) -> str:
    return f"{cell.name} {', '.join([cell.state, *facts(cell)])}{f': {cell.note}' if cell.note else ''}"


def _first(lines: list[str]) -> list[str]:
    return lines[:MOST] + ([f"... and {len(lines) - MOST} more"] if len(lines) > MOST else [])


def _cell(folder: Path, entry: dict[str, Any], driver: dict[str, Any], steps: int | None) -> Seen:
    run, (method, row) = Run(folder), place(folder.name)
    try:
        status, damage = run.status(), ""
    except (RunError, OSError) as error:
        status, damage = {}, str(error)
    state = judged(entry, status, driver)
    seen = Seen(folder.name, method, row, state, status.get("step", 0), steps)
    seen = _measured(seen, run) if status else seen
    seen = seen._replace(seconds=max(filter(None, (seen.seconds, entry.get("seconds"))), default=None))
    written = folder / "notebook.ipynb"
    note = damage or _note(state, entry, status, run)
    return seen._replace(note=note, notebook=written if state != "planned" and written.is_file() else None)


def _measured(seen: Seen, run: Run) -> Seen:
    """With what the run has recorded: its summary, else its last records."""
    if seen.state == "done" and (summary := _summary(run)):
        seconds, steps = summary.get("total_time_s"), summary.get("steps") or seen.steps
        figures = dict(loss=summary.get("final_val_loss"), speed=summary.get("tokens_per_s"), seconds=seconds)
        return seen._replace(steps=steps, step=seen.step or steps, **figures)
    steps, last = seen.steps or _steps(run), last_record(run.records.path, "train")
    if not last:
        return seen._replace(steps=steps, loss=last_record(run.records.path, "eval").get("val_loss"))
    step = max(seen.step, last.get("step", 0))
    total = steps * last["time_s"] / last["step"] if steps and last.get("time_s") and last.get("step") else None
    left = total * (1 - min(step / steps, 1)) if total is not None and steps else None
    figures = dict(loss=last.get("loss"), speed=last.get("tokens_per_s"), seconds=total, left=left)
    return seen._replace(step=step, steps=steps, **figures)


def _summary(run: Run) -> dict[str, Any]:
    try:
        return run.summary()
    except RunError:
        return {}


def _steps(run: Run) -> int | None:
    """train.steps of a configuration, without building it."""
    try:
        match = STEPS.search((run.path / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    return int(match[1]) if match else None


def _note(state: str, entry: dict[str, Any], status: dict[str, Any], run: Run) -> str:
    if state == "running":
        stopping = ["asked to stop"] if run.requested("stop") else []
        silence = time.time() - max(status.get("heartbeat", 0.0), entry.get("started", 0.0))
        silent = [f"no news for {duration(silence)}, it may have died"] if silence > SILENT_S else []
        return "; ".join([*stopping, *silent])
    died = "its process is gone" if state == "died" else ""
    return (entry.get("error") or status.get("reason") or died) if state in (*ENDED_BADLY, "interrupted") else ""


def _driver(driver: dict[str, Any], cells: list[Seen]) -> str:
    """Who works on a sweep that has something left."""
    if not any(cell.state in OPEN for cell in cells):
        return ""
    if driver and lives(driver) is not False:
        return f"driver: process {driver.get('pid')} on {driver.get('host')}"
    if any(cell.state == "running" for cell in cells):
        return "no driver: cells run by themselves"
    return "nobody works on it: the same `mhcnb sweep` goes on with what is left"


def _left(cells: Iterable[Seen], workers: int) -> float | None:
    """Seconds until all cells are done, if one that has not begun takes what others of its method and size took, or
    else the others; None where nothing is known of any."""
    known = [cell for cell in cells if cell.seconds and cell.state in ("done", "running")]
    if not known:
        return None

    def mean(alike: list[Seen]) -> float:
        return sum(cell.seconds or 0 for cell in alike) / len(alike)

    alike: dict[tuple[str, str], list[Seen]] = defaultdict(list)
    for cell in known:
        alike[_kind(cell)].append(cell)
    usual, anyone = {kind: mean(those) for kind, those in alike.items()}, mean(known)
    rest = [
        cell.left if cell.left is not None else usual.get(_kind(cell), anyone) for cell in cells if cell.state in OPEN
    ]
    return max(max(rest, default=0.0), sum(rest) / workers)


def _kind(cell: Seen) -> tuple[str, str]:
    return cell.method, cell.row.split(" ")[0]
