"""What a split of token shards holds: how often each token occurs, and how long documents are."""

from typing import NamedTuple

import numpy as np

from mhcnb.data.tokens import Tokens


class Corpus(NamedTuple):
    """counts [v] by token id and lengths [documents] in tokens, mark included, of the first `seen` tokens.

    Only documents that begin and end in them have a length; without marks there are none.
    """

    counts: np.ndarray
    lengths: np.ndarray
    seen: int


def survey(tokens: Tokens, mark: int | None, most: int) -> Corpus:
    """The first `most` tokens of a split. `mark` is the id that stands in front of every document."""
    ids = _first(tokens, most)
    starts = np.flatnonzero(ids == mark) if mark is not None else np.zeros(0, np.int64)
    if len(starts) and len(ids) == len(tokens):  # the last document ends where the split does
        starts = np.append(starts, len(ids))
    return Corpus(np.bincount(ids), np.diff(starts), len(ids))


def entropy(counts: np.ndarray) -> float:
    """-Σ p log p of counts [v], in nats: the loss of the best model without context."""
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


def _first(tokens: Tokens, most: int) -> np.ndarray:
    parts, missing = [], most
    for chunk in tokens.chunks():
        parts.append(chunk.tokens[:missing])
        missing -= len(parts[-1])
        if missing <= 0:
            break
    return np.concatenate(parts)
