"""Everything a training process holds, opened in the order in which it can fail: configuration, data, device,
process group, run folder, model."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mhcnb import registry
from mhcnb.config import RunConfig
from mhcnb.data.base import Source
from mhcnb.errors import MhcnbError
from mhcnb.models.base import Model, build_model, with_vocab_size
from mhcnb.objectives.base import Objective
from mhcnb.run import Run
from mhcnb.training import distributed, launch
from mhcnb.training.distributed import Share, World
from mhcnb.training.optim import build_optimizer

log = logging.getLogger(__name__)


@dataclass
class Session:
    """One process's parts of a run. `model` holds the weights; `wrapped` is the same behind compile and DDP."""

    config: RunConfig
    run: Run
    world: World
    share: Share
    device: torch.device
    dtype: torch.dtype
    source: Source
    objective: Objective
    model: Model
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler

    @property
    def leads(self) -> bool:
        """Whether this process writes the run folder."""
        return self.world.rank == 0

    def autocast(self) -> torch.autocast:
        """Mixed precision as configured; nothing in float32."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def without_sync(self, last: bool) -> Any:
        """Gradients travel between ranks once an update, with the last micro-batch."""
        return nullcontext() if last or self.world.size == 1 else self.wrapped.no_sync()  # type: ignore[operator]


@contextmanager
def session(config: RunConfig, out: Path) -> Iterator[Session]:
    """Opens all parts, and on leaving says in status.json what became of the run."""
    world = distributed.world_from_env()
    part = distributed.share(config, world)
    Run(out).require_new()
    if world.rank == 0:
        for warning in config.train.warnings():
            log.warning(warning)
    requested = config
    source, config = open_source(config)
    device = launch.choose_device(config, world)
    dtype = launch.autocast_dtype(config, device)
    distributed.connect(world, device)
    try:
        distributed.require_equal(config)
        run = _open_run(config, out, world)
        try:
            if world.rank == 0:
                run.write_env({"config_digest": requested.digest(), "data": source.describe(), "device": str(device)})
            yield _assemble(config, run, world, part, device, dtype, source)
        except BaseException as error:
            if world.rank == 0 and run.status().get("state") in ("starting", "running"):
                state = "stopped" if isinstance(error, KeyboardInterrupt | GeneratorExit) else "failed"
                run.set_status(state, run.status().get("step", 0), f"{type(error).__name__}: {error}")
            raise
        finally:
            run.release()
    finally:
        distributed.disconnect()


def open_source(config: RunConfig) -> tuple[Source, RunConfig]:
    """The data, and the configuration with the vocabulary that they have. Raises DataError."""
    source = registry.load("data", config.data.name)(config)
    if source.vocab_size is not None:
        config = with_vocab_size(config, source.vocab_size)
    source.check(config)
    return source, config


def _open_run(config: RunConfig, out: Path, world: World) -> Run:
    """Rank 0 makes the folder; its refusal is everyone's."""
    run, refusal = Run(out), None
    if world.rank == 0:
        try:
            run = Run.create(out, config)
        except MhcnbError as error:
            refusal = error
    refusal = distributed.from_rank_zero(refusal)
    if refusal is not None:
        raise refusal
    return run


def _assemble(
    config: RunConfig, run: Run, world: World, part: Share, device: torch.device, dtype: torch.dtype, source: Source
) -> Session:
    model = build_model(config).to(device)
    wrapped: nn.Module = torch.compile(model) if config.train.compile else model  # type: ignore[assignment]
    if world.size > 1:
        ids = None if device.type == "cpu" else [device.index]
        wrapped = nn.parallel.DistributedDataParallel(wrapped, device_ids=ids, gradient_as_bucket_view=True)
    return Session(
        config=config,
        run=run,
        world=world,
        share=part,
        device=device,
        dtype=dtype,
        source=source,
        objective=registry.load("objectives", config.objective.name)(config.objective),
        model=model,
        wrapped=wrapped,
        optimizer=build_optimizer(model, config.train),
        scaler=torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
    )
