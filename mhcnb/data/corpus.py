"""Text that every Python carries: the documentation and the sources of its standard library, as token shards."""

import hashlib
import importlib
import logging
import os
import sysconfig
from pathlib import Path
from typing import Any

from mhcnb.data.cache import cache_folder, made_once
from mhcnb.data.prepare import write_documents
from mhcnb.data.recipe import Recipe
from mhcnb.data.tokenizer import train_tokenizer
from mhcnb.errors import DataError

log = logging.getLogger(__name__)

VOCAB = 2048
SEED = 0  # of the split: part of the data, not of a run
MOST = 8_000_000  # bytes
RECIPE = f"1 {VOCAB} {SEED} {MOST}"  # another one gives another folder
LEFT_OUT = {
    *("test", "tests", "site-packages", "dist-packages", "__pycache__"),
    *("idlelib", "lib2to3", "turtledemo", "ensurepip", "lib-dynload", "__phello__"),
    *("encodings", "pydoc_data"),  # tables; and documentation in quotes, of which `documents` takes the text itself
}


def embedded(cache: str | None = None) -> Path:
    """The folder with the embedded corpus as shards, prepared on first use. Raises DataError."""
    found = documents()
    digest = hashlib.sha256(RECIPE.encode())
    for name, document in found.items():
        digest.update(f"\0{name}\0{document}".encode())
    key = digest.hexdigest()

    def make(part: Path) -> None:
        log.info("preparing the embedded corpus (%d documents of the standard library) once", len(found))
        codec = train_tokenizer(found.values(), VOCAB)
        source = {"corpus": "embedded", "digest": key}
        write_documents(part, list(found.values()), codec, Recipe(vocab=VOCAB, seed=SEED), source)

    return made_once((Path(cache) if cache else cache_folder()) / "embedded" / key[:16], make)


def documents() -> dict[str, str]:
    """{name: text}, in fixed order and at most MOST bytes: pydoc's topics, then the sources by path."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found, room = {}, MOST
    for name, document in [*_topics().items(), *_sources(root)]:
        room -= len(document.encode())
        if room < 0:
            break
        found[name] = document
    if len(found) < 100:
        raise DataError(f"{root} has only {len(found)} documents of the standard library; give a folder as data.root")
    return found


def _topics() -> dict[str, str]:
    """The language reference that `help()` shows; some distributions leave it out."""
    try:
        topics: dict[str, Any] = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        return {}
    return {f"pydoc/{name}": topics[name] for name in sorted(topics)}


def _sources(root: Path) -> list[tuple[str, str]]:
    """(path, text) of the UTF-8 Python files under `root`, by path."""
    paths = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - LEFT_OUT)
        paths += [Path(folder, name) for name in names if name.endswith(".py")]
    read = []
    for name, path in sorted((path.relative_to(root).as_posix(), path) for path in paths):
        try:
            document = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if document.strip():
            read.append((name, document))
    return read
