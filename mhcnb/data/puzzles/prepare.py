"""Puzzles made or read, built, and kept: a folder of the array layout, with the tables that it was built from."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from mhcnb.data.cache import appearing, cache_folder, made_once, refuse_used
from mhcnb.data.layout import ID
from mhcnb.data.puzzles.build import RATING_KIND, Recipe, build
from mhcnb.data.puzzles.check import count_solutions
from mhcnb.data.puzzles.generate import Kind, generate
from mhcnb.data.puzzles.table import Puzzles, read_csv, write_csv
from mhcnb.durable import facts
from mhcnb.errors import DataError
from mhcnb.paths import find

log = logging.getLogger(__name__)

FORMAT = 1  # of what is kept: another one is made again
EXAMINED = 2000  # first puzzles of a CSV whose solutions are counted before it is built; `check` counts all
MADE = 1000  # puzzles of a split that are generated where nothing says how many


def write_generated(out: Path, kind: Kind, recipe: Recipe) -> dict[str, Any]:
    """New puzzles in the new folder `out`; returns its record. Raises DataError."""
    refuse_used(out)
    with appearing(out) as part:
        return _generated(part, kind, recipe)


def located(root: str, hub: str = "huggingface", revision: str | None = None, cache: str | None = None) -> Path:
    """The CSV or folder that `root` names, fetched into the cache first where it is owner/name on a hub. Raises
    DataError."""
    path = find(root)
    if path.exists():
        return path
    if ID.fullmatch(root) and not Path(root).parent.exists():
        from mhcnb.data.download import download_tables

        return download_tables(root, hub, revision, cache)
    raise DataError(
        f"{root} is not there; give a folder that `mhcnb data sudoku` made, a CSV, a folder with train.csv and "
        "test.csv, a data set on a hub (owner/name), or `generated`"
    )


def write_built(out: Path, source: Path, recipe: Recipe) -> dict[str, Any]:
    """Puzzles of a CSV, or of train.csv and test.csv in a folder, in the new folder `out`; returns its record.

    One file is split: recipe.test puzzles (a tenth where None), drawn by solution grid, become the test. Raises
    DataError.
    """
    refuse_used(out)
    with appearing(out) as part:
        return _built(part, source, recipe, _origin(source))


def kept_generated(kind: Kind, recipe: Recipe, cache: str | None) -> Path:
    """The folder in the cache with these puzzles, made on first use. Raises DataError."""
    return _kept("generated", [kind, recipe], cache, lambda part: _generated(part, kind, recipe))


def kept_built(source: Path, recipe: Recipe, cache: str | None) -> Path:
    """The folder in the cache with the puzzles of a CSV, or of two, built on first use. Raises DataError."""
    origin = _origin(source)
    contents = [file["sha256"] for file in origin["files"]]
    return _kept("built", [contents, recipe], cache, lambda part: _built(part, source, recipe, origin))


def tables_of(source: Path) -> list[Path]:
    """The CSV, or train.csv and test.csv of a folder. Raises DataError where they are not there."""
    files = [source / "train.csv", source / "test.csv"] if source.is_dir() else [source]
    for file in files:
        if not file.is_file():
            raise DataError(f"{file} is not there; give a CSV, or a folder with train.csv and test.csv")
    return files


def _split(path: Path, table: Puzzles, recipe: Recipe) -> tuple[Puzzles, Puzzles]:
    """By solution grid: all puzzles on one are in the same split."""
    many = recipe.test if recipe.test is not None else max(len(table.givens) // 10, 1)
    grid = np.unique(table.solutions, axis=0, return_inverse=True)[1].reshape(-1)
    order = np.random.Generator(np.random.Philox(recipe.seed)).permutation(grid.max() + 1)[grid]
    rank = np.sort(order)
    last = rank[many - 1] if many < len(rank) else rank[-1]
    if last == rank[-1]:
        raise DataError(
            f"{path}: {many:,} test puzzles of {len(rank):,} on {grid.max() + 1:,} solution grids leave none to train "
            "on; ask for fewer"
        )
    return table.take(order > last), table.take(order <= last)


def _generated(part: Path, kind: Kind, recipe: Recipe) -> dict[str, Any]:
    train, test = recipe.train or MADE, recipe.test or MADE
    for split, made in zip(("train", "test"), generate(kind, train, test, recipe.seed), strict=True):
        write_csv(part / f"{split}.csv", made)
    source = {"generated": kind._asdict(), "rating_kind": RATING_KIND, "numpy": np.__version__}
    made, held_out = (read_csv(file) for file in tables_of(part))
    return build(part, made, held_out, recipe, source)


def _built(part: Path, source: Path, recipe: Recipe, origin: dict[str, Any]) -> dict[str, Any]:
    files = tables_of(source)
    tables = [read_csv(file) for file in files]
    for file, table in zip(files, tables, strict=True):
        count_solutions(str(file), table.take(np.arange(min(EXAMINED, len(table.givens)))))
    train, test = tables if len(tables) == 2 else _split(source, tables[0], recipe)
    return build(part, train, test, recipe, origin)


def _origin(source: Path) -> dict[str, Any]:
    return {"files": [{"path": str(file.absolute()), **facts(file)} for file in tables_of(source)]}


def _kept(kind: str, decides: list, cache: str | None, make: Any) -> Path:
    """`decides`: all that the puzzles are a function of."""
    key = hashlib.sha256(json.dumps([FORMAT, *decides]).encode()).hexdigest()[:16]
    folder = (Path(cache) if cache else cache_folder()) / "sudoku" / f"{kind}-{key}"
    if not folder.is_dir():
        log.info("puzzles are %s once, in %s", kind, folder)
    return made_once(folder, make)
