"""meta.json beside token shards: what the files cannot say themselves."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from mhcnb.errors import DataError

LARGEST = 1_000_000  # bytes
ALLOWED: dict[str, Any] = {"dtype": ("uint16", "uint32"), "layout": ("header", "flat")}


class Meta(NamedTuple):
    """None: not said. `dtype` and `layout` are then found out from the files; `tokenizer` is a path."""

    dtype: str | None = None  # uint16 or uint32
    layout: str | None = None  # header or flat
    vocab_size: int | None = None
    tokenizer: Path | None = None
    end_of_text: int | None = None  # the id in front of each document
    tokenizer_sha256: str | None = None  # see tokenizer.Codec.digest


NOTHING_SAID = Meta()


def read_meta(folder: Path) -> Meta:
    """The Meta of a folder; all None where it has no meta.json. Raises DataError where it cannot be what it says."""
    path = folder / "meta.json"
    if not path.is_file():
        return NOTHING_SAID
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path}: {path.stat().st_size:,} bytes; a meta.json has at most {LARGEST:,}")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not valid JSON: {error}; mend or remove it") from error
    if not isinstance(values, dict):
        raise DataError(f"{path}: expected an object, got {type(values).__name__}; mend or remove it")
    for key, allowed in ALLOWED.items():
        if values.get(key) not in (None, *allowed):
            raise DataError(f"{path}: {key} = {values[key]!r}; expected one of {', '.join(allowed)}")
    for key, least in (("vocab_size", 1), ("end_of_text", 0)):
        value = values.get(key)
        if value is not None and (type(value) is not int or value < least):
            raise DataError(f"{path}: {key} = {value!r}; expected a whole number from {least} on")
    name = values.get("tokenizer")
    if name is not None and (not isinstance(name, str) or Path(name).name != name):
        raise DataError(f"{path}: tokenizer = {name!r}; expected the name of a file beside it")
    digest = values.get("tokenizer_sha256")
    if digest is not None and not isinstance(digest, str):
        raise DataError(f"{path}: tokenizer_sha256 = {digest!r}; expected text")
    given = {key: values.get(key) for key in ("dtype", "layout", "vocab_size", "end_of_text", "tokenizer_sha256")}
    return Meta(**given, tokenizer=folder / name if name else None)
