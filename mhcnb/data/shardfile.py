"""One file of tokens: which format it has, and reading and writing it.

    headered   256 int32 (magic 20240520, version 1, token count, zeros), then the tokens
    flat       the tokens alone

Tokens are little-endian uint16, or uint32 where the folder's meta.json says `"dtype": "uint32"`. Files are read with
pread, never mapped: one that is cut off while it is in use gives a DataError, not a signal.
"""

import errno
import hashlib
import os
import weakref
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mhcnb.data.meta import NOTHING_SAID, Meta
from mhcnb.errors import DataError

MAGIC, VERSION, HEADER = 20240520, 1, 1024
MAGIC_BYTES = MAGIC.to_bytes(4, "little")
MOST_TOKENS = 2**31 - 1  # the count in a header is an int32
FORMATS = (
    f"known formats: a header of 256 int32 (magic {MAGIC}, version {VERSION}, token count) before uint16 tokens; "
    'flat uint16; both with uint32 where meta.json beside the shards says "dtype": "uint32"'
)
OTHER_FILES = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: run `git lfs pull`",
    b"\x93NUMPY": "a NumPy .npy file",
    b"PK\x03\x04": "a zip archive (PyTorch and npz files are that too)",
    b"\x1f\x8b\x08": "a gzip archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"PAR1": "a Parquet file",
}
PRINTABLE = frozenset(range(32, 127)) | set(b"\t\n\r")


class Format(NamedTuple):
    """Whether a header stands in front, and the type of a token."""

    header: bool
    dtype: str

    def __str__(self) -> str:
        return f"{'headered' if self.header else 'flat'} {self.dtype}"


class Shard:
    """An open token file: `format`, `tokens` (their number), `digest`, and reading at any token."""

    def __init__(self, path: Path, meta: Meta = NOTHING_SAID, doubt: bool = True) -> None:
        """Opens and checks a file. `doubt` refuses flat files that look like something else. Raises DataError."""
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            weakref.finalize(self, os.close, self._fd)
            self.size = os.fstat(self._fd).st_size
            head = os.pread(self._fd, HEADER + 8192, 0)
        except OSError as error:
            hint = "; raise the limit: `ulimit -n 8192`" if error.errno == errno.EMFILE else ""
            raise DataError(f"{path}: cannot be read: {error.strerror} (errno {error.errno}){hint}") from error
        self.format = _format(path, head, self.size, meta, doubt)
        self.dtype = np.dtype(self.format.dtype).newbyteorder("<")
        self.first = HEADER * self.format.header  # the byte at which tokens begin
        self.tokens = (self.size - self.first) // self.dtype.itemsize
        if doubt and meta.dtype is None:
            _refuse_32_bit(path, np.frombuffer(head, self.dtype, offset=self.first, count=min(self.tokens, 4096)))

    def read_bytes(self, start: int, count: int) -> bytes:
        """Tokens start .. start + count as they lie in the file. Raises DataError where they are gone."""
        at, size = self.first + start * self.dtype.itemsize, count * self.dtype.itemsize
        try:
            got = os.pread(self._fd, size, at)
            while len(got) < size:  # some network file systems give less than was asked for
                more = os.pread(self._fd, size - len(got), at + len(got))
                if not more:
                    now = os.fstat(self._fd).st_size
                    raise DataError(
                        f"{self.path}: ends at byte {now:,}; it had {self.size:,} bytes when it was opened. "
                        "It was cut or replaced while in use: restore it and start again"
                    )
                got += more
        except OSError as error:
            raise DataError(
                f"{self.path}: reading at byte {at:,} failed: {error.strerror} (errno {error.errno})"
            ) from error
        return got

    def read(self, start: int, count: int) -> np.ndarray:
        """Tokens [count] from `start` on, in the file's own type, read-only."""
        return np.frombuffer(self.read_bytes(start, count), self.dtype)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the size and of eight samples of 32 kB, evenly spaced: fast on any size, alike for copies."""
        hasher, sample = hashlib.sha256(str(self.size).encode()), 32768
        for start in np.linspace(0, max(self.size - sample, 0), 8).astype(int).tolist():
            hasher.update(os.pread(self._fd, sample, start))
        return hasher.hexdigest()


def _format(path: Path, head: bytes, size: int, meta: Meta, doubt: bool) -> Format:
    """The format of a file that starts with `head`, or DataError."""
    if size == 0:
        raise DataError(f"{path}: 0 bytes: no tokens; fetch or make it again")
    dtype = meta.dtype or "uint16"
    header = head.startswith(MAGIC_BYTES)
    if header != (meta.layout == "header") and meta.layout is not None:
        got = f"{path}: starts with the bytes {head[:4].hex(' ')}, while meta.json says layout {meta.layout}"
        raise DataError(f"{got} (a header starts with {MAGIC_BYTES.hex(' ')}){_swapped(head)}; fetch or make it again")
    if header:
        _check_header(path, head, size, np.dtype(dtype).itemsize)
    else:
        _check_flat(path, head, size, np.dtype(dtype).itemsize, doubt)
    return Format(header, dtype)


def _swapped(head: bytes) -> str:
    return ": byte-swapped?" if head.startswith(MAGIC_BYTES[::-1]) else ""


def _check_header(path: Path, head: bytes, size: int, width: int) -> None:
    if size < HEADER:
        raise DataError(f"{path}: {size} bytes, but its header alone has {HEADER}: cut off; fetch it again")
    version, said = (int(x) for x in np.frombuffer(head, "<i4", count=2, offset=4))
    if version != VERSION:
        raise DataError(f"{path}: header version {version}; supported: {VERSION}. {FORMATS}")
    held, rest = divmod(size - HEADER, width)
    if said == held and not rest and held:
        return
    if width == 2 and said > 0 and size == HEADER + 4 * said:
        raise DataError(
            f"{path}: header says {said:,} tokens, file holds 4 bytes a token: looks like 32-bit tokens; "
            'put {"dtype": "uint32"} into meta.json beside it'
        )
    how = "empty" if not held else "cut off" if held < said else "longer than it says"
    raise DataError(
        f"{path}: header says {said:,} tokens, file holds {held:,} ({size:,} bytes): {how}; fetch or make it again"
    )


def _check_flat(path: Path, head: bytes, size: int, width: int, doubt: bool) -> None:
    for start, kind in OTHER_FILES.items():
        if doubt and head.startswith(start):
            raise DataError(f"{path}: this is {kind}. {FORMATS}")
    if doubt and _swapped(head):
        raise DataError(f"{path}: starts with {head[:4].hex(' ')}, a header's magic reversed: byte-swapped? {FORMATS}")
    if doubt and size >= 64 and PRINTABLE.issuperset(head[:512]):
        raise DataError(
            f"{path}: this is text ({head[:20]!r}...), not tokens; `mhcnb data prepare` makes shards of text. {FORMATS}"
        )
    if size % width:
        need = "uint16 needs an even number" if width == 2 else f"uint32 needs a multiple of {width}"
        last = f"the last whole token is number {size // width - 1:,}" if size >= width else "no whole token"
        raise DataError(f"{path}: {size:,} bytes and no header; {need} ({last}): cut off? {FORMATS}")


def _refuse_32_bit(path: Path, sample: np.ndarray) -> None:
    """uint32 tokens read as uint16: every second one is the upper half, 0 or next to it."""
    low, high = sample[0::2], sample[1::2]
    if len(high) >= 16 and high.max() <= 3 < low.max():
        raise DataError(
            f"{path}: every second uint16 token is at most {high.max()}: looks like 32-bit tokens; put "
            '{"dtype": "uint32"} into meta.json beside it (or "uint16" if it is right as it is). ' + FORMATS
        )


class ShardWriter:
    """Writes one headered shard. The file appears whole, or not at all:

    with ShardWriter(path, "uint16") as writer:
        writer.append(tokens)
    """

    def __init__(self, path: Path, dtype: str = "uint16") -> None:
        self.path, self.dtype, self.tokens = path, np.dtype(dtype).newbyteorder("<"), 0
        self._part = path.with_name(f".{path.name}.part")

    def __enter__(self) -> "ShardWriter":
        self._file = self._part.open("wb")
        self._file.write(bytes(HEADER))
        return self

    def append(self, tokens: np.ndarray) -> None:
        """Adds token ids. Raises DataError for one that the type cannot hold, and for too many."""
        if len(tokens) and (tokens.min() < 0 or tokens.max() > np.iinfo(self.dtype).max):
            raise DataError(f"{self.path}: token ids {tokens.min()} .. {tokens.max()} do not fit {self.dtype.name}")
        self.tokens += len(tokens)
        if self.tokens > MOST_TOKENS:
            raise DataError(f"{self.path}: a shard holds at most {MOST_TOKENS:,} tokens; write several")
        self._file.write(tokens.astype(self.dtype).tobytes())

    def __exit__(self, kind: Any, *rest: Any) -> None:
        with self._file:
            self._file.seek(0)
            self._file.write(np.array([MAGIC, VERSION, self.tokens], "<i4").tobytes())
        if kind is None:
            self._part.replace(self.path)
        else:
            self._part.unlink(missing_ok=True)
