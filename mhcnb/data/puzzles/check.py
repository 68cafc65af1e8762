"""A user's own puzzles, one typed or a whole set: whether each is sound, and whether it has one solution."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from mhcnb.data.puzzles import arrays
from mhcnb.data.puzzles.faults import fault_of_text, first_fault
from mhcnb.data.puzzles.shared import refuse_shared
from mhcnb.data.puzzles.singles import solved
from mhcnb.data.puzzles.solver import MOST_NODES, Solved, solve
from mhcnb.data.puzzles.table import Puzzles, read_csv, require_one_size
from mhcnb.errors import DataError

log = logging.getLogger(__name__)

ROWS = 20_000  # of arrays that are checked at once
CHUNK = 1000  # puzzles that are solved by singles at once
TOLD = 5  # puzzles with several solutions that are told


class Counted(NamedTuple):
    """Rows, from 0 on, of puzzles with several solutions, and of those whose search was given up."""

    several: list[int]
    unknown: list[int]


def typed_puzzle(text: str, size: int = 9) -> tuple[np.ndarray, Solved]:
    """Digits uint8 [cells] of a puzzle as a person types it, spaces and lines as they like, and its solutions: two
    where there are more. Raises DataError where it is no puzzle, or has no solution."""
    text = "".join(text.split())
    wrong = fault_of_text(text, size)
    if wrong:
        raise DataError(f"the puzzle {wrong}")
    givens = np.array([int(char) for char in text.replace(".", "0")], np.uint8)
    fault = first_fault(givens[None])
    if fault is not None:
        raise DataError(f"the puzzle has no solution: {fault[1]}")
    found = solve(givens.tolist())
    if not found.solutions and found.complete:
        raise DataError("the puzzle has 0 solutions: no digits can fill it, though its givens break no rule")
    return givens, found


def count_solutions(where: str, puzzles: Puzzles, most_nodes: int = MOST_NODES) -> Counted:
    """Which puzzles have several solutions, by singles and else by search; warns of the first ones. `where` names the
    table in the warnings."""
    counted = Counted([], [])
    starts = range(0, len(puzzles.givens), CHUNK)
    for start in tqdm(starts, "counting solutions", unit_scale=CHUNK, unit="puzzle", delay=2, leave=False):
        givens = puzzles.givens[start : start + CHUNK]
        for row in np.flatnonzero(~solved(givens)).tolist():
            found = solve(givens[row].tolist(), most_nodes=most_nodes)
            if len(found.solutions) > 1:
                counted.several.append(start + row)
            elif not found.complete:
                counted.unknown.append(start + row)
    for row in counted.several[:TOLD]:
        log.warning("%s: row %s: 2 or more solutions, and the answer is one of them", where, f"{row + 1:,}")
    for row in counted.unknown[:TOLD]:
        log.warning("%s: row %s: unknown whether 1 solution or more: search given up", where, f"{row + 1:,}")
    more = len(counted.several) + len(counted.unknown) - len(counted.several[:TOLD]) - len(counted.unknown[:TOLD])
    if more:
        log.warning("%s: %s more puzzles like these", where, f"{more:,}")
    return counted


def holds_puzzles(root: Path) -> bool:
    """Whether a path looks like puzzles: a CSV, a folder of tables, or one of arrays."""
    return root.suffix == ".csv" or any((root / name).is_file() for name in ("train.csv", "train/dataset.json"))


def check_all(root: Path) -> dict[str, Any]:
    """Reads every puzzle of a CSV or a folder; returns what is there. Raises DataError for the first fault, and where a
    solution grid is in both splits; puzzles with several solutions are warned of and counted."""
    if (root / "train" / "dataset.json").is_file():
        tables = {name: _of_arrays(root / name) for name in ("train", "test")}
    elif root.is_dir():
        tables = {name: _of_csv(root / f"{name}.csv") for name in ("train", "test")}
    else:
        tables = {root.name: _of_csv(root)}
    if len(tables) == 2:
        train, test = tables.values()
        require_one_size(train.originals, test.originals)
        refuse_shared(train.grids, test.grids, f"{root}: ")
    return {"root": str(root)} | {name: _facts(f"{root}, {name}", table) for name, table in tables.items()}


class _Table(NamedTuple):
    """originals: one puzzle a group; grids: the solutions of all, copies included, in any encoding."""

    originals: Puzzles
    grids: np.ndarray


def _of_csv(path: Path) -> _Table:
    table = read_csv(path)
    return _Table(table, table.solutions)


def _of_arrays(folder: Path) -> _Table:
    """A split on the disk. Raises DataError for the first row that is no puzzle."""
    split = arrays.read_split(folder)
    arrays.require_tokens(split)
    for start in range(0, len(split.inputs), ROWS):
        fault = first_fault(*_digits(split, slice(start, start + ROWS)))
        if fault is not None:
            raise DataError(f"{folder}: row {start + fault[0] + 1:,}: {fault[1]}")
    givens, solutions = _digits(split, split.groups[:-1])
    return _Table(Puzzles(givens, solutions, np.zeros(len(givens), np.int64)), split.labels)


def _digits(split: arrays.Split, rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """Givens and solutions of some rows."""
    return split.inputs[rows].astype(np.uint8) - np.uint8(1), split.labels[rows].astype(np.uint8) - np.uint8(1)


def _facts(where: str, table: _Table) -> dict[str, Any]:
    puzzles, _, ratings = table.originals
    counted = count_solutions(where, table.originals)
    clues = (puzzles > 0).sum(1)
    facts = {"rows": len(table.grids), "originals": len(puzzles), "size": table.originals.size}
    facts |= {"different": len(np.unique(puzzles, axis=0)), "clues": [int(clues.min()), int(clues.max())]}
    facts |= {"solution_grids": len(np.unique(table.originals.solutions, axis=0)), "hardest": int(ratings.max())}
    return facts | {"several_solutions": len(counted.several), "unknown": len(counted.unknown)}
