"""Language data from token shards: windows of block_size + 1 tokens, read at places that (seed, step, index) decide."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import model_validator

from mhcnb.config import RunConfig
from mhcnb.data import corpus, layout
from mhcnb.data.base import Source, Split
from mhcnb.data.tokens import Tokens, mix, unigram_entropy
from mhcnb.errors import DataError
from mhcnb.models.base import Batch
from mhcnb.objectives.base import Clock
from mhcnb.section import Named

EDGES = 1 << 19  # tokens of each end of a training shard that are checked before a run: a megabyte of uint16


class ShardsConfig(Named):
    """Where the tokens are. A ModelScope id as root is fetched first, into `cache`."""

    name: str = "shards"
    root: str | None = None  # folder, owner/name on ModelScope, or `embedded`; None: DATA_ROOT or DATA_PATH
    train_glob: str | None = None
    val_glob: str | None = None
    detect: bool = True  # False: files exactly as the globs say, from the root, and never doubted
    revision: str = "master"  # of the ModelScope data set
    cache: str | None = None  # folder for what is fetched or prepared; None: see cache.cache_folder

    @model_validator(mode="after")
    def _globs(self) -> "ShardsConfig":
        if not self.detect and not (self.train_glob and self.val_glob):
            raise ValueError("detect: false takes the files from the globs alone; give train_glob and val_glob")
        return self


class Shards(Source):
    """The two splits as token streams; a batch is a set of windows [b, t + 1] of one of them."""

    Config = ShardsConfig

    def __init__(self, config: RunConfig) -> None:
        section: Any = config.data
        globs = {"train": section.train_glob, "val": section.val_glob}
        self.layout = layout.open_layout(_folder(section), globs, section.detect)
        self.splits = {split: Tokens(shards) for split, shards in self.layout.shards.items()}
        self.vocab_size = self.layout.meta.vocab_size
        self.t: int = config.model.block_size  # type: ignore[attr-defined]

    @staticmethod
    def known_vocab_size(config: Any) -> int | None:
        return corpus.VOCAB if config.root == "embedded" else None

    def check(self, config: RunConfig) -> None:
        """Lengths, then ids: all of val, both ends of each training shard. `auto` counts as the data's own size."""
        for split, shards in self.layout.shards.items():
            for shard in shards:
                if shard.tokens <= self.t:
                    raise DataError(
                        f"{shard.path}: {shard.tokens:,} tokens; a window needs block_size + 1 = {self.t + 1:,}. "
                        f"Give a smaller model.block_size, or leave this {split} shard out"
                    )
        size: Any = getattr(config.model, "vocab_size", None)
        if size == "auto":
            size = self.vocab_size
        if size is None:
            raise DataError(
                f"model.vocab_size is auto, but {self.layout.root} has no meta.json that says vocab_size; give it, "
                "e.g. model.vocab_size=50304 for tokens of GPT-2"
            )
        self.splits["val"].check_ids(size)
        self.splits["train"].check_ids(size, EDGES)

    def train_batch(self, clock: Clock, first: int, count: int) -> Batch:
        tokens = self.splits["train"]
        draws = mix(clock.seed, clock.step, np.arange(first, first + count))
        return self._batch(tokens, (draws % np.uint64(len(tokens) - self.t)).astype(np.int64))

    def evaluation_batch(self, split: Split, first: int, count: int, total: int) -> Batch:
        tokens = self.splits[split]
        return self._batch(tokens, np.arange(first, first + count) * (len(tokens) - self.t) // total)

    def _batch(self, tokens: Tokens, starts: np.ndarray) -> Batch:
        """Windows of t + 1 tokens as inputs and targets, both int64 [b, t]."""
        windows = tokens.windows(starts, self.t + 1)
        halves = np.empty((2, len(starts), self.t), np.int64)
        halves[0], halves[1] = windows[:, :-1], windows[:, 1:]
        return {"inputs": torch.from_numpy(halves[0]), "targets": torch.from_numpy(halves[1])}

    def fingerprint(self) -> dict[str, str]:
        some = self.layout.shards.items()
        return {f"{split} shard {i}, {s.path.name}": s.digest for split, files in some for i, s in enumerate(files)}

    def describe(self) -> dict[str, Any]:
        """For env.json: format, files with token counts and sampled digests, vocabulary, entropy of the val tokens."""
        meta, shards = self.layout.meta, self.layout.shards
        entropy, counted = unigram_entropy(self.splits["val"])
        return {
            "root": str(self.layout.root),
            "format": self.layout.format,
            "tokens": {split: len(tokens) for split, tokens in self.splits.items()},
            "vocab_size": self.vocab_size,
            "end_of_text": meta.end_of_text,
            "tokenizer": str(meta.tokenizer) if meta.tokenizer else None,
            "val_unigram_entropy": entropy,
            "val_unigram_tokens": counted,
            "files": {
                split: [{"path": str(s.path), "tokens": s.tokens, "digest": s.digest} for s in some]
                for split, some in shards.items()
            },
        }


def check_all(root: str, vocab_size: int | None = None) -> dict[str, Any]:
    """Reads every token under a root; returns what is there and the largest id of each split.

    `vocab_size` is that of meta.json where None. Raises DataError for the first fault.
    """
    found = layout.open_layout(_folder(ShardsConfig(root=root)), {})
    size = vocab_size or found.meta.vocab_size
    splits = {split: Tokens(shards) for split, shards in found.shards.items()}
    return {"root": str(found.root), "format": found.format, "vocab_size": size} | {
        split: {"files": len(tokens.shards), "tokens": len(tokens), "largest_id": tokens.check_ids(size or 2**32)}
        for split, tokens in splits.items()
    }


def _folder(section: ShardsConfig) -> Path:
    """The folder with the shards, made or fetched first where it must be. Raises DataError."""
    if section.root == "embedded":
        return corpus.embedded(section.cache)
    folder = layout.folder_of(section.root)
    if folder is not None:
        return folder
    from mhcnb.data.download import download_modelscope

    names = [section.train_glob or "*train*.bin", section.val_glob or "*val*.bin", "*meta.json", "*tokenizer.json"]
    try:
        return download_modelscope(str(section.root), revision=section.revision, cache=section.cache, patterns=names)
    except DataError as error:
        raise DataError(f"data.root = {section.root} is no folder, so it was taken for a data set: {error}") from error
