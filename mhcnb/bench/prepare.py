"""How fast text becomes shards, beside the tokenizers library that encodes the same text in memory."""

import json
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mhcnb.bench.measure import Timing, side_by_side
from mhcnb.data import corpus
from mhcnb.data.prepare import prepare as shards_of
from mhcnb.data.recipe import Recipe
from mhcnb.data.tokenizer import FILE, open_tokenizer

TIMES = 3  # that the embedded corpus stands in the text: 25 MB
TOGETHER = 256  # documents given to the library at a time
SWITCH = "TOKENIZERS_PARALLELISM"  # the library's own


def prepare(rounds: int = 5) -> list[Timing]:
    """Lines of JSON on the disk to shards, with one process and with two, whose start counts; the library encodes the
    same documents with one thread, and with as many as it takes."""
    name = corpus.embedded() / FILE
    documents = list(corpus.documents().values()) * TIMES
    tokenizer = open_tokenizer(name).tokenizer

    def encode() -> None:
        for start in range(0, len(documents), TOGETHER):
            tokenizer.encode_batch_fast(documents[start : start + TOGETHER], add_special_tokens=False)

    def shards(text: Path, processes: int) -> None:
        with tempfile.TemporaryDirectory() as out:
            shards_of([text], Path(out), Recipe(tokenizer=str(name)), processes)

    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "text.jsonl")
        text.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))
        contenders = {
            "tokenizers, one thread": partial(_with_threads, "false", encode),
            "tokenizers, its threads": partial(_with_threads, "true", encode),
            "one process": partial(_with_threads, "false", partial(shards, text, 1)),
            "two processes": partial(shards, text, 2),
        }
        return side_by_side("prepare", contenders, rounds)


def _with_threads(parallel: str, run: Callable[[], None]) -> None:
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = parallel
    try:
        run()
    finally:
        del os.environ[SWITCH]
        os.environ.update({} if before is None else {SWITCH: before})
