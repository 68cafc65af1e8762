"""Lines of JSON: what a line holds, or what is wrong with it; how long it is never costs memory."""

import json
from collections.abc import Iterator
from typing import IO, NamedTuple

from mhcnb.errors import nearest

LONGEST = 16 << 20  # bytes of a line, and of a document of plain text
MARK = b"\xef\xbb\xbf"  # byte-order mark


class BadLine(ValueError):
    """What is wrong with a line; who reads the file knows where it stands."""


class Line(NamedTuple):
    """content: with its newline; None where it is too long to be held, and `size` bytes then says how long."""

    content: bytes | None
    size: int


def lines(stream: IO[bytes]) -> Iterator[Line]:
    """The lines of a file, of which no more than LONGEST bytes are held at once."""
    while content := stream.readline(LONGEST + 1):
        size, whole = len(content), len(content) <= LONGEST or content.endswith(b"\n")
        while not content.endswith(b"\n") and not whole and (content := stream.readline(1 << 20)):
            size += len(content)
        yield Line(content if whole else None, size)


def text_of(line: bytes, key: str, offset: int = 0) -> str | None:
    """The text under `key` of the object in a line that begins at byte `offset` of its file; None for a blank line.

    Raises BadLine.
    """
    content = line.removeprefix(MARK) if offset == 0 else line
    if not content.strip():
        return None
    value = _parsed(content, offset + len(line) - len(content))
    if not isinstance(value, dict):
        raise BadLine(f'expected an object, as {{"{key}": "..."}}, got {_kind(value)}')
    if key not in value:
        known = [ascii(name)[1:-1][:40] for name in value][:20]
        raise BadLine(f"no key {key}{nearest(key, known)}; name the one that holds the text: --key or data.text_key")
    text = value[key]
    if not isinstance(text, str):
        raise BadLine(f"{key} is {_kind(text)}; expected text")
    return _usable(text, key)


def _parsed(content: bytes, offset: int) -> object:
    try:
        return json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        at = f"byte 0x{content[error.start]:02x} at offset {offset + error.start:,}"
        raise BadLine(f"not UTF-8 text: {at}; convert it, e.g. `iconv -t UTF-8`") from error
    except json.JSONDecodeError as error:
        if "\0" in error.doc:
            raise BadLine(f"NUL at column {error.doc.index(chr(0)) + 1}: UTF-16 or a binary file?") from error
        torn = "" if content.endswith(b"\n") else "; the file ends in this line: cut off?"
        raise BadLine(f"not valid JSON: {error.msg.removesuffix(' at')} at column {error.colno}{torn}") from error
    except RecursionError as error:
        raise BadLine("nested too deeply to be read") from error
    except ValueError as error:  # a number of thousands of digits
        raise BadLine(f"not valid JSON: {error}") from error


def _usable(text: str, key: str) -> str:
    """Text that has a form in UTF-8, and no NUL. JSON can escape both."""
    if "\0" in text:
        raise BadLine(f"{key} has a NUL at character {text.index(chr(0)) + 1:,}: no text, or read as what it is not")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        bad = f"\\u{ord(text[error.start]):04x} at character {error.start + 1:,}"
        raise BadLine(f"{key} has a lone surrogate, {bad}: half of a character") from error
    return text


def _kind(value: object) -> str:
    """What a JSON value is, in JSON's words."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if value != value:
        return "NaN"
    names = {dict: "an object", list: "a list", str: "a string"}
    return names.get(type(value), "a number")
