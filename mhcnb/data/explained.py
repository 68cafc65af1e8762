"""What went wrong between a hub's client and this machine, in words that say what to do."""

import errno
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from mhcnb.errors import DataError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def explained(error: Exception, origin: object, folder: Path) -> DataError:
    """The DataError of what a client raised while it fetched `origin` into a folder."""
    causes = list(_causes(error))
    codes = {getattr(e, "status_code", None) or getattr(getattr(e, "response", None), "status_code", 0) for e in causes}
    kinds = " ".join(cls.__name__ for e in causes for cls in type(e).__mro__)
    again = "run the same again: it goes on where it stopped"
    if any(isinstance(e, OSError) and e.errno in NO_ROOM for e in causes):
        free = shutil.disk_usage(folder if folder.exists() else folder.anchor or ".").free / 1e9
        text = f"no room in {folder}: disk full ({free:.1f} GB free); make room or give another folder, then {again}"
    elif codes & {401, 403, 404}:
        text = (
            "no such data set, revision or file, or it is private; check the spelling, or log in with the hub's client"
        )
    elif "Integrity" in kinds:
        text = f"what came is not what the hub lists (wrong size or checksum), nothing was kept: {_first(error)}"
    elif re.search("Connect|Timeout|Network|Offline", kinds):
        text = (
            f"the network failed ({_first(error)}); {again}, or copy its files into a folder and give that as data.root"
        )
    else:
        text = f"{_first(error)}; {again}"
    return DataError(f"{origin}: {text}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what lies behind it; ModelScope's keeps one a file."""
    while error is not None:
        yield error
        for behind in getattr(error, "failed_files", {}).values():
            yield from _causes(behind)
        error = error.__cause__ or error.__context__


def _first(error: BaseException) -> str:
    """The last word of the innermost error, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines)[:300]
