"""A puzzle after one step of a model, as a grid to look at: what each digit is, and what changed."""

from typing import NamedTuple

import numpy as np

from mhcnb.analysis.gains import Frame
from mhcnb.analysis.reasoning import Reasoning
from mhcnb.data.puzzles.rules import rules, size_of

BLANK, GIVEN, RIGHT, WRONG, OPEN = KINDS = ("blank", "given", "right", "wrong", "open")


class Board(NamedTuple):
    """Of each cell [t], row by row: its digit, 0 for none; its kind, one of KINDS, `open` where nothing says whether
    the digit is right; whether it changed in this step; the right digit, 0 where that is unknown."""

    digits: np.ndarray
    kinds: np.ndarray
    changed: np.ndarray
    right: np.ndarray

    @property
    def size(self) -> int:
        """Of its side."""
        return size_of(len(self.digits)) or 0


def puzzle_board(givens: np.ndarray) -> Board:
    """A puzzle as it is given, digits [t]; givens that break a rule are wrong."""
    kinds = np.where(givens > 0, np.where(clashes(givens), WRONG, GIVEN), BLANK)
    return Board(givens, kinds, np.zeros(len(givens), bool), np.zeros_like(givens))


def answer_board(
    givens: np.ndarray, answer: np.ndarray, before: np.ndarray | None = None, solution: np.ndarray | None = None
) -> Board:
    """An answer, digits [t], after one `before` it. Without a solution what breaks a rule is wrong, all else open."""
    if solution is None:
        wrong = clashes(answer) | ((givens > 0) & (answer != givens))
        judged = np.where(answer == 0, BLANK, np.where(wrong, WRONG, OPEN))
    else:
        judged = np.where(answer == solution, RIGHT, WRONG)
    kinds = np.where((givens > 0) & (answer == givens), GIVEN, judged)
    changed = np.zeros(len(answer), bool) if before is None else answer != before
    return Board(answer, kinds, changed, np.zeros_like(answer) if solution is None else solution)


def clashes(digits: np.ndarray) -> np.ndarray:
    """The cells [t] whose digit stands in one of their units again."""
    ruled = rules(size_of(len(digits)) or 0)
    found = np.zeros(len(digits), bool)
    for unit in ruled.units:
        own = digits[unit]
        found[unit] |= (own > 0) & ((own[:, None] == own).sum(1) > 1)
    return found


def boards(r: Reasoning, row: int, known: bool = True) -> list[Board]:
    """The boards of one puzzle: as given, then after each step. `known`: the solution is one to judge by."""
    givens, solution = digits(r.givens[row]), digits(r.solutions[row]) if known else None
    answers = [digits(answer) for answer in r.answers[:, row]]
    befores = [None, *answers[:-1]]
    made = (answer_board(givens, a, b, solution) for a, b in zip(answers, befores, strict=True))
    return [puzzle_board(givens), *made]


def digits(tokens) -> np.ndarray:
    """The digits of tokens, 0 for a blank and for padding."""
    return (tokens.long() - 1).clamp(min=0).numpy()


def trace(r: Reasoning, row: int, known: bool = True) -> Frame:
    """One puzzle by step: step, right (of its blanks; nan where the solution is not `known`), blanks, q_halt,
    q_continue (logits), moved_H, moved_L."""
    import pandas

    columns = {name: getattr(r, name)[:, row].numpy() for name in ("q_halt", "q_continue", "moved_H", "moved_L")}
    right = (r.right[:, row] & r.blanks[row]).sum(-1).numpy() if known else np.full(len(r.answers), np.nan)
    steps = range(1, len(right) + 1)
    return pandas.DataFrame({"step": steps, "right": right, "blanks": int(r.blanks[row].sum()), **columns})
