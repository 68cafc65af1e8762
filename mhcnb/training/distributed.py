"""The process group: who am I, sum over all, tell all. One process needs none of it and pays nothing."""

import os
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from mhcnb.config import RunConfig, as_dict, flatten
from mhcnb.errors import ConfigError, MhcnbError, RunError
from mhcnb.training.rendezvous import fresh_store

JOINING = timedelta(seconds=300)  # processes start at different speeds: their first meeting has a patience of its own
LOST = re.compile(r"gloo|nccl|timed? ?out|connection (closed|reset|refused)|broken pipe", re.IGNORECASE)


class World(NamedTuple):
    """rank of size processes; `local` counts within a machine and chooses the device."""

    rank: int = 0
    size: int = 1
    local: int = 0


ONE = World()


class Share(NamedTuple):
    """What one process does of a global batch: `steps` micro-batches of `size` rows, the first at row `first`,
    each next one `stride` rows on."""

    first: int
    size: int
    steps: int
    stride: int


def world_from_env() -> World:
    """As torchrun says it, or one process. Raises ConfigError where it says half of it."""
    found = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    missing = [name for name, value in found.items() if value is None]
    if len(missing) == len(found):
        return ONE
    if missing:
        given = ", ".join(f"{name}={value}" for name, value in found.items() if value is not None)
        raise ConfigError(
            f"{given} is set but {', '.join(missing)} is not; start several processes with "
            "`torchrun --standalone --nproc_per_node=N -m mhcnb train ...`, or unset it for one"
        )
    return World(*(int(value) for value in found.values() if value is not None))


def share(config: RunConfig, world: World) -> Share:
    """accumulation / size micro-batches each, or equal slices of the only one. Raises ConfigError otherwise."""
    micro, accumulation = config.train.micro_batch, config.train.accumulation
    if accumulation % world.size == 0:
        steps = accumulation // world.size
        return Share(world.rank * micro, micro, steps, world.size * micro)
    if accumulation == 1 and micro % world.size == 0:
        size = micro // world.size
        return Share(world.rank * size, size, 1, micro)
    name, value = ("micro_batch", micro) if accumulation == 1 else ("accumulation", accumulation)
    below, above = value // world.size * world.size, -(-value // world.size) * world.size
    valid = f"{below} or {above}" if below else str(above)
    raise ConfigError(
        f"a global batch of train.micro_batch {micro} x train.accumulation {accumulation} cannot be shared by "
        f"{world.size} processes: {value} is not divisible by {world.size}; nearest train.{name}: {valid}"
    )


def connect(world: World, device: torch.device, timeout_s: float = 300.0) -> None:
    """Joins the process group: gloo for the CPU, and beside the accelerator's own for small agreements.

    From then on none waits longer than `timeout_s` for the others. Raises RunError where the meeting point is taken,
    not named, or not joined by all in time.
    """
    if world.size == 1:
        return
    backend = dist.get_default_backend_for_device(device)
    backends = "gloo" if backend == "gloo" else f"cpu:gloo,{device.type}:{backend}"
    try:
        met, rank, size = next(rendezvous("env://", world.rank, world.size, timeout=JOINING))
        store = fresh_store(met, rank, size, JOINING)
        dist.init_process_group(backends, store=store, rank=rank, world_size=size, timeout=timedelta(seconds=timeout_s))
    except (RuntimeError, ValueError, TimeoutError) as error:
        place = ":".join(os.environ.get(name, f"({name} not set)") for name in ("MASTER_ADDR", "MASTER_PORT"))
        raise RunError(
            f"rank {world.rank} of {world.size} cannot join the others at {place}: {str(error).splitlines()[0]}; "
            "have all been started? torchrun --standalone finds a free port itself"
        ) from error


def lost(error: BaseException) -> RunError | None:
    """In words, what the process group raises where another process is gone or silent; None for any other error."""
    ours = isinstance(error, MhcnbError) or not isinstance(error, RuntimeError) or not dist.is_initialized()
    if ours or not (isinstance(error, dist.DistError) or LOST.search(str(error))):
        return None
    said = re.sub(r"^\[[^]]*\] *", "", str(error).splitlines()[0]).split(". This is")[0]
    return RunError(
        f"rank {dist.get_rank()} of {dist.get_world_size()} has lost another one, or waited for it longer than "
        f"train.timeout_s: {said}; what became of the others is in their logs/rank*.log"
    )


_left: list[Any] = []  # the process group that this process has left, see disconnect


def disconnect() -> None:
    """Leaves the process group, but keeps it in memory: were DDP the last to let go of it, it would wait for a thread
    of gloo while it holds the interpreter, which that thread needs to free its last tensor: a deadlock."""
    if dist.is_initialized():
        _left[:] = [dist.group.WORLD]
        dist.destroy_process_group()


def barrier() -> None:
    """Waits for all."""
    if dist.is_initialized():
        dist.all_reduce(torch.zeros(1))


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of `values` over all processes, on every one."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def any_rank(flag: bool) -> bool:
    """Whether any process says so; the same answer on all."""
    return agree([flag])[0]


def agree(flags: Sequence[bool]) -> list[bool]:
    """Each flag, true where any process says so; the same answers on all, in one exchange."""
    if not dist.is_initialized():
        return list(flags)
    answers = torch.tensor(flags, dtype=torch.float32)
    dist.all_reduce(answers, dist.ReduceOp.MAX)
    return [bool(answer) for answer in answers]


def gather(value: Any) -> list[Any]:
    """Every process's value by rank, on rank 0; [] on the others."""
    if not dist.is_initialized():
        return [value]
    everyones: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(value, everyones)
    return everyones or []


def joined(rows: Tensor) -> Tensor:
    """All processes' rows [b, ...], as many of each, one after the other [b · processes, ...]; on all."""
    if not dist.is_initialized():
        return rows
    everyones = rows.new_empty(dist.get_world_size() * len(rows), *rows.shape[1:])
    dist.all_gather_into_tensor(everyones, rows.contiguous())
    return everyones


def from_rank_zero(value: Any) -> Any:
    """Rank 0's value on all."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def require_equal(config: RunConfig) -> None:
    """Raises RunError on all ranks where their configurations differ."""
    if not dist.is_initialized():
        return
    everyones: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyones, flatten(as_dict(config)))
    differing = [key for key in everyones[0] if any(other.get(key) != everyones[0][key] for other in everyones)]
    if differing or any(other.keys() != everyones[0].keys() for other in everyones):
        key = next(iter(differing), "connection.name")
        listed = ", ".join(f"rank {rank}: {other.get(key)}" for rank, other in enumerate(everyones))
        raise RunError(f"the processes were started with different configurations ({listed} for {key}); give all one")
