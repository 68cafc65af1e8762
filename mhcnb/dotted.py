"""Nested mappings by dotted keys: `train.lr` is values["train"]["lr"]."""

from collections.abc import Mapping
from typing import Any

from mhcnb.errors import ConfigError


def flatten(overrides: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys to plain values: a mapping as value sets each of its keys."""
    flat: dict[str, Any] = {}
    for key, value in overrides.items():
        if not isinstance(key, str):
            raise ConfigError(f"override {key!r}: a key is dotted text, as 'train.steps'")
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def assign(values: dict, key: str, value: Any) -> None:
    """values["a"]["b"] = value for `a.b`. Raises ConfigError where there is a plain value on the way."""
    *path, last = key.split(".")
    for name in path:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{key}: {name} is a plain value, it has no {last}")
    values[last] = value


def remove(values: dict, key: str) -> None:
    """Takes away what is at `a.b`, and the mappings that are empty then."""
    first, _, rest = key.partition(".")
    if rest:
        remove(values[first], rest)
    if not rest or not values[first]:
        del values[first]
