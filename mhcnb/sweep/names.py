"""Names of cells. A point is what a grid chose for one cell: {dotted key, `params` or `seed`: value}."""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from mhcnb.config import RunConfig, flatten, run_name
from mhcnb.errors import ConfigError
from mhcnb.run import NAME

SAID = ("params", "seed", "connection.name", "preset")  # what `<method>-<preset>-s<seed>` says anyway


def cell_names(points: list[dict[str, Any]], configs: list[RunConfig]) -> list[str]:
    """`<method>-<preset>-s<seed>`, then -key=value for each further key of the grid.

    Of a value that is a mapping, only the keys that tell apart cells of otherwise one name. Raises ConfigError where
    two cells still have one name.
    """
    names = [run_name(config) + _suffix(_plain(point)) for point, config in zip(points, configs, strict=True)]
    alike = defaultdict(list)
    for name, point in zip(names, points, strict=True):
        alike[name].append(_inner(point))
    for i, point in enumerate(points):
        others = alike[names[i]]
        names[i] += _suffix({k: v for k, v in _inner(point).items() if any(k not in o or o[k] != v for o in others)})
    seen: dict[str, dict] = {}
    for name, point in zip(names, points, strict=True):
        if not NAME.fullmatch(name):
            raise ConfigError(f"{name!r} is no name for a run: letters, digits and . _ = , - only, at most 100")
        if name in seen:
            raise ConfigError(f"two cells are both called {name}: ({describe(seen[name])}) and ({describe(point)})")
        seen[name] = point
    return names


def describe(point: Mapping[str, Any]) -> str:
    """`connection.name=mhc, seed=1`."""
    return ", ".join(f"{key}={_text(value)}" for key, value in point.items())


def _plain(point: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in point.items() if key not in SAID and not isinstance(value, Mapping)}


def _inner(point: Mapping[str, Any]) -> dict[str, Any]:
    flat = flatten({key: value for key, value in point.items() if isinstance(value, Mapping)})
    return {key: value for key, value in flat.items() if key not in SAID}


def _suffix(choice: Mapping[str, Any]) -> str:
    return "".join(f"-{key}={re.sub('[^A-Za-z0-9._=,-]', '_', _text(value))}" for key, value in choice.items())


def _text(value: Any) -> str:
    """As YAML would write it, near enough."""
    if isinstance(value, Mapping):
        return f"{{{describe(value)}}}"
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return {True: "true", False: "false", None: "null"}[value] if isinstance(value, bool | None) else str(value)
