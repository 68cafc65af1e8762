"""What a preparation has done so far, on the disk: a killed one goes on from it."""

import hashlib
import json
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock, Timeout

from mhcnb.data.encoder import DIGEST, Encoded
from mhcnb.durable import write_json
from mhcnb.errors import DataError

log = logging.getLogger(__name__)

EVERY = 1.0  # seconds between two notes of how far it is
PROGRESS = "progress.json"
FILES = ("tokens", "lengths", "digests")


class Spool:
    """All documents end to end, in the order of the texts: `tokens`, and in tables their lengths and digests.

    progress.json says how many bytes of each are sound; what is behind them is cut off.
    """

    def __init__(self, folder: Path, dtype: str) -> None:
        said: dict[str, Any] = {"batches": 0, "sizes": dict.fromkeys(FILES, 0), "counts": {}}
        if (folder / PROGRESS).is_file():
            said = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        self.folder, self.dtype = folder, np.dtype(dtype).newbyteorder("<")
        self.batches: int = said["batches"]
        self.counts: Counter[str] = Counter(said["counts"])
        self._files: dict[str, IO[bytes]] = {name: (folder / name).open("ab") for name in FILES}
        for name, size in said["sizes"].items():
            self._files[name].truncate(size)
        self._saved = time.monotonic()

    def add(self, encoded: Encoded) -> None:
        """The next batch; from time to time all so far is made sure of."""
        for name in FILES:
            self._files[name].write(getattr(encoded, name))
        self.counts.update(encoded.counts)
        self.batches += 1
        if time.monotonic() - self._saved >= EVERY:
            self.save()

    def save(self) -> None:
        """All so far is on the disk, and then it is said."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        sizes = {name: file.tell() for name, file in self._files.items()}
        write_json(self.folder / PROGRESS, {"batches": self.batches, "sizes": sizes, "counts": self.counts})
        self._saved = time.monotonic()

    def close(self) -> None:
        """The files can be read, and nothing is added any more."""
        for file in self._files.values():
            file.close()

    def lengths(self) -> np.ndarray:
        """Tokens [documents]."""
        return np.fromfile(self.folder / "lengths", "<u4")

    def digests(self) -> np.ndarray:
        """uint64 [documents, 2]."""
        return np.fromfile(self.folder / "digests", "<u8").reshape(-1, DIGEST // 8)

    @contextmanager
    def reader(self) -> Iterator[Any]:
        """read(start, count): tokens [count] from `start` on."""
        width = self.dtype.itemsize
        with (self.folder / "tokens").open("rb") as file:
            yield lambda start, count: np.frombuffer(
                os.pread(file.fileno(), int(count) * width, int(start) * width), self.dtype
            )


@contextmanager
def workplace(out: Path, work: dict[str, Any]) -> Iterator[Path]:
    """The hidden folder beside `out` for what is done of `work`, with what was done before where that was the same.

    It stays where the block was interrupted or the disk was full, and goes where all is done or the data were refused.
    Raises DataError where another process is at it.
    """
    key = hashlib.sha256(json.dumps(work, sort_keys=True).encode()).hexdigest()
    folder = out.with_name(f".{out.name}.unfinished")
    with _locked(folder):
        if (folder / "key").exists() and (folder / "key").read_text() != key:
            for path in folder.iterdir():
                if path.name != "lock":
                    path.unlink()
        (folder / "key").write_text(key)
        try:
            yield folder
        except BaseException as error:
            refused = isinstance(error, DataError) and not isinstance(error.__cause__, OSError)
            if refused or not (folder / PROGRESS).exists():
                shutil.rmtree(folder, ignore_errors=True)
            else:
                log.warning("what is done stays in %s: the same command goes on; to give up, remove it", folder)
            raise
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / "lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DataError(f"{folder}: another process prepares the same; wait for it") from error
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written: {error.strerror} (errno {error.errno}); free some space and run the same "
            "again: it goes on"
        ) from error
    finally:
        lock.release()
