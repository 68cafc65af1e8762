"""From the documents of a spool to a folder of shards: which are kept, in which split and order, cut how.

<out>/  train.bin  val.bin (or train_000.bin, train_001.bin, ...)  meta.json  tokenizer.json
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mhcnb.data.recipe import Recipe
from mhcnb.data.shardfile import ShardWriter
from mhcnb.data.spool import Spool
from mhcnb.data.text import END
from mhcnb.data.tokenizer import FILE, Codec
from mhcnb.data.tokens import mix
from mhcnb.durable import write_json
from mhcnb.errors import DataError

SPLITS = ("train", "val")
SHORTEST = 65  # tokens a split must have: one window of the smallest preset
SHARD = 1_000_000_000  # tokens from which a split is several files
DRAW_SPLIT, DRAW_ORDER = 0, 1


def assemble(out: Path, spool: Spool, codec: Codec, recipe: Recipe, source: dict[str, Any]) -> dict[str, Any]:
    """Both splits, the tokenizer and meta.json into an existing folder; returns the meta. `source` is added to it.

    Raises DataError where a split would be too short.
    """
    lengths = spool.lengths()
    kept = _first_of_equals(spool.digests()) if recipe.dedup else np.arange(len(lengths))
    counts = dict(spool.counts) | {"duplicates": len(lengths) - len(kept)}
    chosen = _validation(len(kept), recipe)
    rows = {"train": kept[~chosen], "val": kept[chosen]}
    chunks = {split: -(-lengths[rows[split]].astype(np.int64) // _room(recipe)) for split in SPLITS}
    splits = {
        split: {
            "documents": len(rows[split]),
            "chunks": int(chunks[split].sum()),
            "tokens": int(lengths[rows[split]].sum(dtype=np.int64) + chunks[split].sum()),
        }
        for split in SPLITS
    }
    _refuse_short(splits, counts)
    for split in SPLITS:
        order = np.argsort(mix(recipe.seed, DRAW_ORDER, np.arange(len(rows[split])))) if recipe.shuffle else slice(None)
        documents = _documents(spool, lengths, rows[split][order], _room(recipe), codec.mark)
        _write(out, split, documents, splits[split]["tokens"], spool.dtype.name)
    codec.save(out / FILE)
    meta = {"dtype": spool.dtype.name, "layout": "header", "vocab_size": codec.size, "tokenizer": FILE}
    meta |= {"tokenizer_sha256": codec.digest, "end_of_text": codec.mark, "seed": recipe.seed}
    meta |= {"options": recipe.options(), "read": counts} | splits | source
    write_json(out / "meta.json", meta)
    return meta


def _room(recipe: Recipe) -> int:
    """Tokens of text in a chunk."""
    return recipe.max_tokens - 1 if recipe.max_tokens else 2**32


def _first_of_equals(digests: np.ndarray) -> np.ndarray:
    """Indices, ascending, of the first document of each digest [documents, 2]."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: equal ones stay in the order of the text
    new = np.ones(len(order), bool)
    new[1:] = (digests[order[1:]] != digests[order[:-1]]).any(1)
    return np.sort(order[new])


def _validation(count: int, recipe: Recipe) -> np.ndarray:
    """Whether each of `count` documents is validation: the share with the smallest draws, at least one."""
    chosen = np.zeros(count, bool)
    if count:
        draws = mix(recipe.seed, DRAW_SPLIT, np.arange(count))
        chosen[np.argsort(draws, kind="stable")[: max(1, round(count * recipe.val_fraction))]] = True
    return chosen


def _documents(spool: Spool, lengths: np.ndarray, rows: np.ndarray, room: int, mark: int) -> Iterator[np.ndarray]:
    """The tokens of each of the documents `rows`, the mark in front of every `room` of them."""
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    with spool.reader() as read:
        for row in tqdm(rows, "writing", unit="document", delay=2, leave=False):
            tokens = read(starts[row], lengths[row])
            yield np.insert(tokens, np.arange(0, len(tokens), room), mark)


def _write(out: Path, split: str, documents: Iterator[np.ndarray], tokens: int, dtype: str) -> None:
    """Shards of about equal size, each a number of whole documents."""
    files = -(-tokens // SHARD)
    done = 0
    for i in range(files):
        name = f"{split}.bin" if files == 1 else f"{split}_{i:03d}.bin"
        with ShardWriter(out / name, dtype) as writer:
            while done < tokens * (i + 1) // files and (document := next(documents, None)) is not None:
                writer.append(document)
                done += len(document)


def _refuse_short(splits: dict[str, dict[str, int]], counts: dict[str, int]) -> None:
    if min(splits[split]["tokens"] for split in SPLITS) < SHORTEST:
        said = "; ".join(f"{s}: {splits[s]['tokens']:,} tokens of {splits[s]['documents']} pieces" for s in SPLITS)
        raise DataError(
            f"too little text for a training and a validation split: {said}; each needs at least {SHORTEST} tokens. "
            f"{say_read(counts)}. Give more text, or divide it by blank lines or {END} marks"
        )


def say_read(counts: dict[str, int]) -> str:
    """What became of the documents, in words: those that an option left out, and why."""
    left_out = {
        "too short": counts.get("too_short", 0),
        "duplicates": counts.get("duplicates", 0),
        "lines that could not be used": counts.get("bad_lines", 0),
    }
    parts = [f"{count:,} {what}" for what, count in left_out.items() if count]
    return f"{counts.get('documents', 0):,} documents read; left out: {', '.join(parts) or 'none'}"
