"""The board of a sweep in a notebook: live in JupyterLab, with a button that stops a cell; a still picture elsewhere.
Read from the sweep's folder, so it shows the same whoever runs the sweep, and however."""

import html
import os
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import pandas
from matplotlib.figure import Figure
from pydantic import Field

from mhcnb.errors import MhcnbError, NotebookError
from mhcnb.notebook.controls import WIDE, WRAPPING
from mhcnb.notebook.parameters import checked
from mhcnb.notebook.show import save, show
from mhcnb.notebook.start import headless
from mhcnb.paths import find
from mhcnb.plots.board import COLOURS, DETAILED, plot_board
from mhcnb.run import Run
from mhcnb.sweep.board import Board, Seen, facts, read, say
from mhcnb.sweep.collect import collect, export
from mhcnb.sweep.state import LETTERS

Folder = Annotated[str, Field(min_length=1)]
EVERY_S = 2.0
SHARE = 10  # it reads for at most one part in so many of its time
STOP = "Stop after its step"
_shown: list["Panel"] = []  # the board that follows its sweep: a new one takes its place


@checked
def board(sweep: Folder) -> None:
    """Where every cell of a sweep stands; says what to run where there is none."""
    if not (folder := _folder(sweep)):
        return
    now = read(folder)
    if headless():
        show(picture(now), say(now), folder / "figures", "board")
        return
    save(picture(now), folder / "figures", "board")
    for panel in _shown:
        panel.over.set()
    from IPython.display import display

    panel = Panel(now)
    _shown[:] = [panel]
    display(panel.box)
    handle: Any = display(_bundle(now), raw=True, display_id=True)
    threading.Thread(target=_follow, args=(panel, handle), name="mhcnb-board", daemon=True).start()


@checked
def results(sweep: Folder) -> pandas.DataFrame | None:
    """All runs of a sweep as one table, written to results.csv and results.md in its folder."""
    if not (folder := _folder(sweep, quiet=True)):
        return None
    frame = collect([folder])
    print("\n".join(map(str, export(frame, folder))))
    return frame


def picture(board: Board) -> Figure:
    """The figure of a board."""
    return plot_board(_frame(board))


class Panel:
    """The cells that run, one of which a button stops. `over`: another board has taken its place."""

    def __init__(self, board: Board) -> None:
        from ipywidgets import HTML, Button, Dropdown, HBox, Layout, VBox

        self.path, self.over = board.path, threading.Event()
        self.choice = Dropdown(description="running cell", style=WIDE, layout=Layout(width="auto", max_width="100%"))
        self.stop = Button(
            description=STOP, tooltip="Ends this cell; leaves a checkpoint", layout=Layout(width="max-content")
        )
        self.stop.on_click(lambda _: self._stop())
        self.said = HTML()
        self.box = VBox([HBox([self.choice, self.stop, self.said], layout=Layout(**WRAPPING))])
        self.refresh(board)

    def refresh(self, board: Board) -> None:
        """Offers the cells that run now, and keeps what is chosen."""
        names, chosen = tuple(cell.name for cell in board.cells if cell.state == "running"), self.choice.value
        if names != self.choice.options:
            self.choice.options = names
            self.choice.value = chosen if chosen in names else next(iter(names), None)
        self.choice.disabled = self.stop.disabled = not names

    def _stop(self) -> None:
        name = str(self.choice.value)
        try:
            Run(self.path / name).request("stop")
            words = f"{name} is asked to stop"
        except OSError as error:
            words = f"{name} cannot be asked: {error.strerror}"
        self.said.value = f'<span role="status">{html.escape(words)}</span>'


def _follow(panel: Panel, handle: Any) -> None:
    """Shows what is new, until another board takes its place; a problem is said in the board's place."""
    shown, pause = None, EVERY_S
    while not panel.over.wait(pause):
        began = time.monotonic()
        try:
            now = read(panel.path)
            panel.refresh(now)
            data = _bundle(now)
        except Exception as error:  # in a thread nobody would see it
            name = "" if isinstance(error, MhcnbError) else f"{type(error).__name__}: "
            data = {"text/plain": f"no board: {name}{error}"}
        if data != shown:
            handle.update(data, raw=True)
            shown = data
        pause = max(EVERY_S, SHARE * (time.monotonic() - began))


def _folder(sweep: str, quiet: bool = False) -> Path | None:
    """A folder with cells in it; None, and what to run, where it has none."""
    folder = find(sweep)
    if folder.is_dir() and (any(folder.glob("*/config.yaml")) or read(folder).cells):
        return folder
    if (folder / "config.yaml").is_file():
        raise NotebookError(f"{folder} is one run; give the folder of a sweep, such as {folder.parent}")
    if not quiet:
        below = ", ".join(sorted(path.parent.name for path in folder.glob("*/cells.json")))
        print(f"{folder}: no sweep{f'; those in it: {below}' if below else ''}")
        print(
            "Nothing to show yet. This runs one in under 3 minutes; run this notebook again while it runs, or after it:"
        )
        print("  mhcnb sweep params/sweeps/demo.yaml")
    return None


def _frame(board: Board) -> pandas.DataFrame:
    rows = [(c.row, c.method, c.state, LETTERS[c.state], "\n".join(facts(c))) for c in board.cells]
    return pandas.DataFrame(rows, columns=["row", "method", "state", "letter", "text"])


def _bundle(board: Board) -> dict[str, str]:
    return {"text/html": as_html(board), "text/plain": "\n".join(say(board))}


def as_html(board: Board) -> str:
    """The board as a table: a tile a cell, which leads to its executed notebook."""
    first, *rest = say(board)
    details = "".join(f"<li>{html.escape(line)}</li>" for line in rest)
    states = {cell.state for cell in board.cells}
    legend = " ".join(f"{_chip(state)} {state}&ensp;" for state in COLOURS if state in states)
    at = {(cell.row, cell.method): cell for cell in board.cells}
    methods = list(dict.fromkeys(cell.method for cell in board.cells))
    brief = len(board.cells) > DETAILED
    heads = "".join(f'<th scope="col" style="text-align:left;padding:2px 6px">{html.escape(m)}</th>' for m in methods)
    rows = []
    for row in dict.fromkeys(row for row, _ in at):
        tiles = "".join(_tile(at[row, m], brief) if (row, m) in at else "<td></td>" for m in methods)
        look = "text-align:right;font-weight:normal;padding:2px 8px"
        rows.append(f'<tr style="background:none"><th scope="row" style="{look}">{html.escape(row)}</th>{tiles}</tr>')
    return (
        f'<div style="line-height:1.4"><p role="status" style="margin:4px 0"><b>{html.escape(first)}</b></p>'
        f'<ul style="margin:4px 0">{details}</ul><p style="margin:6px 0">{legend}</p>'
        '<div style="max-height:640px;overflow:auto"><table style="border-collapse:separate;border-spacing:3px">'
        f"<tr><td></td>{heads}</tr>{''.join(rows)}</table></div></div>"
    )


def _tile(cell: Seen, brief: bool) -> str:
    fill, ink = COLOURS[cell.state]
    title = html.escape("; ".join([f"{cell.name}: {cell.state}", *facts(cell), *filter(None, [cell.note])]), quote=True)
    letter = f"<b>{LETTERS[cell.state]}</b>"
    if cell.notebook:
        place = html.escape(os.path.relpath(cell.notebook, Path.cwd()), quote=True)
        letter = f'<a href="{place}" style="color:{ink};text-decoration:underline" title="{title}">{letter}</a>'
    look = f"background:{fill};color:{ink};border:1px solid #9A9A9A;border-radius:3px;padding:2px 7px"
    if brief:
        return f'<td title="{title}" style="{look};text-align:center">{letter}</td>'
    words = "<br>".join(html.escape(line) for line in facts(cell))
    text = f'<div style="font-size:88%;white-space:nowrap">{words}{_bar(cell, ink)}</div>'
    return f'<td title="{title}" style="{look};text-align:left;vertical-align:top;min-width:10em">{letter}{text}</td>'


def _bar(cell: Seen, ink: str) -> str:
    """How far a running cell is."""
    if cell.state != "running" or not cell.steps:
        return ""
    share = min(100, round(100 * cell.step / cell.steps))
    return f'<div style="height:3px;width:{share}%;background:{ink};margin-top:3px"></div>'


def _chip(state: str) -> str:
    fill, ink = COLOURS[state]
    return (
        f'<b style="background:{fill};color:{ink};border:1px solid #9A9A9A;border-radius:3px;padding:0 5px">'
        f"{LETTERS[state]}</b>"
    )
