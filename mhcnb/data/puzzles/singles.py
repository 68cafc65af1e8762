"""Many puzzles at once, by naked and hidden singles alone: what these solve has one solution, without any search.

Arrays are [cells, n] here, so that the work runs along the puzzles: bits of the digits, 0 for a blank (see rules.bits).
"""

import numpy as np

from mhcnb.data.puzzles.rules import Rules, bits, rules


def forced(boards: np.ndarray, ruled: Rules) -> np.ndarray:
    """The bits [cells, n] that one round of singles places, 0 where it places none. Puzzles must have a solution."""
    r, c, b = ruled.of.T
    used = np.bitwise_or.reduce(boards[ruled.units], axis=1)
    left = ~(used[r] | used[c] | used[b]) & np.uint16(ruled.full)
    left[boards > 0] = 0
    once, twice = np.zeros_like(used), np.zeros_like(used)
    for cells in ruled.units.T:  # the first cell of all units, the second, ...
        twice |= once & left[cells]
        once |= left[cells]
    once &= ~twice
    naked = left & (left - np.uint16(1)) == 0
    return np.where(naked, left, left & (once[r] | once[c] | once[b]))


def solved(puzzles: np.ndarray) -> np.ndarray:
    """Whether singles solve each of the puzzles [n, cells] of digits, which must have a solution: bool [n]."""
    ruled = rules(9 if puzzles.shape[1] == 81 else 4)
    boards = bits(puzzles.T)
    going = np.arange(boards.shape[1])
    while going.size:
        some = boards[:, going]
        placed = forced(some, ruled)
        boards[:, going] = some | placed
        going = going[placed.any(0)]
    return np.asarray((boards > 0).all(0))


def dig(solutions: np.ndarray, clues: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Puzzles [n, cells] with at least clues [n] givens each, and so many where that can be had, that singles solve.

    Each loses cells in an order of its own; one is put back where singles would not find it again.
    """
    n, cells = solutions.shape
    ruled = rules(9 if cells == 81 else 4)
    boards = bits(solutions.T)
    order = rng.permuted(np.tile(np.arange(cells), (n, 1)), axis=1)
    givens = np.full(n, cells)
    for cell in order.T:
        going = np.flatnonzero(givens > clues)
        trial = boards[:, going]
        trial[cell[going], np.arange(going.size)] = 0
        gone = going[_recovered(trial, cell[going], ruled)]
        boards[cell[gone], gone] = 0
        givens[gone] -= 1
    return np.where(boards.T > 0, solutions, 0).astype(np.uint8)


def _recovered(boards: np.ndarray, cell: np.ndarray, ruled: Rules) -> np.ndarray:
    """Whether singles place cell [n] again: then all else that followed from it follows still."""
    found = np.zeros(cell.size, bool)
    going = np.arange(cell.size)
    while going.size:
        placed = forced(boards, ruled)
        hit = placed[cell, np.arange(cell.size)] > 0
        found[going[hit]] = True
        on = placed.any(0) & ~hit
        going, cell, boards = going[on], cell[on], (boards | placed)[:, on]
    return found
