"""A cell to type a puzzle into: the run solves it before one's eyes, or words say why not."""

from functools import partial
from typing import Any

import numpy as np
import torch

from mhcnb.analysis.boards import WRONG, Board, boards, digits, puzzle_board, trace
from mhcnb.analysis.reasoning import Reasoning, reason
from mhcnb.data.puzzles.check import typed_puzzle
from mhcnb.data.puzzles.faults import fault_of_text
from mhcnb.data.puzzles.rules import size_of
from mhcnb.data.puzzles.solver import Solved
from mhcnb.data.puzzles.table import as_text
from mhcnb.errors import DataError
from mhcnb.notebook.controls import Slider, Text, explore
from mhcnb.notebook.hrm import Player, Seen, span
from mhcnb.notebook.solving import fate, who
from mhcnb.plots.puzzle import plot_progress, plot_puzzle, say_board
from mhcnb.plots.style import canvas, empty, style

Answers = dict[tuple[int, str], Reasoning]  # (player, puzzle): what was worked out already


def typed(seen: Seen) -> None:
    """A puzzle of one's own, by run and step; at the start that of the parameters, or that with most blanks."""
    r = seen.players[0].result
    given = digits(r.givens[int(r.blanks.sum(1).argmax())])
    last = max(len(p.result.answers) for p in seen.players)
    help_text = f"{len(given)} digits row by row, . or 0 for a blank; spaces and lines as you like"
    controls = [
        who(seen),
        Text("text", "your puzzle", seen.page.own or as_text(given), help_text),
        Slider("step", "step", min(seen.page.step or last, last), 0, last, help="0: the puzzle as it is given"),
    ]
    explore(partial(_draw, dict(enumerate(seen.players)), {}), controls, "own", seen.figures)


def _draw(players: dict[int, Player], known: Answers, run: int, text: str, step: int) -> Any:
    player = players[run]
    size = size_of(player.result.givens.shape[1]) or 0
    text = "".join(text.split()).replace("0", ".")
    try:
        givens, solved = typed_puzzle(text, size)
    except DataError as error:
        return _refused(text, size), f"Not solved: {error}."
    if (run, text) not in known:
        known[run, text] = _answer(player, givens, np.array(solved.solutions[0]) if solved.solutions else givens)
    r, one = known[run, text], solved.complete and len(solved.solutions) == 1
    found = boards(r, 0, known=one)
    k = min(step, len(found) - 1)
    title = f"{player.label}, step {k} of {len(found) - 1}"
    words = [f"{title}: {say_board(found[k])}.", fate(r, 0) if one else _unsure(solved, found[-1]), _unlike(player, r)]
    return plot_progress(found[k], trace(r, 0, known=one), k, title), "\n".join(filter(None, words))


def _answer(player: Player, givens: np.ndarray, solution: np.ndarray) -> Reasoning:
    rows = {"inputs": givens, "labels": solution}
    batch = {name: torch.tensor(row[None].astype(np.int32) + 1) for name, row in rows.items()}
    batch["puzzle_identifiers"] = torch.zeros(1, dtype=torch.int32)
    return reason(player.model, [batch], len(player.result.answers))


def _refused(text: str, size: int) -> Any:
    """The puzzle with the givens that break a rule, as far as it is a grid."""
    if fault_of_text(text, size) is None:
        return plot_puzzle(puzzle_board(np.array([int(c) for c in text.replace(".", "0")])))
    with style():
        figure, ax = canvas(None, 4.2, 1)
        empty(ax, f"no {size} x {size} grid")
    return figure


def _unsure(solved: Solved, last: Board) -> str:
    """Of a puzzle that has no single solution, or none that was found in time."""
    breaks = int((last.kinds == WRONG).sum())
    why = "The puzzle has more than one solution" if len(solved.solutions) > 1 else "The search for solutions gave up"
    how = f"{breaks} cells of the last answer break a rule" if breaks else "the last answer breaks no rule"
    return f"{why}, so that nothing says which digit is right; {how}."


def _unlike(player: Player, r: Reasoning) -> str:
    """A warning where the puzzle has more or fewer blanks than any of the data."""
    blanks, usual = int(r.blanks.sum()), player.result.blanks.sum(1)
    if usual.min() <= blanks <= usual.max():
        return ""
    return f"It has {blanks} blanks, those of the data {span(player.result)}: the model may never have seen such a one."
