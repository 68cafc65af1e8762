"""From tables of puzzles to the array layout: which ones, how many copies of each, and a record of both."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mhcnb.data.puzzles.arrays import write_record, write_split
from mhcnb.data.puzzles.shared import refuse_shared
from mhcnb.data.puzzles.symmetry import draw
from mhcnb.data.puzzles.table import Puzzles, concatenate, require_one_size
from mhcnb.errors import DataError

RATING_KIND = "mhcnb-dfs"  # backtracks of our solver: of the same kind as those of tdoku, but more


class Recipe(NamedTuple):
    """Same tables and same recipe: the same arrays."""

    train: int | None = None  # puzzles drawn from the training table, where it has more; None: all
    test: int | None = None  # the first ones of the test table; None: all
    min_difficulty: int | None = None  # rating below which puzzles of both are left out
    augmentations: int = 0  # symmetric copies beside each training puzzle
    seed: int = 0  # draws the puzzles and their copies


def build(out: Path, train: Puzzles, test: Puzzles, recipe: Recipe, source: dict[str, Any]) -> dict[str, Any]:
    """Writes both splits into an existing folder and returns build.json, their record: `source` says in it where the
    puzzles came from. Raises DataError, as where a grid is in both splits."""
    require_one_size(train, test)
    if train.size != 9 and recipe.augmentations:
        raise DataError(
            f"{recipe.augmentations} augmentations of 4 x 4 puzzles: their 288 grids are copies of two, so that test "
            "puzzles would come back in training; give 0"
        )
    rng = np.random.Generator(np.random.Philox(recipe.seed))
    train, test = (_difficult(split, table, recipe) for split, table in (("training", train), ("test", test)))
    if recipe.train is not None and recipe.train < len(train.givens):
        train = train.take(rng.choice(len(train.givens), recipe.train, replace=False))
    test = test.take(np.arange(len(test.givens))[: recipe.test])
    refuse_shared(train.solutions, test.solutions)
    record = {"source": source, **recipe._asdict(), "size": train.size}
    record |= {"puzzles": {"train": len(train.givens), "test": len(test.givens)}}
    write_split(out / "train", _augmented(train, recipe.augmentations, rng), recipe.augmentations)
    write_split(out / "test", test)
    write_record(out, record)
    return record


def _difficult(split: str, table: Puzzles, recipe: Recipe) -> Puzzles:
    kept = table if recipe.min_difficulty is None else table.take(table.ratings >= recipe.min_difficulty)
    if not len(kept.givens):
        raise DataError(
            f"no {split} puzzle has a rating of {recipe.min_difficulty} or more: the hardest of "
            f"{len(table.givens):,} has {table.ratings.max()}; give a smaller minimum difficulty"
        )
    return kept


def _augmented(table: Puzzles, copies: int, rng: np.random.Generator) -> Puzzles:
    """Each puzzle followed by its copies, with one symmetry for both of its boards."""
    if not copies:
        return table
    parts = []
    for row in range(len(table.givens)):
        one, drawn = table.take(np.array([row])), draw(copies, rng)
        parts += [one, Puzzles(drawn(one.givens), drawn(one.solutions), one.ratings.repeat(copies))]
    return concatenate(parts)
