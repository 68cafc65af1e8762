"""What a Sudoku is: its units, and the set of its digits as bits of a number (digit d is bit d - 1)."""

import functools
import math
from typing import NamedTuple

import numpy as np

SIZES = (9, 4)


class Rules(NamedTuple):
    """A grid of `size` x `size` cells, numbered row by row; every digit once in each unit.

    units: cells [3 size, size] of the rows, then the columns, then the boxes; of: the three units [cells, 3] of a cell.
    """

    size: int
    units: np.ndarray
    of: np.ndarray

    @property
    def cells(self) -> int:
        """How many cells the grid has."""
        return self.size**2

    @property
    def full(self) -> int:
        """The bits of all digits."""
        return 2**self.size - 1


@functools.cache
def rules(size: int) -> Rules:
    """The rules of a size from SIZES."""
    box = math.isqrt(size)
    row, column = np.divmod(np.arange(size**2), size)
    of = np.stack([row, size + column, 2 * size + row // box * box + column // box], axis=1)
    units = np.stack([np.flatnonzero((of == unit).any(1)) for unit in range(3 * size)])
    return Rules(size, units, of)


def size_of(cells: int) -> int | None:
    """The size of a grid with so many cells; None where there is none."""
    return next((size for size in SIZES if size**2 == cells), None)


def bits(digits: np.ndarray) -> np.ndarray:
    """The bit of each digit, uint16; 0 for a blank, which is 0."""
    return (1 << digits.astype(np.uint16)) >> 1


def cell_name(cell: int, size: int) -> str:
    """r1c1 to r9c9."""
    return f"r{cell // size + 1}c{cell % size + 1}"
