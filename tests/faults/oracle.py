"""What a run must be like in the end, whatever has happened to it: the undisturbed one."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file

from mhcnb.durable import verify
from mhcnb.errors import MhcnbError
from mhcnb.run import Run
from mhcnb.training.checkpoint import OPTIMIZER, STATE, WEIGHTS

# of records and of state.json: when, how fast, in how much memory. All else is equal to the last bit
VOLATILE = {"time_s", "tokens_per_s", "peak_memory_gb", "mfu", "trained_s", "trained_steps"}
MAY_HIDE = {".lock"}


class Verdict(NamedTuple):
    """`wrong` says in words what is not as it must be; nothing where all is."""

    bit_equal: bool
    torn: int
    doubled: int
    wrong: tuple[str, ...]


def judge(path: Path, whole: Path) -> Verdict:
    """A finished run beside the undisturbed one."""
    run, other = Run(path), Run(whole)
    steps = other.config.train.steps
    try:
        status = run.status()
    except MhcnbError as error:
        status = {"reason": str(error)}
    wrong = [] if (status.get("state"), status.get("step")) == ("done", steps) else [f"status.json says {status}"]
    unequal = _unequal(run, other)
    lines, torn = _records(run.records.path)
    expected, _ = _records(other.records.path)
    doubled = sum(count - 1 for count in Counter(_key(line) for line in lines).values())
    wrong += unequal
    wrong += [f"{torn} torn lines"] if torn else []
    wrong += [f"{doubled} doubled lines"] if doubled else []
    if lines != expected and not doubled:
        wrong.append(f"results.jsonl: {len(lines)} records, not the {len(expected)} of the undisturbed run")
    hidden = [found.name for found in path.rglob(".*") if found.name not in MAY_HIDE]
    wrong += [f"left over: {', '.join(sorted(hidden))}"] if hidden else []
    return Verdict(not unequal and lines == expected, torn, doubled, tuple(wrong))


def _unequal(run: Run, other: Run) -> list[str]:
    """What differs between the last checkpoints; that each one left is sound is asked as well."""
    try:
        for folder in run.checkpoints():
            verify(folder)
        pairs = [(r.last_checkpoint(), load_file(r.last_checkpoint() / WEIGHTS)) for r in (run, other)]
        (a, weights), (b, others) = pairs
        found = [] if a.name == b.name else [f"last checkpoint {a.name}, not {b.name}"]
        found += [] if same(weights, others) else ["weights differ"]
        optimizers = [torch.load(folder / OPTIMIZER, weights_only=True) for folder in (a, b)]
        found += [] if same(*optimizers) else ["optimizers differ"]
        states = [steady(json.loads((folder / STATE).read_text())) for folder in (a, b)]
        differing = [key for key in states[1] if states[0].get(key) != states[1][key]]
        return found + ([f"state.json differs in {', '.join(differing)}"] if differing else [])
    except (MhcnbError, OSError) as error:
        return [f"{type(error).__name__}: {error}"]


def same(a: Any, b: Any) -> bool:
    """Nested state_dicts, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and _bits(a) == _bits(b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def _bits(x: torch.Tensor) -> bytes:
    return x.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def steady(value: Any) -> Any:
    """A nested value without what is VOLATILE."""
    if isinstance(value, dict):
        return {key: steady(part) for key, part in value.items() if key not in VOLATILE}
    return [steady(part) for part in value] if isinstance(value, list) else value


def _records(path: Path) -> tuple[list[Any], int]:
    """(records in order, number of lines that are none or have no end)."""
    records, torn = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if path.exists() else []:
        try:
            records.append(steady(json.loads(line)))
            torn += not line.endswith("\n")
        except json.JSONDecodeError:
            torn += 1
    return records, torn


def _key(record: Any) -> tuple[Any, Any]:
    return record.get("type"), record.get("step")
