"""Files of text as batches of whole documents: .jsonl and plain text, either of them gzipped."""

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from mhcnb.data import text
from mhcnb.data.jsonl import LONGEST, MARK, BadLine, lines, text_of
from mhcnb.data.recipe import Recipe
from mhcnb.errors import DataError

BATCH = 1 << 20  # bytes that are encoded, and counted as done, together
SUFFIXES = (".jsonl", ".txt")  # of what data.root takes; with .gz too


class TextFile(NamedTuple):
    """A file that was looked at. lines: of JSON; marked: plain text with <|endoftext|> between its documents."""

    path: Path
    size: int  # bytes on the disk
    sha256: str
    lines: bool
    marked: bool


class Batch(NamedTuple):
    """Whole lines of JSON as they stand in the file, the first being number `line` at byte `offset` of it, or a list
    of documents as JSON. `read`: bytes of the file that are read once this is; `skipped`: lines too long to hold."""

    path: str
    lines: bool
    content: bytes
    line: int = 1
    offset: int = 0
    read: int = 0
    skipped: int = 0


def is_text(path: str | Path) -> bool:
    """By its name: a file that data.root takes."""
    return Path(path).name.removesuffix(".gz").endswith(SUFFIXES)


def examine(path: Path) -> TextFile:
    """Size, digest and kind of a file. Raises DataError."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".json"):
        raise DataError(f"{path}: expected .jsonl, an object a line, or plain text; rename it if it is one of them")
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror} (errno {error.errno})") from error
    is_lines = name.endswith(".jsonl")
    return TextFile(path, size, digest, is_lines, not is_lines and _holds(path, text.END.encode()))


def refuse_twice(files: Iterable[TextFile]) -> None:
    """The same text twice would stand in both splits. Raises DataError."""
    seen: dict[str, Path] = {}
    for file in files:
        if file.sha256 in seen:
            raise DataError(f"{seen[file.sha256]} and {file.path} are the same text; give it once")
        seen[file.sha256] = file.path


def batches(file: TextFile, recipe: Recipe) -> Iterator[Batch]:
    """All of a file, the same batches each time. Raises DataError."""
    with _opened(file.path) as (stream, raw):
        if file.lines:
            yield from _of_lines(stream, raw, file, recipe.on_bad == "raise")
        else:
            chunks = text.decoded(stream, str(file.path))
            for batch in of_documents(text.split(chunks, file.marked, str(file.path)), str(file.path)):
                yield batch._replace(read=raw.tell())


def of_documents(documents: Iterable[str], path: str) -> Iterator[Batch]:
    """Documents that are there already, in batches."""
    held, size = [], 0
    for document in documents:
        held.append(document)
        size += len(document)
        if size >= BATCH:
            yield Batch(path, False, json.dumps(held, ensure_ascii=False).encode())
            held, size = [], 0
    if held:
        yield Batch(path, False, json.dumps(held, ensure_ascii=False).encode())


def texts_of(batch: Batch, recipe: Recipe) -> tuple[list[str], list[str]]:
    """(its documents, what is wrong with the lines that are none). Raises DataError where the recipe skips none."""
    if not batch.lines:
        return json.loads(batch.content), []
    texts, wrong, offset = [], [], batch.offset
    for number, line in enumerate(io.BytesIO(batch.content), batch.line):
        try:
            found = text_of(line, recipe.key, offset)
            texts += [found] if found is not None else []
        except BadLine as error:
            said = f"{batch.path}:{number}: {error}"
            if recipe.on_bad == "raise":
                raise DataError(f"{said}. Mend or remove the line, or leave such lines out: --on-bad skip") from error
            wrong.append(said)
        offset += len(line)
    return texts, wrong


def _of_lines(stream: IO[bytes], raw: IO[bytes], file: TextFile, strict: bool) -> Iterator[Batch]:
    """Batches that begin and end with a line. What is wrong before a line that is too long is found before that."""
    held, size, first, offset, blank = [], 0, 1, 0, True
    for number, line in enumerate(lines(stream), 1):
        if line.content is not None:
            held.append(line.content)
            size += line.size
        blank = blank and line.content is not None and not line.content.removeprefix(MARK).strip()
        if size >= BATCH or line.content is None:
            skipped = int(line.content is None)
            yield Batch(str(file.path), True, b"".join(held), first, offset, raw.tell(), skipped)
            first, offset, held, size = number + 1, offset + size + skipped * line.size, [], 0
        if strict and line.content is None:
            raise DataError(
                f"{file.path}:{number}: a line of {line.size:,} bytes; at most {LONGEST:,} are held in memory. Divide "
                "the document, or leave such lines out: --on-bad skip"
            )
    if held:
        yield Batch(str(file.path), True, b"".join(held), first, offset, raw.tell())
    if blank:
        raise text.no_text(str(file.path), file.size)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """(the text's bytes, the file as it is on the disk). Errors of reading come out as DataError."""
    try:
        with path.open("rb") as raw:
            yield (gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw), raw  # type: ignore[misc]
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: a damaged gzip file: {error}; fetch or make it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror} (errno {error.errno})") from error


def _holds(path: Path, mark: bytes) -> bool:
    """Whether the bytes stand anywhere in the text."""
    with _opened(path) as (stream, _):
        end = b""
        while chunk := stream.read(text.CHUNK):
            if mark in end + chunk:
                return True
            end = chunk[-len(mark) :]
    return False
