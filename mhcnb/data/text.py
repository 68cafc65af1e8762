"""Plain text to documents, a piece of the file at a time."""

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import IO

from mhcnb.data.jsonl import LONGEST
from mhcnb.data.tokenizer import END
from mhcnb.errors import DataError

PIECE = 4096  # characters: where a text without marks is cut
CHUNK = 1 << 20  # bytes read at a time
BLANK = re.compile(r"\n[ \t\r]*\n\s*")


def split_documents(text: str) -> list[str]:
    """What lies between the marks; a text without marks as contiguous pieces that end at blank lines."""
    return list(split([text], END in text))


def split(chunks: Iterable[str], marked: bool, name: str = "text") -> Iterator[str]:
    """The documents of a text that comes in chunks: the same wherever these end. Raises DataError for one that is
    longer than is held in memory."""
    cut, rest = _between_marks if marked else _pieces, ""
    for chunk in chunks:
        whole, rest = cut(rest + chunk, False)
        yield from whole
        if len(rest) > LONGEST:
            end = END if marked else "blank line"
            raise DataError(f"{name}: no {end} in {LONGEST:,} characters; divide it by blank lines or {END} marks")
    yield from cut(rest, True)[0]


def _between_marks(text: str, last: bool) -> tuple[list[str], str]:
    """(documents, the rest, which may go on)."""
    *whole, rest = text.split(END)
    if last:
        whole.append(rest)
    return [document for part in whole if (document := part.strip())], rest


def _pieces(text: str, last: bool) -> tuple[list[str], str]:
    """(pieces, the rest, which may go on)."""
    pieces, start = [], 0
    for blank in BLANK.finditer(text):
        if blank.end() == len(text) and not last:
            break  # the blank lines may go on
        if blank.end() - start >= PIECE and text[start : blank.start()].strip():
            pieces.append(text[start : blank.end()])
            start = blank.end()
    if last and text[start:].strip():
        pieces.append(text[start:])
    return pieces, text[start:]


def decoded(stream: IO[bytes], name: str) -> Iterator[str]:
    """A UTF-8 file in chunks, without a byte-order mark. Raises DataError with line and offset of the first byte that
    is none, and for a file without text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, line, blank, chunk = 0, 1, True, b"-"
    while chunk:
        chunk = stream.read(CHUNK)
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:  # its object begins with what was left of the chunk before
            begins = offset + len(chunk) - len(error.object)
            raise _no_text(name, line, begins, error.object, error.start, "not UTF-8 text") from error
        if 0 in chunk:
            raise _no_text(name, line, offset, chunk, chunk.index(0), "UTF-16 or a binary file?")
        text = text.removeprefix("\ufeff") if offset < len(codecs.BOM_UTF8) else text
        blank = blank and not text.strip()
        yield text
        offset, line = offset + len(chunk), line + chunk.count(b"\n")
    if blank:
        raise no_text(name, offset)


def no_text(name: str, size: int) -> DataError:
    """What is said of a file of blank lines."""
    return DataError(f"{name}: no text in it ({size:,} bytes); leave it out")


def _no_text(name: str, line: int, begins: int, content: bytes, at: int, what: str) -> DataError:
    line += content.count(b"\n", 0, at)
    where = f"byte 0x{content[at]:02x} at offset {begins + at:,}"
    return DataError(f"{name}:{line}: {what}: {where}; convert it, e.g. `iconv -t UTF-8`")
