"""Tokens back to text, for looking at data and at what a model says."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mhcnb.data.meta import read_meta
from mhcnb.errors import DataError


def decode(tokens: Sequence[int] | np.ndarray, tokenizer: str | Path | None) -> str:
    """The text of token ids [t]. `tokenizer` is what a source's describe() names; without one the ids themselves."""
    ids = [int(token) for token in tokens]
    if tokenizer is None:
        return f"(no tokenizer is recorded with these tokens) {' '.join(map(str, ids))}"
    return _load(Path(tokenizer)).decode(ids, skip_special_tokens=False)


def tokenizer_of(folder: str | Path) -> Path | None:
    """The tokenizer that the meta.json of a folder of shards names."""
    return read_meta(Path(folder)).tokenizer


@functools.lru_cache(maxsize=4)
def _load(path: Path):
    from tokenizers import Tokenizer

    if not path.is_file():
        raise DataError(f"{path}: meta.json names this tokenizer, but there is no such file")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise DataError(f"{path}: not a tokenizer.json of the tokenizers library: {error}") from error
