"""Sudoku puzzles in groups, an original and its copies, drawn as the original HRM draws them."""

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator

from mhcnb.config import RunConfig
from mhcnb.data.base import Source, Split
from mhcnb.data.puzzles import arrays, prepare
from mhcnb.data.puzzles.build import Recipe
from mhcnb.data.puzzles.generate import Kind
from mhcnb.data.puzzles.shared import refuse_shared
from mhcnb.errors import ConfigError, DataError
from mhcnb.models.base import Batch
from mhcnb.objectives.base import Clock
from mhcnb.section import Named, Natural, Positive

GENERATED = "generated"
IGNORED = -100
ON_DISK: dict[Split, str] = {"train": "train", "val": "test"}
FEWEST = {9: 20, 4: 4}  # clues that puzzles can be made with
CLUES = {9: (30, 30), 4: (6, 12)}  # where nothing says how many; with a rating, as few as digging leaves

Band = tuple[int, int]


class SudokuConfig(Named):
    """Where the puzzles are. What is generated, or built from a CSV, is kept in `cache`; fields that say how do
    nothing where `root` is a folder of arrays."""

    name: str = "sudoku"
    root: str = GENERATED  # or a folder of arrays, a CSV, a folder of train.csv and test.csv, or owner/name on a hub
    size: Literal[9, 4] = 9
    train: Positive | None = None  # puzzles, before they are augmented; None: 1000 generated ones, all of a CSV
    test: Positive | None = None
    clues: Positive | Annotated[Band, Field(strict=False)] | None = None  # of a generated puzzle; or fewest, most
    rating: Annotated[Band, Field(strict=False)] | None = None  # None: those that need no search; see generate.Kind
    min_difficulty: Natural | None = None  # rating below which puzzles of a CSV are left out
    augmentations: Natural = 0  # symmetric copies of each training puzzle
    seed: Natural = 0  # of what is made and drawn before a run; not that of the run
    epochs_per_iteration: Positive = 10  # passes over the originals whose order is drawn together
    hub: Literal["huggingface", "modelscope"] = "huggingface"
    revision: str | None = None  # of the hub's data set; None: its main branch
    cache: str | None = None  # folder for what is fetched or made; None: see cache.cache_folder

    @model_validator(mode="after")
    def _makeable(self) -> "SudokuConfig":
        if self.root != GENERATED:
            return self
        low, high = self.kind.clues or CLUES[self.size]
        fewest, most = FEWEST[self.size], self.size**2 - 1
        if not fewest <= low <= high <= most:
            raise ValueError(
                f"clues {low} to {high}: expected {fewest} to {most} of a grid of size {self.size}, rising"
            )
        if self.rating is not None and not 0 <= self.rating[0] <= self.rating[1]:
            raise ValueError(f"rating {list(self.rating)}: expected [fewest, most] backtracks, rising from 0")
        if self.size == 4 and self.augmentations:
            raise ValueError("augmentations of 4 x 4 puzzles would bring test grids back in training; give 0")
        return self

    @property
    def kind(self) -> Kind:
        """What to generate."""
        clues = (self.clues, self.clues) if isinstance(self.clues, int) else self.clues
        return Kind(self.size, clues or (None if self.rating else CLUES[self.size]), self.rating)

    @property
    def recipe(self) -> Recipe:
        """What to build."""
        return Recipe(self.train, self.test, self.min_difficulty, self.augmentations, self.seed)


class Order(NamedTuple):
    """Puzzle numbers [updates, global batch] of one iteration of one seed."""

    seed: int
    iteration: int
    rows: np.ndarray


class Sudoku(Source):
    """A training batch is one puzzle of each of the next groups; a test batch is the next puzzles."""

    Config = SudokuConfig

    def __init__(self, config: RunConfig) -> None:
        section: Any = config.data
        self.root = _folder(section)
        self.splits = {split: arrays.read_split(self.root / name) for split, name in ON_DISK.items()}
        train = self.splits["train"]
        _require_size(section.size, self.splits.values())
        self.vocab_size = self.sizes["vocab_size"]
        self.global_batch = config.train.micro_batch * config.train.accumulation
        self.epochs: int = section.epochs_per_iteration
        self.epoch_rows = self.groups = len(train.groups) - 1
        self.updates_per_iteration = self.updates = self.epochs * self.groups // self.global_batch
        self._order: Order | None = None

    @property
    def sizes(self) -> dict[str, int]:
        train = self.splits["train"]
        return {
            "vocab_size": train.size + 2,
            "seq_len": train.inputs.shape[1],
            "puzzles": train.meta["num_puzzle_identifiers"],
        }

    @classmethod
    def known_sizes(cls, config: Any) -> dict[str, int]:
        known = {"vocab_size": config.size + 2, "seq_len": config.size**2}
        return known | {"puzzles": 1} if config.root == GENERATED else known

    @classmethod
    def known_epoch_rows(cls, config: Any) -> int | None:
        return config.train or prepare.MADE if config.root == GENERATED else None

    def check(self, config: RunConfig) -> None:
        """Tokens in range, no grid in both splits, and at least one update an iteration."""
        for split in self.splits.values():
            arrays.require_tokens(split)
        refuse_shared(self.splits["train"].labels, self.splits["val"].labels, f"{self.root}: ")
        if not self.updates:
            raise ConfigError(
                f"a global batch of {self.global_batch:,} rows is more than an iteration of {self.groups:,} puzzles x "
                f"data.epochs_per_iteration {self.epochs}; give at least "
                f"data.epochs_per_iteration={-(-self.global_batch // self.groups)}, or a smaller batch"
            )

    def train_batch(self, clock: Clock, first: int, count: int) -> Batch:
        iteration, update = divmod(clock.step - 1, self.updates)
        order = self._order
        if order is None or (order.seed, order.iteration) != (clock.seed, iteration + 1):
            rows = group_order(self.splits["train"].groups, self.epochs, clock.seed + iteration + 1)
            used = self.updates * self.global_batch  # a last batch that is not full is dropped
            rows = rows[:used].reshape(-1, self.global_batch)
            self._order = order = Order(clock.seed, iteration + 1, rows)
        return self._batch("train", order.rows[update, first : first + count], count)

    @classmethod
    def blank_batch(cls, config: RunConfig, rows: int) -> Batch:
        section: Any = config.data
        cells = torch.empty(rows, section.size**2, dtype=torch.int32)
        return {"inputs": cells, "labels": torch.empty_like(cells), "puzzle_identifiers": cells[:, 0].clone()}

    def evaluation_batch(self, split: Split, first: int, count: int, total: int) -> Batch:
        """Of val all puzzles in their order, of train the original of each group; rows past the last are padding."""
        data = self.splits[split]
        rows = data.groups[:-1] if split == "train" else np.arange(len(data.inputs))
        return self._batch(split, rows[first : min(first + count, total)], count)

    def _batch(self, split: Split, rows: np.ndarray, count: int) -> Batch:
        """int32 inputs, labels [count, cells] and puzzle_identifiers [count]; padding has no labels."""
        data = self.splits[split]
        meta, n, cells = data.meta, len(rows), data.inputs.shape[1]
        inputs = np.full((count, cells), meta["pad_id"], np.int32)
        labels = np.full((count, cells), IGNORED, np.int32)
        identifiers = np.full(count, meta["blank_identifier_id"], np.int32)
        inputs[:n], labels[:n], identifiers[:n] = data.inputs[rows], data.labels[rows], data.identifiers[rows]
        if meta.get("ignore_label_id") is not None:
            labels[labels == meta["ignore_label_id"]] = IGNORED
        batch = {"inputs": inputs, "labels": labels, "puzzle_identifiers": identifiers}
        return {name: torch.from_numpy(array) for name, array in batch.items()}

    def fingerprint(self) -> dict[str, str]:
        return {f"{name} split": self.splits[split].digest() for split, name in ON_DISK.items()}

    def describe(self) -> dict[str, Any]:
        """For env.json: sizes, puzzles and originals of each split, clues, digests."""
        train = self.splits["train"]
        return {
            "root": str(self.root),
            "format": f"puzzles of {train.inputs.shape[1]} cells",
            **self.sizes,
            "puzzles_of_split": {name: len(self.splits[split].inputs) for split, name in ON_DISK.items()},
            "originals": {name: len(self.splits[split].groups) - 1 for split, name in ON_DISK.items()},
            "build": arrays.read_record(self.root),
            "digests": self.fingerprint(),
        }


def group_order(groups: np.ndarray, epochs: int, seed: int) -> np.ndarray:
    """Puzzle numbers [epochs x groups]: passes over all groups, each in an order of its own, with a random puzzle of
    each. One generator: first all orders, then all choices."""
    rng = np.random.Generator(np.random.Philox(seed=seed))
    order = np.concatenate([rng.permutation(len(groups) - 1) for _ in range(epochs)])
    return rng.integers(groups[order], groups[order + 1])


def _folder(section: SudokuConfig) -> Path:
    """The folder of arrays, made first where it must be. Raises DataError."""
    if section.root == GENERATED:
        return prepare.kept_generated(section.kind, section.recipe, section.cache)
    folder = prepare.located(section.root, section.hub, section.revision, section.cache)
    if (folder / "train" / "dataset.json").is_file():
        return folder
    return prepare.kept_built(folder, section.recipe, section.cache)


def _require_size(size: int, splits: Any) -> None:
    for split in splits:
        if split.size != size:
            raise DataError(
                f"{split.folder}: grids of {split.size} x {split.size}, while data.size is {size}; give "
                f"data.size={split.size}, or other puzzles"
            )
