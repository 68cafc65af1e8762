"""Where the shards of a data set are: the layouts that users have, found, said, or refused when in doubt."""

import difflib
import glob
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mhcnb.data.meta import NOTHING_SAID, Meta, read_meta
from mhcnb.data.shardfile import FORMATS, Shard
from mhcnb.data.textfile import is_text
from mhcnb.errors import DataError
from mhcnb.paths import find

log = logging.getLogger(__name__)

GLOBS = {"train": "*train*.bin", "val": "*val*.bin"}
PLACES = ("data/fineweb10B/", "", "*/", "*/*/", "*/*/*/")  # below the root, in this order; the first with shards is it
VARIABLES = ("DATA_ROOT", "DATA_PATH")
ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Layout(NamedTuple):
    """The open shards of both splits, and what meta.json says of them."""

    root: Path
    meta: Meta
    shards: dict[str, list[Shard]]  # train, val

    @property
    def format(self) -> str:
        """The one format of all shards."""
        return str(self.shards["train"][0].format)


def open_layout(root: Path, globs: Mapping[str, str | None], detect: bool = True) -> Layout:
    """The shards under a folder. `globs` overrides the names of a split, relative to the place that holds the shards.

    Without `detect` the globs are taken from the root alone, and a file that could be something else than tokens is
    not doubted. Raises DataError where anything is missing, mixed, damaged, ambiguous or in both splits.
    """
    files = find_files(root, globs, detect)
    folders = [files["train"][0].parent, files["val"][0].parent, root]
    meta = next((found for found in map(read_meta, folders) if found != NOTHING_SAID), NOTHING_SAID)
    shards = {split: [Shard(path, meta, detect) for path in paths] for split, paths in files.items()}
    _refuse_mixed(shards["train"] + shards["val"])
    _refuse_leak(shards)
    layout = Layout(root, meta, shards)
    counts = ", ".join(f"{split} {len(s)} ({sum(x.tokens for x in s):,} tokens)" for split, s in shards.items())
    log.info("%s: %s shards in %s: %s", root, layout.format, files["train"][0].parent, counts)
    return layout


def folder_of(root: str | None) -> Path | None:
    """The folder that `data.root` or the environment names, or None for an id of a hub. Raises DataError.

    A relative one is looked for as `paths.find` does: a notebook's working directory is not the project's.
    """
    variable = next((name for name in VARIABLES if os.environ.get(name)), None)
    if root is None and variable is None:
        raise DataError(
            f"no data: data.root is not given and neither {' nor '.join(VARIABLES)} is set; give a folder with shards "
            "(data.root=DIR), a ModelScope id (owner/name), or data.root=embedded for text that needs no download"
        )
    text = os.environ[variable] if root is None and variable else str(root)
    folder = find(text)
    if folder.is_dir():
        return folder
    folder = Path(text).expanduser()
    parent = folder.parent
    if ID.fullmatch(text) and root is not None and not parent.exists():
        return None
    where = f"data.root = {text}" if root is not None else f"{variable} = {text}"
    if folder.exists():
        raise DataError(
            f"{where} is a file; give the folder that holds it, or a text (.jsonl, .txt; .gz or not) as data.root"
        )
    names = [name.rstrip("/") for name in glob.glob("*/", root_dir=parent)]
    raise DataError(f"{where}: no such folder{_nearest(folder.name, names, f'folders in {parent}')}")


def text_of(root: str | None) -> Path | None:
    """The file of text that `data.root` names, by its ending; None where it names something else. Raises DataError."""
    if root is None or not is_text(root) or find(root).is_dir():
        return None
    if find(root).is_file():
        return find(root)
    path = Path(root).expanduser()
    names = [name for name in glob.glob("*", root_dir=path.parent) if is_text(name)]
    raise DataError(f"data.root = {root}: no such file{_nearest(path.name, names, f'texts in {path.parent}')}")


def find_files(root: Path, globs: Mapping[str, str | None], detect: bool = True) -> dict[str, list[Path]]:
    """{"train": files, "val": files}, sorted. Raises DataError naming pattern, folder and the nearest names."""
    patterns = {split: globs.get(split) or name for split, name in GLOBS.items()}
    found: dict[str, list[Path]] = {}
    for place in PLACES if detect else ("",):
        found = {split: _matches(root, place, pattern) for split, pattern in patterns.items()}
        if any(found.values()):
            break
    for split, paths in found.items():
        if not paths:
            raise _nothing(root, split, patterns[split], [path for other in found.values() for path in other])
        folders = {path.parent for path in paths}
        if len(folders) > 1 and not globs.get(split):
            listed = ", ".join(sorted(map(str, folders)))
            raise DataError(
                f"{root}: {split} shards lie in {len(folders)} folders: {listed}; "
                f"give one of them as data.root, or name the files with data.{split}_glob"
            )
    both = sorted(set(found["train"]) & set(found["val"]))
    if both:
        raise DataError(f"{both[0]} matches both {patterns['train']} and {patterns['val']}: {_leak_remedy()}")
    return found


def _matches(root: Path, place: str, pattern: str) -> list[Path]:
    return sorted(
        path
        for name in glob.glob(place + pattern, root_dir=root, recursive=True)
        if (path := root / name).is_file() and not path.name.startswith(".")
    )


def _nothing(root: Path, split: str, pattern: str, found: list[Path]) -> DataError:
    """What to say where a split has no file; `found` are those of the other."""
    folder = found[0].parent if found else root
    names = [
        name for place in ("", *PLACES) for name in glob.glob(f"{place}*.bin", root_dir=folder) if folder / name != root
    ]
    near = _nearest(pattern.strip("*"), sorted(set(names)), ".bin files there")
    other = f"; {len(found)} file(s) of the other split are there" if found else ""
    return DataError(
        f"{folder}: no {split} shards: no file matches {pattern}{other}{near}; name them with data.{split}_glob, "
        "or `mhcnb data download` to fetch"
    )


def _nearest(name: str, names: list[str], what: str) -> str:
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.3)
    hint = f"; nearest: {', '.join(close)}" if close else ""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{hint}; {what}: {', '.join(sorted(names)[:8]) or 'none'}{more}"


def _leak_remedy() -> str:
    return "training on the validation text would make every comparison worthless; remove one, or set the globs apart"


def _refuse_mixed(shards: list[Shard]) -> None:
    kinds: dict[Any, list[Shard]] = {}
    for shard in shards:
        kinds.setdefault(shard.format, []).append(shard)
    if len(kinds) > 1:
        which = "; ".join(f"{kind}: {', '.join(s.path.name for s in some[:5])}" for kind, some in kinds.items())
        raise DataError(f"{shards[0].path.parent}: mixed formats: {which}. Keep one. {FORMATS}")


def _refuse_leak(shards: dict[str, list[Shard]]) -> None:
    """The same content in train and val. Only files of equal size are read for it."""
    sizes = {shard.size for shard in shards["val"]}
    train = {shard.digest: shard.path for shard in shards["train"] if shard.size in sizes}
    for shard in shards["val"]:
        if train and shard.digest in train:
            raise DataError(f"{train[shard.digest]} and {shard.path} are the same file: {_leak_remedy()}")
