"""Text to token shards: documents, a BPE tokenizer trained on them, a seeded tenth as validation, one folder.

<out>/  train.bin  val.bin  meta.json  tokenizer.json
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from mhcnb.data.cache import appearing
from mhcnb.data.shardfile import ShardWriter
from mhcnb.data.tokens import mix
from mhcnb.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger(__name__)

END = "<|endoftext|>"
SPLITS = ("train", "val")
PIECE = 4096  # characters: where a text without marks is cut
SHORTEST = 65  # tokens a split must have: one window of the smallest preset
TOGETHER = 256  # documents encoded at a time
LONG = 50_000_000  # characters from which training a tokenizer shows its progress
SMALLEST_VOCAB = 257  # the bytes and the mark


def prepare(texts: list[Path], out: Path, tokenizer: Path | None = None, vocab: int = 2048, seed: int = 0) -> dict:
    """Token shards of text files in the new folder `out`; returns its meta.json.

    Documents end at <|endoftext|> marks; a text without them is cut at blank lines into pieces of about 4 kB. A tenth
    of them, drawn by `seed`, is validation. `tokenizer` is a tokenizers JSON; without it one of `vocab` is trained.
    Raises DataError, and then leaves nothing behind, for text that is not UTF-8 or too short, and for an `out` in use.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} already holds something; nothing was changed. Give a new folder, or move it away")
    if tokenizer is None and not SMALLEST_VOCAB <= vocab <= 2**24:
        raise DataError(f"vocab {vocab}: expected {SMALLEST_VOCAB} (the bytes and {END}) to {2**24}")
    sources = [{"path": str(path), "sha256": _digest(Path(path))} for path in texts]
    _refuse_twice(sources)
    documents = [document for path in texts for document in split_documents(read_text(Path(path)))]
    model = load_tokenizer(Path(tokenizer)) if tokenizer else train_tokenizer(documents, vocab)
    with appearing(out) as part:
        return write_dataset(part, documents, model, seed, {"texts": sources})


def _refuse_twice(sources: list[dict[str, str]]) -> None:
    """The same text twice would stand in both splits."""
    seen: dict[str, str] = {}
    for source in sources:
        if source["sha256"] in seen:
            raise DataError(f"{seen[source['sha256']]} and {source['path']} are the same text; give it once")
        seen[source["sha256"]] = source["path"]


def _digest(path: Path) -> str:
    return hashlib.sha256(_read_bytes(path)).hexdigest()


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror} (errno {error.errno})") from error


def read_text(path: Path) -> str:
    """A UTF-8 file, without a byte-order mark. Raises DataError with line and offset of the first byte that is none."""
    content = _read_bytes(path)
    try:
        text = content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise _no_text(path, content, error.start, "not UTF-8 text") from error
    if "\0" in text:
        raise _no_text(path, content, content.index(0), "UTF-16 or a binary file?")
    if not text.strip():
        raise DataError(f"{path}: no text in it ({len(content)} bytes); leave it out")
    return text


def _no_text(path: Path, content: bytes, at: int, what: str) -> DataError:
    line = content.count(b"\n", 0, at) + 1
    return DataError(
        f"{path}:{line}: {what}: byte 0x{content[at]:02x} at offset {at:,}; convert it, e.g. `iconv -t UTF-8`"
    )


def split_documents(text: str) -> list[str]:
    """What lies between the marks; a text without marks as contiguous pieces that end at blank lines."""
    if END in text:
        return [document for part in text.split(END) if (document := part.strip())]
    pieces, start = [], 0
    for blank in re.finditer(r"\n[ \t\r]*\n\s*", text):
        if blank.end() - start >= PIECE and text[start : blank.start()].strip():
            pieces.append(text[start : blank.end()])
            start = blank.end()
    return [*pieces, text[start:]] if text[start:].strip() else pieces


def train_tokenizer(documents: list[str], vocab: int) -> "Tokenizer":
    """A byte-level BPE tokenizer of `vocab` entries, the mark <|endoftext|> being the first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    long = sum(map(len, documents)) > LONG
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=[END], initial_alphabet=alphabet, show_progress=long)
    tokenizer.train_from_iterator(documents, trainer, length=len(documents))
    return tokenizer


def load_tokenizer(path: Path) -> "Tokenizer":
    """A tokenizers JSON file, with <|endoftext|> added where it lacks the mark. Raises DataError."""
    from tokenizers import Tokenizer

    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a tokenizer.json of the tokenizers library")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise DataError(f"{path}: not a tokenizer.json of the tokenizers library: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if tokenizer.token_to_id(END) is None:
        tokenizer.add_special_tokens([END])
        log.info("%s has no %s; added as id %d", path, END, tokenizer.token_to_id(END))
    return tokenizer


def write_dataset(out: Path, documents: list[str], tokenizer: "Tokenizer", seed: int, source: dict) -> dict[str, Any]:
    """Both splits, the tokenizer and meta.json into an existing folder; returns the meta. Raises DataError."""
    size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    dtype = "uint16" if size <= 2**16 else "uint32"
    meta: dict[str, Any] = {"dtype": dtype, "layout": "header", "vocab_size": size, "tokenizer": "tokenizer.json"}
    meta |= {"end_of_text": tokenizer.token_to_id(END), "seed": seed}
    chosen = _validation(len(documents), seed)
    for split, wanted in (("train", False), ("val", True)):
        part = [document for document, val in zip(documents, chosen, strict=True) if val == wanted]
        with ShardWriter(out / f"{split}.bin", dtype) as writer:
            for ids in encode(part, tokenizer, split):
                writer.append(ids)
        meta[split] = {"documents": len(part), "tokens": writer.tokens}
    _refuse_short(meta)
    (out / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    meta |= source
    (out / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    return meta


def encode(documents: list[str], tokenizer: "Tokenizer", label: str) -> Iterator[np.ndarray]:
    """The ids of each document, <|endoftext|> in front. Shows progress where it takes more than two seconds."""
    mark = tokenizer.token_to_id(END)
    for start in tqdm(range(0, len(documents), TOGETHER), desc=f"encoding {label}", delay=2, leave=False):
        batch = tokenizer.encode_batch_fast(documents[start : start + TOGETHER], add_special_tokens=False)
        for encoding in batch:
            yield np.array([mark, *encoding.ids], np.int64)


def _validation(count: int, seed: int) -> list[bool]:
    """Which of `count` documents are validation: the tenth with the smallest draws, at least one."""
    draws = mix(seed, 0, np.arange(count))
    least = np.argsort(draws, kind="stable")[: max(1, round(count / 10))] if count else []
    chosen = np.zeros(count, bool)
    chosen[least] = True
    return chosen.tolist()


def _refuse_short(meta: dict[str, Any]) -> None:
    counts = (f"{s}: {meta[s]['tokens']:,} tokens of {meta[s]['documents']} pieces" for s in SPLITS)
    if min(meta[split]["tokens"] for split in SPLITS) < SHORTEST:
        raise DataError(
            f"too little text for a training and a validation split: {'; '.join(counts)}; each needs at least "
            f"{SHORTEST} tokens. Give more text, or divide it by blank lines or {END} marks"
        )
