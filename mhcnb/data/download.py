"""Token shards, or tables of puzzles, from ModelScope and from the Hugging Face hub, into one folder.

Each client shows progress, retries, resumes where a connection was cut and checks sizes. Here: what is there already
never touches the network, a folder of the user's is never written over, every shard is checked after it came, and all
that can go wrong is one DataError that says what to do. `download.json` in the folder records what it holds.
"""

import fnmatch
import functools
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from mhcnb.data.cache import cache_folder
from mhcnb.data.explained import explained
from mhcnb.data.layout import GLOBS
from mhcnb.data.meta import read_meta
from mhcnb.data.shardfile import Shard
from mhcnb.durable import write_json
from mhcnb.errors import DataError

log = logging.getLogger(__name__)

FINEWEB = "kjj0/fineweb10B-gpt2"
BESIDE = ("*meta.json", "*tokenizer.json")  # fetched with the shards where a data set has them
TABLES = ["train.csv", "test.csv"]  # of a data set of puzzles
RECORD = "download.json"


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

    names = functools.partial(_chosen, origin, train_shards=train_shards)
    return _from_hub(origin, Path(out) if out else _place(origin, None), {"train_shards": train_shards}, names)


def download_tables(dataset: str, hub: str, revision: str | None = None, cache: str | None = None) -> Path:
    """The folder in the cache with train.csv and test.csv of a data set of puzzles on `huggingface` or `modelscope`.

    Raises DataError.
    """
    if hub == "modelscope":
        return download_modelscope(dataset, revision=revision or "master", cache=cache, patterns=TABLES)
    origin = Origin(hub, dataset, revision or "main")

    def names(there: list[str]) -> list[str]:
        if not set(TABLES) <= set(there):
            raise _nothing_matched(origin, TABLES, there)
        return TABLES

    return _from_hub(origin, _place(origin, cache), {"patterns": TABLES}, names)


def _from_hub(origin: Origin, folder: Path, wanted: dict[str, Any], choose: Callable[[list[str]], list[str]]) -> Path:
    """`folder` with the files that `choose` takes of the names of a Hugging Face data set."""

    def get(folder: Path) -> list[str]:
        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.hf_api import RepoFile

        server: dict[str, Any] = {"repo_type": "dataset", "revision": origin.revision}
        endpoint = os.environ.get("HF_ENDPOINT")
        tree = HfApi(endpoint=endpoint).list_repo_tree(origin.dataset, recursive=True, **server)
        listed = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
        names = choose(list(listed))
        for name in names:
            if _unlike(folder / name, listed[name]):
                (folder / name).unlink(missing_ok=True)  # the client would take it for good
            hf_hub_download(origin.dataset, name, local_dir=folder, endpoint=endpoint, **server)
            if wrong := _unlike(folder / name, listed[name]):
                (folder / name).unlink()
                raise DataError(f"{origin}: what came as {name} is damaged and was removed: {wrong}; fetch it again")
        return names

    return _fetch(folder, origin, wanted, get)


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
            if all(name.endswith(".json") for name in names):  # that stands beside
                raise _nothing_matched(origin, list(wanted.values()), names)
            sizes = {name: (folder / name).stat().st_size for name in names}
            _check_shards(folder, names)
            write_json(folder / RECORD, {**origin._asdict(), **wanted, "files": sizes})
    except DataError:
        raise
    except ModuleNotFoundError as error:
        raise DataError(f"{origin}: {error.name} is not installed: `pip install 'mhcnb[hub]'`") from error
    except Exception as error:  # the clients raise their own, those of requests and httpx, and OSError
        raise explained(error, origin, folder) from error
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
    what = "tables of puzzles" if TABLES in (patterns, *patterns) else "token shards"
    return DataError(
        f"{origin}: no {what}: nothing matched {patterns}; found {there}. "
        "Look at the names on its page and give patterns, or another data set"
    )
