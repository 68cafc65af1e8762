"""Token shards from ModelScope and from the Hugging Face hub, into one folder.

Each client shows progress, retries, resumes where a connection was cut and checks sizes. Here: what is there already
never touches the network, a folder of the user's is never written over, every shard is checked after it came, and all
that can go wrong is one DataError that says what to do. `download.json` in the folder records what it holds.
"""

import errno
import fnmatch
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from mhcnb.data.cache import cache_folder
from mhcnb.data.layout import GLOBS
from mhcnb.data.meta import read_meta
from mhcnb.data.shardfile import Shard
from mhcnb.durable import write_json
from mhcnb.errors import DataError

log = logging.getLogger(__name__)

FINEWEB = "kjj0/fineweb10B-gpt2"
BESIDE = ("*meta.json", "*tokenizer.json")  # fetched with the shards where a data set has them
RECORD = "download.json"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Origin(NamedTuple):
    """What a folder holds."""

    hub: str  # modelscope or huggingface
    dataset: str
    revision: str

    def __str__(self) -> str:
        return f"{self.dataset}@{self.revision} on {self.hub}"


def download_modelscope(
    dataset: str,
    *,
    revision: str = "master",
    out: str | Path | None = None,
    cache: str | Path | None = None,
    patterns: list[str] | None = None,
) -> Path:
    """The folder with the files of a ModelScope data set that match `patterns` (all shards where None).

    It is `out`, or one under `cache`. MODELSCOPE_ENDPOINT names another server. Raises DataError.
    """
    origin = Origin("modelscope", dataset, revision)
    wanted = patterns or [*GLOBS.values(), *BESIDE]
    everywhere = [*wanted, *(f"*/{pattern}" for pattern in wanted)]  # in folders of the data set too

    def get(folder: Path) -> list[str]:
        from modelscope.hub.snapshot_download import dataset_snapshot_download

        dataset_snapshot_download(dataset, revision=revision, local_dir=str(folder), allow_patterns=everywhere)
        names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        found = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in everywhere)]
        return [name for name in found if not name.startswith(".") and name != RECORD]

    return _fetch(Path(out) if out else _place(origin, cache), origin, {"patterns": wanted}, get)


def download_hub(
    dataset: str = FINEWEB, *, train_shards: int = 1, revision: str = "main", out: str | Path | None = None
) -> Path:
    """The folder with the validation shards and the first `train_shards` training shards of a Hugging Face data set.

    It is `out`, or one in the cache. HF_ENDPOINT names another server. Raises DataError.
    """
    if train_shards < 1:
        raise DataError(f"train shards: {train_shards}; expected 1 or more")
    origin = Origin("huggingface", dataset, revision)

    def get(folder: Path) -> list[str]:
        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.hf_api import RepoFile

        server: dict[str, Any] = {"repo_type": "dataset", "revision": revision}
        endpoint = os.environ.get("HF_ENDPOINT")
        tree = HfApi(endpoint=endpoint).list_repo_tree(dataset, recursive=True, **server)
        listed = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
        names = _chosen(origin, list(listed), train_shards)
        for name in names:
            if _unlike(folder / name, listed[name]):
                (folder / name).unlink(missing_ok=True)  # the client would take it for good
            hf_hub_download(dataset, name, local_dir=folder, endpoint=endpoint, **server)
            if wrong := _unlike(folder / name, listed[name]):
                (folder / name).unlink()
                raise DataError(f"{origin}: what came as {name} is damaged and was removed: {wrong}; fetch it again")
        return names

    return _fetch(Path(out) if out else _place(origin, None), origin, {"train_shards": train_shards}, get)


def _chosen(origin: Origin, names: list[str], train_shards: int) -> list[str]:
    """Validation, what stands beside, and the first training shards, of a data set's file names."""
    train = sorted(fnmatch.filter(names, GLOBS["train"]))
    val = sorted(fnmatch.filter(names, GLOBS["val"]))
    if not train or not val:
        raise _nothing_matched(origin, list(GLOBS.values()), names)
    if train_shards > len(train):
        raise DataError(f"{origin} has {len(train)} training shards; {train_shards} were asked for")
    return [*val, *(name for pattern in BESIDE for name in fnmatch.filter(names, pattern)), *train[:train_shards]]


def _place(origin: Origin, cache: str | Path | None) -> Path:
    name = "--".join(re.sub(r"[^\w.-]", "-", part) for part in (*origin.dataset.split("/"), origin.revision))
    return (Path(cache) if cache else cache_folder()) / origin.hub / name


def _fetch(folder: Path, origin: Origin, wanted: dict[str, Any], get: Callable[[Path], list[str]]) -> Path:
    """`folder`, after `get` has put files there and they were checked; of several processes one fetches."""
    _refuse_foreign(folder, origin)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if _complete(folder, wanted):
                log.info("%s: %s is there already", folder, origin)
                return folder
            log.info("fetching %s into %s", origin, folder)
            if not _record(folder):
                write_json(folder / RECORD, origin._asdict())
            names = sorted(get(folder))
            if not any(name.endswith(".bin") for name in names):
                raise _nothing_matched(origin, list(wanted.values()), names)
            sizes = {name: (folder / name).stat().st_size for name in names}
            _check_shards(folder, names)
            write_json(folder / RECORD, {**origin._asdict(), **wanted, "files": sizes})
    except DataError:
        raise
    except ModuleNotFoundError as error:
        raise DataError(f"{origin}: {error.name} is not installed: `pip install 'mhcnb[hub]'`") from error
    except Exception as error:  # the clients raise their own, those of requests and httpx, and OSError
        raise _explained(error, origin, folder) from error
    return folder


def _record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _refuse_foreign(folder: Path, origin: Origin) -> None:
    """A folder with other things in it is not written to."""
    record = _record(folder)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; give a folder")
    if record and any(record.get(key) != value for key, value in origin._asdict().items()):
        holds = Origin(*(str(record.get(key)) for key in Origin._fields))
        raise DataError(f"{folder} holds {holds}, not {origin}; nothing was changed. Give another folder")
    if not record and folder.is_dir() and any(path.name != ".lock" for path in folder.iterdir()):
        raise DataError(f"{folder} already holds something, with no {RECORD}; nothing was changed. Give a new folder")


def _complete(folder: Path, wanted: dict[str, Any]) -> bool:
    """Whether the folder holds exactly what is asked for, by its record and the sizes of its files."""
    record = _record(folder)
    files = record.get("files")
    if not isinstance(files, dict) or any(record.get(key) != value for key, value in wanted.items()):
        return False
    return all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in files.items())


def _unlike(path: Path, listed: Any) -> str | None:
    """How a file differs from what the Hugging Face hub lists; its client does not compare them itself."""
    size = path.stat().st_size if path.is_file() else 0
    if size != listed.size:
        return f"{size:,} bytes, listed are {listed.size:,}"
    if listed.lfs is None:  # small files have no SHA-256 there
        return None
    with path.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    return None if got == listed.lfs.sha256 else f"SHA-256 {got[:12]}..., listed is {listed.lfs.sha256[:12]}..."


def _check_shards(folder: Path, names: list[str]) -> None:
    """Opens every shard; one that is damaged is removed, so that it is fetched anew and not kept as good."""
    for path in (folder / name for name in names if name.endswith(".bin")):
        try:
            Shard(path, read_meta(path.parent))
        except DataError as error:
            path.unlink()
            raise DataError(f"what was fetched is damaged and was removed: {error}") from error


def _nothing_matched(origin: Origin, patterns: list[Any], names: list[str]) -> DataError:
    there = ", ".join(sorted(names)[:8]) or "nothing that matched"
    return DataError(
        f"{origin}: no token shards: nothing matched {patterns}; found {there}. "
        "Look at the names on its page and give patterns, or another data set"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what lies behind it; ModelScope's keeps one a file."""
    while error is not None:
        yield error
        for behind in getattr(error, "failed_files", {}).values():
            yield from _causes(behind)
        error = error.__cause__ or error.__context__


def _explained(error: Exception, origin: Origin, folder: Path) -> DataError:
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
        text = f"the network failed ({_first(error)}); {again}, or copy shards into a folder and give it as data.root"
    else:
        text = f"{_first(error)}; {again}"
    return DataError(f"{origin}: {text}")


def _first(error: BaseException) -> str:
    """The last word of the innermost error, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines)[:300]
