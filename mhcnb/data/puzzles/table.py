"""Puzzles in memory, and as the CSV of sudoku-extreme: source, question, answer, rating."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mhcnb.data.puzzles.faults import fault_of_text, first_fault
from mhcnb.data.puzzles.rules import SIZES, size_of
from mhcnb.data.puzzles.solver import solve
from mhcnb.errors import DataError

HEADER = ["source", "question", "answer", "rating"]
SOURCE = "mhcnb"  # in the first column of what is made here
LONGEST = 18  # characters of a rating
CHUNK = 10_000  # rows that are read and checked at once


class Puzzles(NamedTuple):
    """givens, solutions: digits uint8 [n, cells], 0 for a blank; ratings: int64 [n], higher is harder."""

    givens: np.ndarray
    solutions: np.ndarray
    ratings: np.ndarray

    @property
    def size(self) -> int:
        """9 or 4."""
        return size_of(self.givens.shape[1]) or 0

    def take(self, which: np.ndarray) -> "Puzzles":
        """Those of some indices, or where a mask is true."""
        return Puzzles(*(column[which] for column in self))


def concatenate(parts: Sequence[Puzzles]) -> Puzzles:
    """All puzzles of several tables of one size."""
    return Puzzles(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def require_one_size(train: Puzzles, test: Puzzles) -> None:
    """Raises DataError where the splits have grids of two sizes."""
    if train.size != test.size:
        raise DataError(f"training puzzles of size {train.size}, test puzzles of size {test.size}; expected one size")


def write_csv(path: Path, puzzles: Puzzles) -> None:
    """A file that read_csv, and the builder of the original, can read."""
    with path.open("w", encoding="ascii", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for given, solution, rating in zip(*puzzles, strict=True):
            writer.writerow([SOURCE, as_text(given), as_text(solution), int(rating)])


def as_text(board: np.ndarray | Sequence[int]) -> str:
    """Digits row by row, `.` for a blank."""
    return "".join(map(str, np.asarray(board).tolist())).replace("0", ".")


def read_csv(path: Path) -> Puzzles:
    """All puzzles of a file, whose first one says the size; an empty answer is worked out. Raises DataError for the
    first row that is no puzzle, or whose answer is not its solution; whether it is the only one, see `check`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            parts = list(_chunks(path, csv.reader(file)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: cannot be read as a CSV of puzzles: {why}") from error
    if not parts:
        raise DataError(f"{path}: no puzzles: a header and nothing else")
    return concatenate(parts)


def _chunks(path: Path, reader: Iterator[list[str]]) -> Iterator[Puzzles]:
    header = next(reader, [])
    if [name.strip().lower() for name in header] != HEADER:
        shown = ",".join(header)[:60] or "nothing"
        raise DataError(
            f"{path}: line 1 is {shown!r}; expected the header {','.join(HEADER)}. Put it there, with the columns in "
            "this order"
        )
    rows, size, before = [], 0, 0
    for row in reader:
        if not row:
            continue
        size = size or _size(path, row)
        rows.append(_parsed(f"{path}: row {before + len(rows) + 1}", row, size))
        if len(rows) == CHUNK:
            yield _checked(path, rows, before)
            before, rows = before + CHUNK, []
    if rows:
        yield _checked(path, rows, before)


def _size(path: Path, row: list[str]) -> int:
    length = len(row[1]) if len(row) > 1 else 0
    size = size_of(length)
    if size is None:
        raise DataError(
            f"{path}: row 1: the question has {length} characters; expected {' or '.join(str(s * s) for s in SIZES)}, "
            "the cells of a grid row by row"
        )
    return size


def _parsed(where: str, row: list[str], size: int) -> tuple[str, str, int]:
    """(question, answer, rating) of a row, digits with 0 for a blank. Raises DataError."""
    if len(row) != len(HEADER):
        raise DataError(f"{where}: {len(row)} fields; expected {len(HEADER)}: {','.join(HEADER)}")
    _, question, answer, rating = row
    for name, text in (("question", question), ("answer", answer)):
        wrong = fault_of_text(text, size) if text or name == "question" else None
        if wrong:
            raise DataError(f"{where}: the {name} {wrong}")
    if not rating.strip().isdecimal() or len(rating) > LONGEST:
        raise DataError(f"{where}: rating {rating!r}; expected a whole number from 0 on, as 0 where it is not known")
    return question.replace(".", "0"), answer.replace(".", "0") or "0" * size**2, int(rating)


def _checked(path: Path, rows: list[tuple[str, str, int]], before: int) -> Puzzles:
    givens, solutions = (
        np.frombuffer("".join(column).encode(), np.uint8).reshape(len(rows), -1) - ord("0")
        for column in zip(*((question, answer) for question, answer, _ in rows), strict=True)
    )
    fault = first_fault(givens, solutions)
    if fault is not None:
        raise DataError(f"{path}: row {before + fault[0] + 1}: {fault[1]}")
    for row in np.flatnonzero(~solutions.any(1)).tolist():
        found = solve(givens[row].tolist(), limit=1)
        if not found.solutions:
            why = "0 solutions: no digits can fill it" if found.complete else "solutions unknown: search given up"
            raise DataError(f"{path}: row {before + row + 1}: {why}; mend it, give its answer, or leave it out")
        solutions[row] = found.solutions[0]
    return Puzzles(givens, solutions, np.array([rating for *_, rating in rows], np.int64))
