"""Puzzles with one solution each, for machines without a download: easy ones by the thousand, harder ones by search."""

import random
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from mhcnb.data.puzzles.rules import rules
from mhcnb.data.puzzles.singles import dig
from mhcnb.data.puzzles.solver import solve
from mhcnb.data.puzzles.table import Puzzles, concatenate
from mhcnb.errors import DataError

CHUNK = 500  # puzzles dug at once
DRY = 30  # chunks without a new puzzle after which there are taken to be no more
TRAIN, TEST, GRIDS = 0, 1, 2  # streams of random numbers: the test puzzles do not change with the number of others


class Kind(NamedTuple):
    """clues: fewest and most givens, drawn evenly for each puzzle; None: digging goes on until no given can go. rating:
    fewest and most backtracks (see solver.Solved); None: puzzles that singles solve, whose rating is 0."""

    size: int
    clues: tuple[int, int] | None
    rating: tuple[int, int] | None = None


def generate(kind: Kind, train: int, test: int, seed: int) -> tuple[Puzzles, Puzzles]:
    """Training and test puzzles, all different, and no solution grid in both. Raises DataError where there are not so
    many."""
    if kind.size == 4:
        grids = np.array(solve([0] * 16, limit=289).solutions, np.uint8)  # there are 288
        grids = _rng(seed, GRIDS).permutation(grids)
        first = min(max(round(len(grids) * test / (train + test)), 1), len(grids) - 1)
        return _make(kind, train, _rng(seed, TRAIN), grids[first:]), _make(kind, test, _rng(seed, TEST), grids[:first])
    held_out = _make(kind, test, _rng(seed, TEST))
    return _make(kind, train, _rng(seed, TRAIN), without=held_out.solutions), held_out


def random_grid(draw: random.Random) -> list[int]:
    """A full 9 x 9 grid: three boxes on the diagonal, which never meet, and a random completion."""
    ruled = rules(9)
    grid = [0] * ruled.cells
    for box in (18, 22, 26):
        for cell, digit in zip(ruled.units[box].tolist(), draw.sample(range(1, 10), 9), strict=True):
            grid[cell] = digit
    return solve(grid, limit=1, draw=draw).solutions[0]


def _rng(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, stream))))


def _make(
    kind: Kind, count: int, rng: np.random.Generator, grids: np.ndarray | None = None, without: np.ndarray | None = None
) -> Puzzles:
    """`count` puzzles of a kind, on these grids, or on new ones that are not among those of `without`."""
    seen = {grid.tobytes() for grid in (without if without is not None else ())}
    made, dry = [], 0
    bar = tqdm(desc="making puzzles", total=count, unit="puzzle", delay=2, leave=False)
    with bar:
        while bar.n < count:
            size = min(max(count - bar.n, 16), CHUNK)
            chunk = _dug(kind, _solutions(size, rng, grids), rng)
            keys = chunk.givens if grids is not None else chunk.solutions
            new = [i for i, key in enumerate(keys) if _first_seen(key.tobytes(), seen)][: count - bar.n]
            dry = 0 if new else dry + 1
            if dry == DRY:
                raise DataError(_no_more(kind, count, bar.n))
            made.append(chunk.take(np.array(new, np.int64)))
            bar.update(len(new))
    return concatenate(made)


def _first_seen(key: bytes, seen: set[bytes]) -> bool:
    new = key not in seen
    seen.add(key)
    return new


def _solutions(count: int, rng: np.random.Generator, grids: np.ndarray | None) -> np.ndarray:
    if grids is not None:
        return grids[rng.integers(len(grids), size=count)]
    draw = random.Random(int(rng.integers(2**63)))
    return np.array([random_grid(draw) for _ in range(count)], np.uint8)


def _dug(kind: Kind, solutions: np.ndarray, rng: np.random.Generator) -> Puzzles:
    """The puzzles of a kind that could be made on these grids: digging may end above the clues that were asked for."""
    least, most = kind.clues or (0, 0)
    clues = rng.integers(least, most + 1, len(solutions))
    if kind.rating is None:
        givens, ratings = dig(solutions, clues, rng), np.zeros(len(solutions), np.int64)
    else:
        dug = list(_searched(solutions, clues, rng))
        givens = np.array([given for given, _ in dug], np.uint8)
        ratings = np.array([rating for _, rating in dug], np.int64)
    low, high = kind.rating or (0, 0)
    fits = (low <= ratings) & (ratings <= high)
    if kind.clues:
        fits &= (givens > 0).sum(1) == clues
    return Puzzles(givens, solutions, ratings).take(fits)


def _searched(solutions: np.ndarray, clues: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[list[int], int]]:
    """(puzzle, rating): cells go in random order while the solution stays the only one, by search."""
    for solution, wanted in zip(solutions.tolist(), clues.tolist(), strict=True):
        puzzle, left, rating = list(solution), len(solution), 0
        for cell in rng.permutation(len(solution)).tolist():
            if left == wanted:
                break
            puzzle[cell] = 0
            found = solve(puzzle)
            if len(found.solutions) == 1 and found.complete:
                left, rating = left - 1, found.backtracks
            else:
                puzzle[cell] = solution[cell]
        yield puzzle, rating


def _no_more(kind: Kind, count: int, made: int) -> str:
    asked = ""
    if kind.clues is not None:
        least, most = kind.clues
        asked = f" with {least} clues" if least == most else f" with {least} to {most} clues"
    if kind.rating is not None:
        asked += f" with a rating of {kind.rating[0]} to {kind.rating[1]}"
    return (
        f"{count:,} puzzles of size {kind.size}{asked} were asked for; after {made:,} no more were found. Ask for "
        "fewer puzzles, or for more clues"
        + ("" if kind.rating is None else " or a wider band: random digging gives ratings above 15 hardly ever")
    )
