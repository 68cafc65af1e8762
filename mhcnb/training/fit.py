"""Whether a training fits where it is to run, and what would."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psutil
import torch

from mhcnb.config import RunConfig
from mhcnb.errors import ConfigError
from mhcnb.training.distributed import World
from mhcnb.training.estimate import counts
from mhcnb.training.footprint import Memory, memory

HALVINGS = 5  # of the micro-batch that are tried


def process_bytes(config: RunConfig, held: Memory, device: torch.device, resident: int) -> int:
    """The most that a training process holds, as its train records count it: on an accelerator what is allocated
    there; on a CPU also `resident`, the interpreter with its libraries, and the copy that a checkpoint is written from
    while training goes on."""
    if device.type != "cpu":
        return held.update
    several = counts(config).saves > 1  # the last one is waited for
    return resident + held.update + several * (held.weights + held.moments)


def resident() -> int:
    """Bytes of this process now, which has loaded what a training loads."""
    return psutil.Process().memory_info().rss


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a device, or on this machine for the CPU; None where the device does not tell."""
    if device.type == "cpu":
        return psutil.virtual_memory().available
    with suppress(RuntimeError, NotImplementedError):
        return torch.accelerator.get_memory_info(device)[0]
    return None


def remedies(config: RunConfig, dtype: torch.dtype, world: World, extra: int, most: int) -> list[str]:
    """Changes with which a process holds no more than `most` bytes, each with what it then holds: the smallest of each
    kind, those that leave the training as it is first. `extra`: what it holds beside one update's memory."""
    found = []
    for family in (_smaller(config, {}), _with_recompute(config), _fewer_streams(config)):
        for change in family:
            try:
                need = extra + memory(_changed(config, change), dtype, world).update
            except ConfigError:  # a batch that these processes cannot share
                continue
            if need <= most:
                told = " ".join(f"{key}={value}" for key, value in change.items())
                found.append(f"{told} ({need / 1e9:.1f} GB)")
                break
    return found


Change = dict[str, Any]


def _smaller(config: RunConfig, beside: Change) -> Iterator[Change]:
    """The same global batch in smaller pieces."""
    micro, accumulation = config.train.micro_batch, config.train.accumulation
    for _ in range(HALVINGS):
        if micro % 2:
            return
        micro, accumulation = micro // 2, 2 * accumulation
        yield beside | {"train.micro_batch": micro, "train.accumulation": accumulation}


def _with_recompute(config: RunConfig) -> Iterator[Change]:
    """The connections alone first: their branches then still run once."""
    if config.train.recompute == "none" and getattr(config.connection, "streams", 1) > 1:
        yield {"train.recompute": "connection"}
    if config.train.recompute != "block":
        yield {"train.recompute": "block"}
        yield from _smaller(config, {"train.recompute": "block"})


def _fewer_streams(config: RunConfig) -> Iterator[Change]:
    streams = getattr(config.connection, "streams", 1)
    while (streams := streams // 2) >= 2:
        yield {"connection.streams": streams}


def _changed(config: RunConfig, change: Change) -> RunConfig:
    sections: dict[str, Change] = {}
    for key, value in change.items():
        section, field = key.split(".")
        sections.setdefault(section, {})[field] = value
    return config.model_copy(
        update={name: getattr(config, name).model_copy(update=fields) for name, fields in sections.items()}
    )
