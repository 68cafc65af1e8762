"""The symmetries of a 9 x 9 Sudoku that make training puzzles of training puzzles: digits, transposition, bands, rows,
stacks and columns.

With X a board, T = Xᵀ where `transpose`, else X:     out[i, j] = digits[T[rows[i], columns[j]]]
"""

from typing import NamedTuple

import numpy as np


class Symmetries(NamedTuple):
    """m of them. digits: the new one for each of 0 .. 9 [m, 10], 0 stays; transpose: bool [m]; rows, columns: where
    each comes from [m, 9], those of a band together."""

    digits: np.ndarray
    transpose: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    def __call__(self, boards: np.ndarray) -> np.ndarray:
        """uint8 [m, 81]: symmetry k of board k, or each of the one board, of digits [m or 1, 81]."""
        i, j = self.rows[:, :, None].astype(np.int64), self.columns[:, None, :].astype(np.int64)
        source = np.where(self.transpose[:, None, None], 9 * j + i, 9 * i + j).reshape(-1, 81)
        moved = np.take_along_axis(np.broadcast_to(boards, source.shape), source, axis=1)
        return np.take_along_axis(self.digits, moved.astype(np.int64), axis=1).astype(np.uint8)


def draw(count: int, rng: np.random.Generator) -> Symmetries:
    """Symmetries drawn evenly and independently, in this order."""
    digits = _orders(count, 9, rng) + 1
    transpose = rng.random(count) < 0.5
    rows, columns = _lines(count, rng), _lines(count, rng)
    return Symmetries(np.pad(digits, ((0, 0), (1, 0))), transpose, rows, columns)


def _lines(count: int, rng: np.random.Generator) -> np.ndarray:
    """Where the nine rows (or columns) come from: an order of the three bands, and one of the rows in each."""
    bands = _orders(count, 3, rng)
    within = _orders(count * 3, 3, rng).reshape(count, 3, 3)
    return (3 * bands[:, :, None] + within).reshape(count, 9)


def _orders(count: int, of: int, rng: np.random.Generator) -> np.ndarray:
    """Permutations [count, of] of 0 .. of - 1."""
    return rng.permuted(np.tile(np.arange(of, dtype=np.uint8), (count, 1)), axis=1)
