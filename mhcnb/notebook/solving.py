"""Boards under one's hands: a puzzle as a run fills it, by puzzle and step, and runs side by side."""

from functools import partial
from typing import Any

import numpy as np
import torch

from mhcnb.analysis.boards import boards, trace
from mhcnb.analysis.reasoning import Reasoning
from mhcnb.notebook.controls import Control, Jump, Menu, Slider, State, explore
from mhcnb.notebook.hrm import Player, Seen
from mhcnb.notebook.show import show
from mhcnb.plots.puzzle import plot_film, plot_progress, say_board
from mhcnb.plots.solved import plot_solved, say_solved


def film(seen: Seen) -> None:
    """The chosen puzzle of the first run, as given and after every step."""
    player, row = seen.players[0], seen.row
    found = boards(player.result, row)
    labels = ["as given", *(f"step {k}" for k in range(1, len(found)))]
    title = f"{player.label}, puzzle {row + 1}"
    figure = plot_film(dict(zip(labels, found, strict=True)), title)
    show(figure, f"{title}: {fate(player.result, row)}", seen.figures, "film")


def by_step(seen: Seen) -> None:
    """One board, by run, puzzle and step."""
    players = dict(enumerate(seen.players))
    count = len(seen.players[0].result.givens)
    last = max(len(p.result.answers) for p in seen.players)
    controls: list[Control] = [
        who(seen),
        Slider("puzzle", "puzzle", seen.row + 1, 1, count, help="of the validation data, from 1"),
        Slider("step", "step", min(seen.page.step or last, last), 0, last, help="0: the puzzle as it is given"),
        Jump("Next solved", partial(_next, players, True), "the next puzzle that is right after the last step"),
        Jump("Next unsolved", partial(_next, players, False), "the next one that is not"),
    ]
    explore(partial(_board_at, players), controls, "board", seen.figures)


def across(seen: Seen) -> None:
    """Which run solves what, and all answers to the puzzle on which they differ most; of one run alone, what to do."""
    if len(seen.players) == 1:
        print("One run: nothing to compare. `mhcnb sweep params/sweeps/hrm.yaml` trains every connection.")
        return
    show(plot_solved(seen.solved), say_solved(seen.solved), seen.figures, "solved")
    right = torch.stack([p.result.right[-1].sum(-1) for p in seen.players])
    row = int((right.amax(0) - right.amin(0)).argmax())
    last = {p.label: boards(p.result, row)[-1] for p in seen.players}
    still = {label: board._replace(changed=np.zeros_like(board.changed)) for label, board in last.items()}
    title = f"puzzle {row + 1} after the last step, where the runs differ most"
    words = [f"{label}, puzzle {row + 1}: {say_board(board)}." for label, board in still.items()]
    show(plot_film(still, title), words, seen.figures, "across")


def who(seen: Seen) -> Control:
    """Which run; its value is the number of the player."""
    return Menu("run", "run", 0, [(p.label, k) for k, p in enumerate(seen.players)])


def _board_at(players: dict[int, Player], run: int, puzzle: int, step: int) -> Any:
    player, row = players[run], puzzle - 1
    found = boards(player.result, row)
    k = min(step, len(found) - 1)
    title = f"{player.label}, puzzle {puzzle}, step {k} of {len(found) - 1}"
    words = [f"{title}: {say_board(found[k])}.", fate(player.result, row)]
    return plot_progress(found[k], trace(player.result, row), k, title), "\n".join(words)


def _next(players: dict[int, Player], solved: bool, run: int, puzzle: int, **_: Any) -> State:
    """The next puzzle after this one, around the end; this one where there is no other."""
    found = np.flatnonzero(players[run].result.solved[-1].numpy() == solved) + 1
    return dict(puzzle=int(next(iter([*found[found > puzzle], *found]), puzzle)))


def fate(r: Reasoning, row: int) -> str:
    """Whether and when it is solved, and when the model would halt."""
    solved, M = np.flatnonzero(r.solved[:, row].numpy()) + 1, len(r.answers)
    words = f"Solved after step {solved[0]} of {M}" if len(solved) else f"Not solved in {M} steps"
    if len(solved) and not r.solved[-1, row]:
        words += " and lost again: not solved after the last"
    elif len(solved) and len(solved) < M - solved[0] + 1:
        words += ", though not after every later one"
    halt = int(r.halts[row])
    return f"{words}; by its own will the model would halt after step {halt}{'' if halt < M else ', the last'}."
