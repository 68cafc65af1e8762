"""What runs differ in besides their connection, field by field, and what that does to a comparison."""

from collections import defaultdict
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from mhcnb.analysis.compare import Member, flat

FREE = ("connection.name", "seed", "preset", "log.", "train.eval_every", "data.cache")  # differ without harm
# first match decides; {}: what the difference means for a reader of the figures
MEANING = {
    "data.": "they are not trained and evaluated on the same data: losses do not compare",
    "objective.": "their losses are not one quantity",
    "model.vocab_size": "a loss per token of another vocabulary is another quantity: losses do not compare",
    "model.block_size": "more or less context lowers or raises every loss",
    "model.": "models of different sizes: compare gains by depth, not losses",
    "train.steps": "not trained on the same number of tokens",
    "train.micro_batch": "not trained on the same number of tokens",
    "train.accumulation": "not trained on the same number of tokens",
    "train.eval_batches": "not evaluated on the same windows: differences are not paired",
    "train.dtype": "rounding differs, and with it losses and the sums of res",
    "train.device": "rounding differs, and with it losses",
    "train.weight_decay": "decay acts on what the methods learn",
    "train.": "the recipe differs: a difference in loss is not of the connection alone",
    "connection.dialect": "conventions differ in more than the method",
    "connection.init": "they do not start from the same function: early losses are not of the method",
    "connection.decay_static": "static maps shrink under decay in some of them",
    "connection.order": "the exact side is not the same: their forward and backward gains change places",
    "connection.reduce": "the exit differs: streams are weighted differently",
    "connection.norm": "the coefficients' input differs",
    "connection.": "a setting of the connection besides its name",
}


def cautions(members: Iterable[Member]) -> list[str]:
    """A sentence for each field in which runs differ besides connection and seed: the values, whose they are and what
    that means. Fields that a method lacks do not count; of residual's, none do. Empty: comparable as they are."""
    members = list(members)
    words = []
    for key, values in _values(members).items():
        if key.startswith(FREE) or len(values) < 2:
            continue
        meaning = next(text for start, text in MEANING.items() if key.startswith(start))
        words.append(f"{key} differs: {_listed(values)}; {meaning}.")
    words += [
        f"{what} differs: {_listed(values)}; {meaning}." for what, meaning, values in _facts(members) if len(values) > 1
    ]
    return words


def incomparable(members: Iterable[Member]) -> list[str]:
    """A sentence for each setting in which one method stands alone, or one for all where every setting is so."""
    members = list(members)
    methods = defaultdict(set)
    for m in members:
        methods[m.setting].add(m.method)
    alone = [setting for setting, names in methods.items() if len(names) == 1]
    if len(members) > 1 and len(alone) == len(methods):
        return [
            f"No two methods share a setting ({'; '.join(methods)}): nothing here compares one method with another."
        ]
    return [
        f"{setting}: one method only ({next(iter(methods[setting]))}), nothing to compare it with." for setting in alone
    ]


def filtered(members: list[Member], methods: str = "", presets: str = "") -> tuple[list[Member], list[str]]:
    """The members whose connection or label, and whose preset, match one of the comma-separated patterns (`hc,mhc*`);
    empty: all. The second part says in words what matched nothing."""
    words, kept = [], members
    for text, what, names in (
        (methods, "methods", lambda m: (m.config.connection.name, m.method)),
        (presets, "presets", lambda m: (m.config.preset, m.setting)),
    ):
        patterns = [part.strip() for part in text.split(",") if part.strip()]
        known = sorted({names(m)[0] for m in members})
        words += [
            f"{what}: {pattern!r} matches none of {', '.join(known) or 'no runs'}"
            for pattern in patterns
            if not any(fnmatchcase(name, pattern) for m in members for name in names(m))
        ]
        if patterns:
            kept = [m for m in kept if any(fnmatchcase(n, p) for p in patterns for n in names(m))]
    return kept, words


def _values(members: list[Member]) -> dict[str, dict[str, list[str]]]:
    """{dotted key: {value: [runs]}}, of the runs that have the key."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for m in members:
        for key, value in flat(m.config).items():
            found[key][str(value)].append(m.run.name)
    return found


def _facts(members: list[Member]) -> list[tuple[str, str, dict[str, list[str]]]]:
    """What configurations do not say: tokens trained, the text itself, the device; of the runs that tell."""
    facts = {
        "tokens trained": ("losses at the end are not after the same training", _tokens),
        "validation text": ("the files are not the same, whatever their path: losses do not compare", _text),
        "device": ("speed and memory do not compare, and rounding differs", lambda m: m.env.get("device")),
    }
    found = []
    for what, (meaning, read) in facts.items():
        values: dict[str, list[str]] = defaultdict(list)
        for m in members:
            if (value := read(m)) is not None:
                values[str(value)].append(m.run.name)
        found.append((what, meaning, values))
    return found


def _tokens(m: Member) -> str | None:
    train, step = m.config.train, m.summary.get("steps")
    if step is None:  # not at its end: `compare.read` says so
        return None
    return f"{step * train.micro_batch * train.accumulation * getattr(m.config.model, 'block_size', 1):,}"


def _text(m: Member) -> Any:
    files = ((m.env.get("data") or {}).get("files") or {}).get("val") or []
    digests = [str(file.get("digest"))[:8] for file in files if isinstance(file, dict)]
    return " ".join(digests) or None


def _listed(values: dict[str, list[str]]) -> str:
    """`0.1 (4 runs: a, b, c, ...), 0.2 (d)`."""
    return ", ".join(f"{value} ({_some(runs)})" for value, runs in values.items())


def _some(runs: list[str], most: int = 3) -> str:
    if len(runs) <= most:
        return ", ".join(runs)
    return f"{len(runs)} runs: {', '.join(runs[: most - 1])}, ..."
