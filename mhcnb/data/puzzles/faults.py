"""What is wrong with a puzzle, in words; where it stands is said by who reads it."""

import numpy as np

from mhcnb.data.puzzles.rules import bits, cell_name, rules, size_of

UNITS = ("row", "column", "box")


def fault_of_text(text: str, size: int) -> str | None:
    """Why a text of digits and blanks is no grid of a size, or None."""
    allowed = "".join(map(str, range(1, size + 1)))
    wrong = next((i for i, char in enumerate(text) if char not in f".0{allowed}"), None)
    if len(text) != size**2:
        also = "" if wrong is None else f", the first that is no digit {text[wrong]!r}"
        return f"has {len(text)} characters{also}; expected {size**2}, the cells of a {size} x {size} grid row by row"
    if wrong is not None:
        return f"has {text[wrong]!r} at {cell_name(wrong, size)}; expected a digit 1 to {size}, or . or 0 for a blank"
    return None


def first_fault(givens: np.ndarray, solutions: np.ndarray | None = None) -> tuple[int, str] | None:
    """(index, why) of the first of the puzzles [n, cells] that breaks a rule, or whose solution is not one; None where
    all are sound. A solution of blanks alone is one that is not given."""
    broken = _repeats(givens)
    wrong = np.zeros_like(broken)
    if solutions is not None:
        other = ((givens > 0) & (givens != solutions)) | (solutions == 0)
        wrong = (other.any(1) | _repeats(solutions)) & solutions.any(1)
    bad = np.flatnonzero(broken | wrong)
    if not bad.size:
        return None
    row = int(bad[0])
    if solutions is None or broken[row]:
        return row, f"the givens break a rule: {_pair(givens[row])}"
    return row, _no_solution(givens[row], solutions[row])


def _repeats(boards: np.ndarray) -> np.ndarray:
    """Whether a unit has a digit twice: bool [n]. Then the sum of its bits is more than their union."""
    units = bits(boards)[:, rules(size_of(boards.shape[1]) or 0).units]
    return (units.sum(2, dtype=np.uint16) != np.bitwise_or.reduce(units, axis=2)).any(1)


def _no_solution(givens: np.ndarray, solution: np.ndarray) -> str:
    size = size_of(len(givens)) or 0
    for cell in np.flatnonzero(solution == 0).tolist():
        return f"the answer is blank at {cell_name(cell, size)}; expected a digit in each cell, or no answer at all"
    for cell in np.flatnonzero((givens > 0) & (givens != solution)).tolist():
        return f"the answer has {solution[cell]} at {cell_name(cell, size)}, where the question gives {givens[cell]}"
    return f"the answer breaks a rule: {_pair(solution)}"


def _pair(board: np.ndarray) -> str:
    """The first two cells of a unit that hold the same digit."""
    ruled = rules(size_of(len(board)) or 0)
    for unit, cells in enumerate(ruled.units.tolist()):
        for i, first in enumerate(cells):
            again = next((cell for cell in cells[i + 1 :] if board[cell] == board[first] > 0), None)
            if again is not None:
                kind, number = UNITS[unit // ruled.size], unit % ruled.size + 1
                names = cell_name(first, ruled.size), cell_name(again, ruled.size)
                return f"{board[first]} at {names[0]} and again at {names[1]}, in {kind} {number}"
    return "a digit stands twice in a unit"
