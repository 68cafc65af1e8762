"""What a data source is to the rest of the kit."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from mhcnb.config import RunConfig
from mhcnb.models.base import Batch
from mhcnb.objectives.base import Clock
from mhcnb.section import Named

Split = Literal["train", "val"]


class Source:
    """Opened from a configuration; gives batches as pure functions of (clock, index in the global batch)."""

    Config: ClassVar[type[Named]]
    vocab_size: int | None  # as the data's meta says; None where nothing says it
    epoch_rows: int | None = None  # that one pass over the data visits; None: the data have no epochs

    def __init__(self, config: RunConfig) -> None:
        """Finds and opens the data. Raises DataError before anything slow."""
        raise NotImplementedError

    @staticmethod
    def known_vocab_size(config: Any) -> int | None:
        """The vocabulary where the section `data` alone decides it, without opening anything."""
        return None

    @property
    def sizes(self) -> dict[str, int]:
        """What the data say of sizes that a model may leave to them, by the name of its field."""
        return {} if self.vocab_size is None else {"vocab_size": self.vocab_size}

    @classmethod
    def known_sizes(cls, config: Any) -> dict[str, int]:
        """Those that the section `data` alone decides, without opening anything."""
        known = cls.known_vocab_size(config)
        return {} if known is None else {"vocab_size": known}

    @classmethod
    def known_epoch_rows(cls, config: Any) -> int | None:
        """`epoch_rows` where the section `data` alone decides it, without opening anything."""
        return None

    def check(self, config: RunConfig) -> None:
        """The data against the final configuration (vocabulary, lengths). Raises DataError."""

    def train_batch(self, clock: Clock, first: int, count: int) -> Batch:
        """Rows first .. first + count of the global batch of this step."""
        raise NotImplementedError

    @classmethod
    def blank_batch(cls, config: RunConfig, rows: int) -> Batch:
        """As `train_batch` gives it, without values: for what a run will cost."""
        shape = rows, getattr(config.model, "block_size", 1)
        return {name: torch.empty(shape, dtype=torch.int64) for name in ("inputs", "targets")}

    def evaluation_batch(self, split: Split, first: int, count: int, total: int) -> Batch:
        """Rows first .. first + count of the `total` fixed ones of a split: the same for every method and seed."""
        raise NotImplementedError

    def fingerprint(self) -> dict[str, str]:
        """{name: digest} of the files, wherever they lie: a run goes on only with the data that it began with."""
        return {}

    def keep(self, folder: Path) -> None:
        """Puts into a run's folder what it takes to read its tokens, wherever the data may go."""

    def describe(self) -> dict[str, Any]:
        """What was found, as plain values for env.json: format, files, tokens, digests."""
        raise NotImplementedError
