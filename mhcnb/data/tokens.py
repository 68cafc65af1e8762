"""The tokens of one split: its shards laid end to end, windows of them, and where windows start."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from mhcnb.data.shardfile import Shard
from mhcnb.errors import DataError

CHUNK = 1 << 21  # tokens read at a time in scans


class Chunk(NamedTuple):
    """A piece of one shard: its tokens, the first of which is number `start` there."""

    shard: Shard
    start: int
    tokens: np.ndarray


class Tokens:
    """len() tokens; a window may begin in one shard and end in another."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = list(shards)
        self.dtype = self.shards[0].dtype
        self._starts = np.concatenate([[0], np.cumsum([shard.tokens for shard in shards])]).astype(np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def windows(self, starts: np.ndarray, length: int) -> np.ndarray:
        """[len(starts), length] tokens in the files' own type; starts [b] lie in 0 .. len - length."""
        which = self._starts.searchsorted(starts, side="right") - 1
        inside = starts - self._starts[which]
        rows = [self._window(k, at, length) for k, at in zip(which.tolist(), inside.tolist(), strict=True)]
        return np.frombuffer(b"".join(rows), self.dtype).reshape(len(starts), length)

    def _window(self, k: int, at: int, length: int) -> bytes:
        """The window from token `at` of shard k on, over as many shards as it takes."""
        shard = self.shards[k]
        if at + length <= shard.tokens:
            return shard.read_bytes(at, length)
        here = shard.tokens - at
        return shard.read_bytes(at, here) + self._window(k + 1, 0, length - here)

    def chunks(self, edges: int | None = None) -> Iterator[Chunk]:
        """All tokens in order, or only the first and last `edges` of each shard."""
        for shard in self.shards:
            spans = [(0, shard.tokens)]
            if edges is not None and shard.tokens > 2 * edges:
                spans = [(0, edges), (shard.tokens - edges, shard.tokens)]
            for first, end in spans:
                for start in range(first, end, CHUNK):
                    yield Chunk(shard, start, shard.read(start, min(CHUNK, end - start)))

    def check_ids(self, vocab_size: int, edges: int | None = None) -> int:
        """The largest id (of the `edges` of each shard). Raises DataError for the first one outside the vocabulary."""
        largest = -1
        for shard, start, tokens in tqdm(self.chunks(edges), "checking tokens", unit="chunk", delay=2, leave=False):
            largest = max(largest, int(tokens.max()))
            if largest >= vocab_size:
                bad = int((tokens >= vocab_size).argmax())
                raise DataError(
                    f"{shard.path}: token {int(tokens[bad]):,} at offset {start + bad:,} is outside the vocabulary of "
                    f"{vocab_size:,}; read as {shard.format}. Wrong tokenizer? Give model.vocab_size its size, "
                    "or shards of this vocabulary"
                )
        return largest


def first(tokens: Tokens, most: int) -> np.ndarray:
    """The first `most` tokens, or all where there are fewer."""
    read, seen = [], 0
    for chunk in tokens.chunks():
        read.append(chunk.tokens[: most - seen])
        seen += len(read[-1])
        if seen >= most:
            break
    return np.concatenate(read)


def unigram_entropy(tokens: Tokens, most: int = 10_000_000) -> tuple[float, int]:
    """(entropy in nats of the single tokens' frequencies, number of tokens counted: the first `most`)."""
    counts = np.unique(first(tokens, most), return_counts=True)[1]
    p = counts / counts.sum()
    return float(-(p * np.log(p)).sum()), int(counts.sum())


def document_lengths(tokens: Tokens, end_of_text: int, most: int = 10_000_000) -> np.ndarray:
    """Tokens [documents] from each end-of-text mark to the next, within the first `most`; the last is left out."""
    return np.diff(np.flatnonzero(first(tokens, most) == end_of_text))


def mix(seed: int, step: int, indices: np.ndarray) -> np.ndarray:
    """uint64 [len(indices)], evenly spread: a pure function of (seed, step, index), for random draws without state.

    The finaliser of SplitMix64 (Steele et al. 2014), once for each of the three.
    """
    state = np.full(len(indices), seed % 2**64, np.uint64)
    for part in (np.uint64(step), indices.astype(np.uint64), np.uint64(0)):
        z = state + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = (z ^ (z >> np.uint64(31))) ^ part
    return state
