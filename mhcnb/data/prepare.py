"""Texts to a folder of token shards: in parallel, in memory that does not grow with the texts, gone on with when
killed, and byte for byte the same however it was done.

What memory holds is the batches under way and less than 100 bytes a document.
"""

import hashlib
import itertools
import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mhcnb.data.assemble import SPLITS, assemble, say_read
from mhcnb.data.cache import appearing, cache_folder, made_once, refuse_used
from mhcnb.data.encoder import encode_all
from mhcnb.data.recipe import Recipe
from mhcnb.data.spool import Spool, workplace
from mhcnb.data.textfile import BATCH, Batch, TextFile, batches, examine, of_documents, refuse_twice, texts_of
from mhcnb.data.tokenizer import FILE, Codec, open_tokenizer, train_tokenizer
from mhcnb.durable import write_json
from mhcnb.errors import DataError

log = logging.getLogger(__name__)

FORMAT = 1  # of what is prepared: another one is prepared again
LEARNT = 500_000_000  # characters, spread over the texts, that a tokenizer is trained on
UNPACKED = 3  # bytes of text to a byte of gzip, about
LONG = 50_000_000  # bytes of text from which training a tokenizer shows its progress
WORTH = 4 << 20  # bytes of text for which a process more is started
SAID = 5  # bad lines that are told
SETTLED = 2.0  # seconds after which a file's time of change tells a later change from this one


def prepare(texts: list[Path], out: Path, recipe: Recipe, processes: int | None = None) -> dict[str, Any]:
    """Token shards of text files in the new folder `out`; returns its meta.json.

    .jsonl (.gz) has a document a line, under recipe.key. In plain text documents end at <|endoftext|> marks; a text
    without them is cut at blank lines into pieces of about 4 kB. `processes`: None for one a core, where that is worth
    it. Raises DataError for text that cannot be used, and then leaves nothing behind, and for an `out` in use.
    """
    out = Path(out)
    refuse_used(out)
    recipe.check()
    if processes is not None and processes < 1:
        raise DataError(f"{processes} processes; expected at least 1")
    codec = open_tokenizer(recipe.tokenizer) if recipe.tokenizer else None
    files = [examine(Path(path)) for path in texts]
    refuse_twice(files)
    with workplace(out, _work(files, recipe, codec)) as work:
        for left in out.parent.glob(f".{out.name}.part-*"):  # of one that was killed while it wrote
            shutil.rmtree(left, ignore_errors=True)
        spool, codec = _encoded(work, files, recipe, codec, processes)
        refuse_used(out)
        with appearing(out) as part:
            return _finish(part, spool, codec, recipe, files)


def prepared(text: Path, recipe: Recipe, cache: str | None = None) -> Path:
    """The folder in the cache with the shards of one text, prepared on first use. Raises DataError."""
    recipe.check()
    codec = open_tokenizer(recipe.tokenizer) if recipe.tokenizer else None
    place = (Path(cache) if cache else cache_folder()) / "text"
    file = _known(text, place)
    work = _work([file], recipe, codec)
    folder = place / hashlib.sha256(json.dumps(work, sort_keys=True).encode()).hexdigest()[:16]

    def make(part: Path) -> None:
        with workplace(folder, work) as unfinished:
            spool, tokenizer = _encoded(unfinished, [file], recipe, codec, None)
            _finish(part, spool, tokenizer, recipe, [file])

    if not folder.is_dir():
        log.info("%s is prepared once, in %s, here or by another process that is at it", text, folder)
    return made_once(folder, make)


def write_documents(out: Path, documents: list[str], codec: Codec, recipe: Recipe, source: dict) -> dict[str, Any]:
    """Shards of documents that are there already, into an existing folder; returns the meta. Raises DataError."""
    work = out / ".work"
    work.mkdir()
    codec.save(work / FILE)
    spool = _spooled(work, of_documents(documents, "documents"), codec, recipe, 1)
    meta = assemble(out, spool, codec, recipe, source)
    shutil.rmtree(work)
    return meta


def write_tokenizer(texts: list[Path], out: Path, recipe: Recipe) -> int:
    """A new file with a tokenizer trained on texts, of recipe.vocab entries at most; returns how many they are.

    Raises DataError, also where the file is there already.
    """
    recipe.check()
    if out.exists():
        raise DataError(f"{out} is there already; nothing was changed. Give a new name, or move it away")
    codec = learn_tokenizer([examine(Path(path)) for path in texts], recipe)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        codec.save(out)
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror} (errno {error.errno})") from error
    return codec.size


def learn_tokenizer(files: list[TextFile], recipe: Recipe) -> Codec:
    """A tokenizer trained on texts, or on documents spread evenly over them where they are long. Raises DataError."""
    size = _size(files)
    share = min(1.0, LEARNT / max(size, 1))
    documents = (text for file in files for batch in batches(file, recipe) for text in texts_of(batch, recipe)[0])
    some = (text for i, text in enumerate(documents) if int((i + 1) * share) > int(i * share))
    return train_tokenizer(some, recipe.vocab, size > LONG)


def _work(files: list[TextFile], recipe: Recipe, codec: Codec | None) -> dict[str, Any]:
    """What decides the shards: where it is the same, so are they."""
    tokenizer = [hashlib.sha256(codec.tokenizer.to_str().encode()).hexdigest(), codec.mark] if codec else None
    texts = [[file.sha256, file.lines, file.path.suffix] for file in files]
    return {"format": FORMAT, "batch": BATCH, "texts": texts} | recipe._asdict() | {"tokenizer": tokenizer}


def _size(files: Iterable[TextFile]) -> int:
    """Bytes of text, about."""
    return sum(file.size * (UNPACKED if file.path.suffix == ".gz" else 1) for file in files)


def _known(text: Path, place: Path) -> TextFile:
    """examine(text), remembered for as long as the file is not touched: a large one takes its time."""
    try:
        state = text.stat()
        marks = [str(text.absolute()), state.st_size, state.st_mtime_ns, state.st_ino]
        note = place / "seen" / f"{hashlib.sha256(json.dumps(marks).encode()).hexdigest()[:32]}.json"
        return TextFile(**json.loads(note.read_text(encoding="utf-8")) | {"path": text})
    except (OSError, ValueError, TypeError):
        file = examine(text)
    if time.time() - state.st_mtime > SETTLED:
        with suppress(OSError):
            note.parent.mkdir(parents=True, exist_ok=True)
            write_json(note, file._asdict())
    return file


def _encoded(
    work: Path, files: list[TextFile], recipe: Recipe, codec: Codec | None, processes: int | None
) -> tuple[Spool, Codec]:
    """All documents as tokens, and the tokenizer: that of before where this goes on with an earlier one."""
    if (work / FILE).is_file():
        codec = open_tokenizer(work / FILE) if codec is None else codec
    else:
        codec = codec or learn_tokenizer(files, recipe)
        codec.save(work / FILE)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    many = processes or max(1, min(cores, _size(files) // WORTH))
    return _spooled(work, _read(files, recipe), codec, recipe, many, sum(file.size for file in files)), codec


def _read(files: list[TextFile], recipe: Recipe) -> Iterator[Batch]:
    """All batches of all files, `read` counting the bytes of all."""
    before = 0
    for file in files:
        for batch in batches(file, recipe):
            yield batch._replace(read=before + batch.read)
        before += file.size


def _spooled(work: Path, texts: Iterable[Batch], codec: Codec, recipe: Recipe, processes: int, size: int = 0) -> Spool:
    """The spool of all batches, those that it held before included. size: bytes to be read, where that is known."""
    spool = Spool(work, "uint16" if codec.size <= 2**16 else "uint32")
    if spool.batches:
        log.info("going on after %d batches that are done already", spool.batches)
    rest = itertools.islice(texts, spool.batches, None)
    bar = tqdm(desc="encoding", total=size, unit="B", unit_scale=True, delay=2, leave=False, disable=not size)
    told = 0
    with bar, closing(spool), closing(encode_all(rest, work / FILE, recipe, spool.dtype.name, processes)) as done:
        for batch, encoded in done:
            for wrong in encoded.wrong[: max(0, SAID - told)]:
                log.warning("%s; skipped", wrong)
            told += len(encoded.wrong)
            spool.add(encoded)
            bar.update(batch.read - bar.n)
    return spool


def _finish(part: Path, spool: Spool, codec: Codec, recipe: Recipe, files: list[TextFile]) -> dict[str, Any]:
    texts = [{"path": str(file.path), "sha256": file.sha256} for file in files]
    meta = assemble(part, spool, codec, recipe, {"texts": texts})
    log.info("%s; a tokenizer of %s entries", say_read(meta["read"]), f"{codec.size:,}")
    for split in SPLITS:
        log.info("%s: %s", split, ", ".join(f"{count:,} {what}" for what, count in meta[split].items()))
    return meta
