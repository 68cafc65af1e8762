"""Strict YAML: what a file says is what a run gets, or an error with the line.

Stricter than PyYAML in five ways: a duplicate key is an error (PyYAML keeps the last, silently), a key is text (PyYAML
takes `yes` and `true` for one key), `1e-3` is a number (YAML 1.1 reads a string), tags are refused, and so are aliases
and files above 1 MB.
"""

import re
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from mhcnb.errors import ConfigError

LARGEST = 1_000_000


class _Loader(yaml.SafeLoader):
    """SafeLoader with numbers as in YAML 1.2."""


class _Dumper(yaml.SafeDumper):
    """SafeDumper that puts the text '1e-3' in quotes, as it must for _Loader."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def parse(text: str, where: str = "the text") -> tuple[Any, dict[tuple, int]]:
    """(value, {path of keys: line}) of a YAML text. Raises ConfigError with the line."""
    try:
        _refuse_tags_and_aliases(text, where)
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: dict[tuple, int] = {}
        if node is not None:
            _check(node, (), lines, where)
        return (None if node is None else loader.construct_document(node)), lines
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{where}{line}: not valid YAML: {problem}") from error
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply to be a configuration") from None
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{where}: not valid YAML: {error}") from error


def read_mapping(path: Path) -> tuple[dict, dict[tuple, int]]:
    """(mapping, lines) of a YAML file. Raises ConfigError where it is missing, too large or not a mapping."""
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        raise ConfigError(f"no such file: {path}; YAML files in {path.parent}: {', '.join(near) or 'none'}")
    size = path.stat().st_size
    if size > LARGEST:
        raise ConfigError(f"{path}: {size:,} bytes; a configuration has at most {LARGEST:,}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text at byte {error.start}") from error
    value, lines = deepcopy(_parsed(text, str(path)))
    if not isinstance(value, dict):
        raise ConfigError(f"{path}:1: expected a mapping (key: value), got {type(value).__name__}")
    return value, lines


@lru_cache(maxsize=16)
def _parsed(text: str, where: str) -> tuple[Any, dict[tuple, int]]:
    """`parse`: the cells of a sweep share their files, and the text of one takes milliseconds."""
    return parse(text, where)


def dump(value: dict) -> str:
    """YAML text with the keys in their order; it reads back as the same values."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _refuse_tags_and_aliases(text: str, where: str) -> None:
    for event in yaml.parse(text, Loader=_Loader):
        line, tag = event.start_mark.line + 1, getattr(event, "tag", None)
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(f"{where}:{line}: aliases (*name) are not supported; write the value out")
        if tag is not None:
            raise ConfigError(f"{where}:{line}: the tag {tag!r} is not supported; plain values only")


def _check(node: yaml.Node, path: tuple, lines: dict[tuple, int], where: str) -> None:
    """Records the line of each key; refuses duplicate keys and those that are not text."""
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            _check(item, (*path, i), lines, where)
    if isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, item in node.value:
            at = key.start_mark.line + 1
            if key.tag != "tag:yaml.org,2002:str":
                got = f", got {key.value}; put it in quotes" if isinstance(key, yaml.ScalarNode) else ""
                raise ConfigError(f"{where}:{at}: a key must be text{got}")
            if key.value in first:
                raise ConfigError(f"{where}:{at}: {key.value!r} stands twice, first on line {first[key.value]}")
            first[key.value] = lines[(*path, key.value)] = at
            _check(item, (*path, key.value), lines, where)
