"""Folders that appear whole or not at all, and the place for those that can be made again."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from mhcnb.errors import DataError


def cache_folder() -> Path:
    """$MHCNB_CACHE, else $XDG_CACHE_HOME/mhcnb, else ~/.cache/mhcnb."""
    given = os.environ.get("MHCNB_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mhcnb"


def refuse_used(out: Path) -> None:
    """Raises DataError where a new folder would cover something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} already holds something; nothing was changed. Give a new folder, or move it away")


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the name `folder` when the block ends well and vanishes otherwise.

    An empty folder of that name is replaced; OSErrors of the block (a full disk) come out as DataError.
    """
    part = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.part-", dir=folder.parent))
        yield part
        part.chmod(0o755)
        part.replace(folder)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written: {error.strerror} (errno {error.errno}); nothing is left of it"
        ) from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, filled by `make` where it is not there yet. Of several processes one works and the others wait.

    What a killed process left unfinished is removed by the next.
    """
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(folder.parent / f".{folder.name}.lock").acquire()
    except OSError as error:
        raise DataError(
            f"{folder.parent}: cannot be written: {error.strerror} (errno {error.errno}); set MHCNB_CACHE to another"
        ) from error
    with held:
        if not folder.is_dir():
            for left in folder.parent.glob(f".{folder.name}.part-*"):
                shutil.rmtree(left, ignore_errors=True)
            with appearing(folder) as part:
                make(part)
    return folder
