"""The array layout of the original: <split>/all__inputs.npy and so on, which its loader and ours both read.

Tokens are digits + 1: 0 pads, 1 is a blank. A puzzle is one row; a group is an original and its augmented copies.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mhcnb.data.puzzles.rules import size_of
from mhcnb.data.puzzles.table import Puzzles
from mhcnb.durable import write_json
from mhcnb.errors import DataError

FIELDS = ("inputs", "labels", "puzzle_indices", "group_indices", "puzzle_identifiers")
RECORD = "build.json"
SAMPLES = 8  # stretches of an array that its digest is taken of
WIDTH = 1 << 15  # bytes of each


class Split(NamedTuple):
    """inputs, labels: tokens [n, cells], on the disk; groups: where each begins, and the end [groups + 1];
    identifiers: [n]; meta: dataset.json."""

    inputs: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    identifiers: np.ndarray
    meta: dict[str, Any]
    folder: Path

    @property
    def size(self) -> int:
        """9 or 4."""
        return size_of(self.inputs.shape[1]) or 0

    def digest(self) -> str:
        """SHA-256 of shape, groups, identifiers and samples of the tokens, however wide they are stored."""
        hasher = hashlib.sha256(repr(self.inputs.shape).encode())
        for indices in (self.groups, self.identifiers):
            hasher.update(indices.astype("<i8").tobytes())
        for tokens in (self.inputs, self.labels):
            many = max(WIDTH // tokens.shape[1], 1)
            for start in np.linspace(0, max(len(tokens) - many, 0), SAMPLES).astype(int).tolist():
                hasher.update(tokens[start : start + many].astype(np.uint8).tobytes())
        return hasher.hexdigest()


def write_split(folder: Path, puzzles: Puzzles, copies: int = 0) -> None:
    """One split into a new folder: puzzles in groups of 1 + `copies`."""
    folder.mkdir(parents=True)
    n, cells = puzzles.givens.shape
    arrays = {
        "inputs": puzzles.givens + np.uint8(1),
        "labels": puzzles.solutions + np.uint8(1),
        "puzzle_indices": np.arange(n + 1, dtype=np.int32),
        "group_indices": np.arange(0, n + 1, 1 + copies, dtype=np.int32),
        "puzzle_identifiers": np.zeros(n, np.int32),
    }
    for field, array in arrays.items():
        np.save(folder / f"all__{field}.npy", array)
    meta = {"pad_id": 0, "ignore_label_id": 0, "blank_identifier_id": 0, "vocab_size": puzzles.size + 2}
    meta |= {"seq_len": cells, "num_puzzle_identifiers": 1, "total_groups": n // (1 + copies)}
    write_json(folder / "dataset.json", meta | {"mean_puzzle_examples": 1.0, "sets": ["all"]})


def write_record(out: Path, record: dict[str, Any]) -> None:
    """build.json, how the arrays came about, and identifiers.json, the one name that all puzzles share."""
    write_json(out / "identifiers.json", ["<blank>"])
    write_json(out / RECORD, record)


def read_record(root: Path) -> dict[str, Any]:
    """build.json; {} where there is none, as in what the original built."""
    try:
        return dict(json.loads((root / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def read_split(folder: Path) -> Split:
    """A split as it lies on the disk, its shapes and indices checked. Raises DataError."""
    meta = _meta(folder / "dataset.json")
    inputs, labels, puzzles, groups, identifiers = (_array(folder / f"all__{field}.npy") for field in FIELDS)
    if inputs.ndim != 2 or inputs.shape != labels.shape or size_of(inputs.shape[1]) is None:
        raise DataError(
            f"{folder}: inputs {list(inputs.shape)}, labels {list(labels.shape)}; expected both [puzzles, 81], or "
            "[puzzles, 16] for grids of 4 x 4"
        )
    n = len(inputs)
    if not np.array_equal(puzzles, np.arange(n + 1)):
        raise DataError(
            f"{folder}: {len(puzzles) - 1:,} puzzles for {n:,} rows; expected one row a puzzle (other tasks of the "
            "original have several: these are not read here)"
        )
    if groups.ndim != 1 or len(groups) < 2 or groups[0] != 0 or groups[-1] != n or (np.diff(groups) < 1).any():
        raise DataError(f"{folder}/all__group_indices.npy: expected rising numbers from 0 to {n:,}, the rows")
    many = meta["num_puzzle_identifiers"]
    if identifiers.shape != (n,) or identifiers.min() < 0 or identifiers.max() >= many:
        raise DataError(f"{folder}/all__puzzle_identifiers.npy: expected {n:,} numbers from 0 to {many - 1:,}")
    return Split(inputs, labels, groups, identifiers, meta, folder)


def require_tokens(split: Split) -> None:
    """Blanks and digits in the inputs, digits in the labels. Raises DataError for the first other token."""
    for name, tokens, least in (("inputs", split.inputs, 1), ("labels", split.labels, 2)):
        most = split.size + 1
        if int(tokens.min()) < least or int(tokens.max()) > most:
            row, cell = np.argwhere((tokens < least) | (tokens > most))[0].tolist()
            raise DataError(
                f"{split.folder}/all__{name}.npy: row {row + 1:,} has token {tokens[row, cell]} at cell {cell + 1}; "
                f"expected {least} to {most}, digits + 1"
            )


def _meta(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        whole = {key: int(meta[key]) for key in ("pad_id", "blank_identifier_id", "num_puzzle_identifiers")}
        whole |= {key: int(meta[key]) for key in ("ignore_label_id",) if meta.get(key) is not None}
        if meta["sets"] != ["all"]:
            raise DataError(f"{path}: sets {meta['sets']}; expected one, all")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; `mhcnb data sudoku` writes it") from error
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not the description of a data set: {type(error).__name__} {error}") from error
    return meta | whole


def _array(path: Path) -> np.ndarray:
    """An array of whole numbers, of any width, left on the disk."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read: {error}; make the data again with `mhcnb data sudoku`") from error
    if array.dtype.kind not in "iu":
        raise DataError(f"{path}: type {array.dtype}; expected whole numbers, as uint8")
    return array
