"""Whether tokenizer, shards and weights belong together. `section` is the data of a run, see shards.ShardsConfig."""

import logging
from pathlib import Path
from typing import Any

from mhcnb.config import RunConfig
from mhcnb.data.layout import Layout, text_of
from mhcnb.data.prepare import UNPACKED
from mhcnb.data.recipe import SMALLEST_VOCAB, Recipe
from mhcnb.data.tokenizer import Codec, kept_tokenizer, open_tokenizer, run_tokenizer
from mhcnb.errors import DataError

log = logging.getLogger(__name__)

VOCAB = 2048  # entries of a tokenizer where nothing else decides
BYTES_AN_ENTRY = 500  # of the text that a tokenizer is trained on


def recipe_for(section: Any, text: Path, config: RunConfig | None) -> Recipe:
    """How a text becomes shards: with the tokenizer named, else that of the weights to start from, else its own."""
    name = section.tokenizer
    if name is None and config is not None and config.train.weights:
        name = str(kept_tokenizer(config.train.weights))
    if name is not None:
        return Recipe(section.text_key, name)
    return Recipe(section.text_key, vocab=_useful_vocab(text, getattr(config and config.model, "vocab_size", None)))


def _useful_vocab(text: Path, asked: int | str | None) -> int:
    """Entries of a tokenizer to be trained on a text: as many as the model has, but each seen some 100 times."""
    if not isinstance(asked, int):
        return VOCAB
    if asked < SMALLEST_VOCAB:
        raise DataError(
            f"model.vocab_size = {asked}: a tokenizer trained on {text} has at least {SMALLEST_VOCAB} entries (the "
            "bytes and the mark); give a larger model.vocab_size, or `auto`"
        )
    size = text.stat().st_size * (UNPACKED if text.suffix == ".gz" else 1)
    return min(asked, max(VOCAB, size // BYTES_AN_ENTRY))


def named_tokenizer(section: Any, found: Layout) -> Codec | None:
    """What data.tokenizer names, if it is that of the shards. Raises DataError where it is another."""
    if section.tokenizer is None or text_of(section.root) is not None:
        return None
    codec, said = open_tokenizer(section.tokenizer), found.meta.tokenizer_sha256
    if said is None and found.meta.tokenizer is not None and found.meta.tokenizer.is_file():
        said = open_tokenizer(found.meta.tokenizer).digest
    if said not in (None, codec.digest):
        raise DataError(
            f"data.tokenizer = {section.tokenizer} is not the tokenizer of the shards in {found.root}: SHA-256 of its "
            f"entries {codec.digest[:12]}, of theirs {str(said)[:12]}; leave data.tokenizer out, or prepare the text "
            "again with it"
        )
    return codec


def compare_with_weights(config: RunConfig, digest: str | None) -> None:
    """Says where the weights to start from know the tokens of another tokenizer than these."""
    weights = config.train.weights
    try:
        other = run_tokenizer(weights).digest if weights and digest else digest
    except DataError:
        return
    if other != digest:
        log.warning(
            "the weights of %s were trained with another tokenizer than that of data.root = %s: its ids meant other "
            "text to them",
            weights,
            config.data.root,  # type: ignore[attr-defined]
        )
