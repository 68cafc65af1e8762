"""What a training carries from step to step beside weights and optimizer."""

from copy import deepcopy
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from mhcnb.training import distributed
from mhcnb.training.distributed import Share

Carry = dict[str, Tensor] | None  # of one micro-batch, packed; every tensor has its rows first


@dataclass
class Track:
    """Plain values for state.json, but for `carries`: one for each micro-batch of this process."""

    step: int = 0
    first: dict[str, Any] = field(default_factory=dict)  # the evaluation at step 0
    latest: dict[str, Any] = field(default_factory=dict)  # and the last one
    best: float | None = None  # the lowest validation loss after step 0
    skipped: int = 0  # updates in a row that float16's scaler left out
    time_s: float = 0.0
    trained_s: float = 0.0  # of it in updates, the first interval of an attempt left out
    trained_steps: int = 0
    sums: dict[str, list[float]] = field(default_factory=dict)  # metric -> [sum, count] since the last train record
    words: dict[str, str] = field(default_factory=dict)  # what it is about -> the latest that was said
    carries: list[Any] = field(default_factory=list)  # as the model has them

    def as_state(self) -> dict[str, Any]:
        """The plain values."""
        return {f.name: deepcopy(getattr(self, f.name)) for f in fields(self) if f.name != "carries"}

    def count(self, names: list[str], values: list[float]) -> None:
        """Adds the metrics of an update: sum and count of each, one after the other."""
        for name, total, count in zip(names, values[::2], values[1::2], strict=True):
            before = self.sums.get(name, [0.0, 0.0])
            self.sums[name] = [before[0] + total, before[1] + count]

    def means(self) -> dict[str, float]:
        """Of the metrics that were counted since it was last asked."""
        sums, self.sums = self.sums, {}
        return {name: total / count for name, (total, count) in sums.items() if count}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Track":
        """The plain values of a state.json back; a new Track where it is {}."""
        return cls(**{f.name: state[f.name] for f in fields(cls) if f.name in state})


def rows(share: Share) -> list[int]:
    """The first row of each micro-batch of a process, in the global batch."""
    return [share.first + i * share.stride for i in range(share.steps)]


def merge(carries: list[Carry], share: Share) -> dict[str, Tensor]:
    """The carry of the whole global batch on rank 0, on the CPU, rows in order; {} on other ranks, and where models
    have none. All ranks call it."""
    own = [
        (row, {name: x.cpu() for name, x in carry.items()})
        for row, carry in zip(rows(share), carries, strict=True)
        if carry
    ]
    pieces = sorted((piece for rank in distributed.gather(own) for piece in rank), key=lambda piece: piece[0])
    return {name: torch.cat([carry[name] for _, carry in pieces]) for name in (pieces[0][1] if pieces else {})}


def split(whole: dict[str, Tensor], share: Share, device: torch.device) -> list[Carry]:
    """This process's parts of a merged carry, whatever number of processes it was merged from."""
    cut = [{name: x[row : row + share.size].to(device) for name, x in whole.items()} for row in rows(share)]
    return [part or None for part in cut]
