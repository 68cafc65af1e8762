"""Puzzles of both splits that have one solution grid: a model could have seen the answers of its test.

Grids are compared as they are. One that was turned into another by a symmetry (other digits, rows or columns) is not
found; random grids and published sets have none, but sets that were augmented before they were split do.
"""

import numpy as np

from mhcnb.errors import DataError

CHUNK = 100_000  # rows compared at once


def shared(train: np.ndarray, test: np.ndarray) -> list[tuple[int, int]]:
    """(row of train, row of test) for each test grid that is among the training grids, the first there."""
    places = {}
    for row, grid in enumerate(np.asarray(test, np.uint8)):
        places.setdefault(grid.tobytes(), []).append(row)
    weights = np.random.Generator(np.random.Philox(0)).integers(2**63, size=test.shape[1], dtype=np.uint64)
    marks = _marks(np.asarray(test), weights)
    found = {}
    for start in range(0, len(train), CHUNK):
        grids = np.asarray(train[start : start + CHUNK])
        for row in np.flatnonzero(np.isin(_marks(grids, weights), marks)).tolist():
            for other in places.get(grids[row].astype(np.uint8).tobytes(), ()):
                found.setdefault(other, start + row)
    return [(row, other) for other, row in sorted(found.items())]


def _marks(grids: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A number for each grid, the same for equal ones: few others have it."""
    return grids.astype(np.uint64) @ weights


def refuse_shared(train: np.ndarray, test: np.ndarray, where: str = "") -> None:
    """Raises DataError where a test grid is among the training grids. Rows are told from 1 on."""
    found = shared(train, test)
    if found:
        row, other = found[0]
        raise DataError(
            f"{where}{len(found):,} of {len(test):,} test puzzles have the solution grid of a training puzzle, the "
            f"first: test row {other + 1:,} and training row {row + 1:,}. Leave them out of one of the two, or split "
            "by solution grid, as `mhcnb data sudoku` does with one CSV"
        )
