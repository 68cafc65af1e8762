"""Files and folders that are whole or not there, whatever ends the process that writes them."""

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from mhcnb.errors import CheckpointError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space, no quota, over the process's limit of file size
MANIFEST = "manifest.json"


def write_json(path: Path, value: Any) -> None:
    """The whole file or the old one: written beside it, then renamed."""
    write_text(path, json.dumps(value, indent=1, default=str) + "\n")


def write_text(path: Path, text: str) -> None:
    """The whole file or the old one."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def append(path: Path, lines: bytes) -> None:
    """All of `lines` at the end of a file, or nothing of it. Raises OSError."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    try:
        before = os.fstat(file).st_size
        try:
            if os.write(file, lines) != len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(file, before)
            raise
    finally:
        os.close(file)


def aside(path: Path) -> Path:
    """A free name beside one that is taken: results.1.jsonl, results.2.jsonl, ..."""
    attempt = 1
    while (kept := path.with_suffix(f".{attempt}{path.suffix}")).exists():
        attempt += 1
    return kept


# folders --------------------------------------------------------------------------------------------------------------


def write_manifest(folder: Path) -> None:
    """manifest.json, the last file of a folder: size and SHA-256 of all the others, each first flushed to the disk."""
    files = {path.name: facts(path) for path in sorted(folder.iterdir())}
    for name in files:
        sync(folder / name)
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=1) + "\n", encoding="utf-8")
    sync(folder / MANIFEST)
    sync(folder)


def publish(part: Path, final: Path) -> None:
    """Gives a finished folder its name. Raises OSError where that is taken."""
    part.rename(final)
    sync(final.parent)


def facts(path: Path) -> dict[str, Any]:
    """{bytes, sha256} of a file."""
    with path.open("rb") as file:
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def verify(folder: Path, names: tuple[str, ...] = ()) -> None:
    """The files of a folder (or those named) against its manifest. Raises CheckpointError for the first that is not
    as it was written: neither torch nor safetensors would notice a flipped bit."""
    path = folder / MANIFEST
    try:
        written = dict(json.loads(path.read_text(encoding="utf-8"))["files"])
        missing = sorted(set(names) - set(written))
        if missing:
            raise CheckpointError(f"{path} does not list {', '.join(missing)}: it is damaged")
        for name in names or sorted(written):
            expected, got = written[name], facts(folder / name)
            if got["bytes"] != expected["bytes"]:
                raise CheckpointError(f"{folder / name}: {got['bytes']:,} bytes, {expected['bytes']:,} were written")
            if got["sha256"] != expected["sha256"]:
                short = f"{got['sha256'][:12]}, {str(expected['sha256'])[:12]} when it was written"
                raise CheckpointError(f"{folder / name}: its contents have changed: SHA-256 {short}")
    except FileNotFoundError as error:
        raise CheckpointError(f"{error.filename} is missing: not written to its end, or partly deleted") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read ({type(error).__name__}: {error}): it is damaged") from error


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # it cannot open folders
    handle = os.open(path, os.O_RDONLY if path.is_dir() or os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
