"""What a person watches while a model trains, and where it is healthy, in words.

mhc/amax_pre and mhc/amax_post are the names under which loggers have the gains of single maps, at the sites of
attention and of the MLP: for a token the larger of amax gain forward and backward (see gains), mean over tokens, of all
layers the largest.
"""

import math
from collections.abc import Mapping
from typing import Any

from mhcnb.config import LogConfig

BRANCHES = {"mhc/amax_pre": "attn", "mhc/amax_post": "mlp"}  # a site is named `{stack}.{i}.{branch}`
WORDS = {"mhc/amax_pre": "attention", "mhc/amax_post": "MLP"}


def amax_of(record: Mapping[str, Any]) -> dict[str, float]:
    """{"mhc/amax_pre": 1.02, "mhc/amax_post": 1.01} of a maps record; without one whose branch the model lacks."""
    of: Mapping[str, float] = record.get("amax", {}) if record.get("type") == "maps" else {}
    by_branch: dict[str, list[float]] = {}
    for site, value in of.items():
        by_branch.setdefault(site.split(" ")[0].rsplit(".", 1)[-1], []).append(value)
    return {name: _largest(by_branch[branch]) for name, branch in BRANCHES.items() if branch in by_branch}


def ranges(limits: LogConfig) -> list[tuple[str, str, str]]:
    """(name in the loggers, what it is, where it is healthy) of what is worth watching, for a table."""
    gain = f"below {limits.warn_gain:g} (log.warn_gain). residual and mhc_lite give 1; mhc between 1 and the number of "
    gain += "streams, near 1 while Sinkhorn converges; hc has no bound"
    return [
        ("train/loss", "mean loss of an update, in nats a token", "falls, seen over many updates"),
        ("train/lr", "rate of an update", "as train.schedule has it"),
        ("grad_norm", "norm of the gradient before clipping", f"below {limits.warn_grad_norm:g} (log.warn_grad_norm)"),
        ("mhc/amax_pre", "gain of the map at a site of attention, of all layers the largest", gain),
        ("mhc/amax_post", "the same at the MLP", gain),
    ]


def say_amax(record: Mapping[str, Any], limits: LogConfig) -> str:
    """`largest gain of a single map: attention 1.002, MLP 1.001, healthy (below 2)`; empty without maps."""
    found = amax_of(record)
    if not found:
        return ""
    each = ", ".join(f"{WORDS[name]} {value:.4g}" for name, value in found.items())
    high = not all(value <= limits.warn_gain for value in found.values())
    verdict = f"NOT healthy, above {limits.warn_gain:g}" if high else f"healthy (below {limits.warn_gain:g})"
    return f"largest gain of a single map: {each}, {verdict}"


def _largest(values: list[float]) -> float:
    return math.nan if any(map(math.isnan, values)) else max(values)
