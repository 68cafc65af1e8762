"""What 01-data shows of a data set: where it is, in which format, what is in it."""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field

from mhcnb import registry
from mhcnb.analysis.corpus import Corpus, survey
from mhcnb.config import load_config
from mhcnb.data.decode import decode
from mhcnb.errors import DataError
from mhcnb.notebook.parameters import checked
from mhcnb.paths import find, outputs

GPT2_MARK = 50256  # <|endoftext|>
Text = Annotated[str, Field(min_length=1)]
Positive = Annotated[int, Field(ge=1)]


class Datasheet(NamedTuple):
    """facts: source.describe(). corpora and samples (decoded windows) by split; out: the folder for figures."""

    facts: dict[str, Any]
    corpora: dict[str, Corpus]
    samples: dict[str, list[str]]
    out: Path


@checked
def datasheet(
    root: Text,
    params: Text,
    samples: Annotated[int, Field(ge=0)] = 2,
    length: Positive = 100,
    most: Positive = 10_000_000,
    mark: Annotated[int, Field(ge=-1)] = -1,
    out: Text = "outputs/01-data",
) -> Datasheet:
    """Opens `root` as the run of `params` would, counts `most` tokens of each split, decodes `samples` windows.

    `mark` begins a document; -1: what the data say, else <|endoftext|> of their tokenizer, or of GPT-2.
    """
    config = load_config(find(params), {"data.root": root})
    kind = config.data.name  # type: ignore[attr-defined]
    source: Any = registry.load("data", kind)(config)
    if not hasattr(source, "splits"):
        raise DataError(f"{params}: data.name is {kind}; this notebook shows token shards")
    facts = source.describe()
    tokenizer = facts["tokenizer"]
    known = facts["end_of_text"]
    begins = mark if mark >= 0 else _mark(tokenizer) if known is None else known
    return Datasheet(
        facts,
        {split: survey(tokens, begins, most) for split, tokens in source.splits.items()},
        {split: _windows(tokens, samples, length, tokenizer) for split, tokens in source.splits.items()},
        outputs(out),
    )


def say_facts(facts: dict[str, Any]) -> str:
    """Place, format, files and counts, a line each."""
    lines = [f"{facts['root']}: {facts['format']}, vocabulary {facts['vocab_size'] or 'not said'}"]
    for split, files in facts["files"].items():
        lines.append(f"{split}: {facts['tokens'][split]:,} tokens in {len(files)} file(s)")
        lines += [f"  {Path(f['path']).name}: {f['tokens']:,} tokens, digest {f['digest'][:12]}" for f in files[:5]]
        lines += [f"  and {len(files) - 5} more"] if len(files) > 5 else []
    lines.append(f"tokenizer: {facts['tokenizer'] or 'none named; samples are token ids'}")
    return "\n".join(lines)


def say_samples(samples: dict[str, list[str]]) -> str:
    """The decoded windows under their splits."""
    blocks = [f"--- {split} {k} ---\n{text}" for split, texts in samples.items() for k, text in enumerate(texts, 1)]
    return "\n\n".join(blocks)


def _mark(tokenizer: str | None) -> int | None:
    if tokenizer is None:
        return GPT2_MARK
    from tokenizers import Tokenizer

    return Tokenizer.from_file(tokenizer).token_to_id("<|endoftext|>")


def _windows(tokens: Any, count: int, length: int, tokenizer: str | None) -> list[str]:
    """Windows spread evenly over a split."""
    length = min(length, len(tokens))
    starts = np.arange(count) * (len(tokens) - length) // max(count, 1)
    return [decode(window, tokenizer) for window in tokens.windows(starts, length)]
