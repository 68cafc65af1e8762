"""Language data from token shards: windows of block_size + 1 tokens, read at places that (seed, step, index) decide."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import model_validator

from mhcnb.config import RunConfig
from mhcnb.data import corpus, layout
from mhcnb.data.base import Source, Split
from mhcnb.data.layout import Layout
from mhcnb.data.matching import compare_with_weights, named_tokenizer, recipe_for
from mhcnb.data.prepare import prepared
from mhcnb.data.tokenizer import FILE, tokenizer_file
from mhcnb.data.tokens import Tokens, mix, unigram_entropy
from mhcnb.durable import write_text
from mhcnb.errors import DataError
from mhcnb.models.base import Batch
from mhcnb.objectives.base import Clock
from mhcnb.section import Named

EDGES = 1 << 19  # tokens of each end of a training shard that are checked before a run: a megabyte of uint16


class ShardsConfig(Named):
    """Where the tokens are. A ModelScope id as root is fetched first, into `cache`; a text is made shards of, once."""

    name: str = "shards"
    root: str | None = None  # folder, text (.jsonl, .txt), owner/name, or `embedded`; None: DATA_ROOT or DATA_PATH
    tokenizer: str | None = None  # file, folder or id; None: the folder's own, or one trained on the text
    text_key: str = "text"  # of the objects in a .jsonl file
    documents: bool = False  # batches say where documents begin, so that those in one window do not see each other
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
        model: Any = config.model
        globs = {"train": section.train_glob, "val": section.val_glob}
        self.layout = layout.open_layout(_folder(section, config), globs, section.detect)
        self.splits = {split: Tokens(shards) for split, shards in self.layout.shards.items()}
        self.named, self.codec = section.tokenizer, named_tokenizer(section, self.layout)
        self.vocab_size = self.layout.meta.vocab_size or (self.codec.size if self.codec else None)
        self.mark = self.layout.meta.end_of_text
        if self.mark is None and self.codec is not None:
            self.mark = self.codec.mark
        self.packed = _packed(section, self.mark, self.layout)
        compare_with_weights(config, self.layout.meta.tokenizer_sha256 or (self.codec.digest if self.codec else None))
        self.t: int = model.block_size

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
        """Windows of t + 1 tokens as inputs and targets, and where wanted documents, all int64 [b, t]."""
        windows = tokens.windows(starts, self.t + 1)
        halves = np.empty((2, len(starts), self.t), np.int64)
        halves[0], halves[1] = windows[:, :-1], windows[:, 1:]
        batch = {"inputs": torch.from_numpy(halves[0]), "targets": torch.from_numpy(halves[1])}
        if self.packed:
            batch["documents"] = (batch["inputs"] == self.mark).cumsum(1)
        return batch

    def fingerprint(self) -> dict[str, str]:
        some = self.layout.shards.items()
        return {f"{split} shard {i}, {s.path.name}": s.digest for split, files in some for i, s in enumerate(files)}

    def keep(self, folder: Path) -> None:
        """The tokenizer, as tokenizer.json."""
        own = self.layout.meta.tokenizer
        if self.codec is not None:
            self.codec.save(folder / FILE)
        elif own is not None and own.is_file():
            write_text(folder / FILE, own.read_text(encoding="utf-8"))

    def describe(self) -> dict[str, Any]:
        """For env.json: format, files with token counts and sampled digests, vocabulary, entropy of the val tokens."""
        meta, shards = self.layout.meta, self.layout.shards
        tokenizer = meta.tokenizer or (tokenizer_file(self.named) if self.named else None)
        entropy, counted = unigram_entropy(self.splits["val"])
        return {
            "root": str(self.layout.root),
            "format": self.layout.format,
            "tokens": {split: len(tokens) for split, tokens in self.splits.items()},
            "vocab_size": self.vocab_size,
            "end_of_text": self.mark,
            "tokenizer": str(tokenizer) if tokenizer else None,
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


def _folder(section: ShardsConfig, config: RunConfig | None = None) -> Path:
    """The folder with the shards, made or fetched first where it must be. Raises DataError."""
    if section.root == "embedded":
        return corpus.embedded(section.cache)
    text = layout.text_of(section.root)
    if text is not None:
        return prepared(text, recipe_for(section, text, config), section.cache)
    folder = layout.folder_of(section.root)
    if folder is not None:
        return folder
    from mhcnb.data.download import download_modelscope

    names = [section.train_glob or "*train*.bin", section.val_glob or "*val*.bin", "*meta.json", "*tokenizer.json"]
    try:
        return download_modelscope(str(section.root), revision=section.revision, cache=section.cache, patterns=names)
    except DataError as error:
        raise DataError(f"data.root = {section.root} is no folder, so it was taken for a data set: {error}") from error


def _packed(section: ShardsConfig, mark: int | None, found: Layout) -> bool:
    """Whether batches are to say where documents begin. Raises DataError where nothing says it to them."""
    if section.documents and mark is None:
        raise DataError(
            f"data.documents = true, but {found.root} has no meta.json that says end_of_text, the id in front of each "
            'document; put it there, as {"end_of_text": 50256} for tokens of GPT-2, or give data.tokenizer'
        )
    return section.documents
