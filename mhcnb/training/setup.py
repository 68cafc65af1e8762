"""Everything a training process holds, opened in the order in which it can fail: configuration, data, device,
process group, run folder, model."""

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mhcnb import registry
from mhcnb.config import RunConfig
from mhcnb.data.base import Source
from mhcnb.errors import ConfigError, MhcnbError
from mhcnb.layers.recompute import recompute
from mhcnb.models.base import Model, build_model, with_sizes
from mhcnb.run import Run
from mhcnb.training import distributed, launch, resume
from mhcnb.training.averages import TRAINED, Averages
from mhcnb.training.checkpoint import CARRY, OPTIMIZER, load_weights, read_tensors
from mhcnb.training.compiling import compile_parts
from mhcnb.training.distributed import World
from mhcnb.training.divergence import Diverged, report
from mhcnb.training.epochs import with_updates
from mhcnb.training.loggers import open_loggers
from mhcnb.training.optim import build_optimizer
from mhcnb.training.resume import Finished, Opening
from mhcnb.training.session import Session
from mhcnb.training.track import Track, split
from mhcnb.training.weights import start_from

log = logging.getLogger(__name__)


@contextmanager
def session(config: RunConfig, out: Path) -> Iterator[Session]:
    """Opens all parts, and on leaving says in status.json what became of the run. Raises Finished where nothing is
    left to do."""
    world = distributed.world_from_env()
    share = distributed.share(config, world)
    digest = config.digest()
    source, config = open_source(launch.heeding_environment(config))
    if world.rank == 0:
        for warning in config.warnings():
            log.warning(warning)
    device = launch.choose_device(config, world)
    dtype = launch.autocast_dtype(config, device)
    stack, run = resume.stack(device.type, world.size), Run(out)
    try:
        opening = resume.plan(run, config, source.fingerprint(), stack) if world.rank == 0 else Opening()
        model = build_model(config)
        if world.rank == 0 and not opening.finished:
            _load(model, opening.folder, config)
            _require_space(run, model)
        distributed.connect(world, device, config.train.timeout_s)
        distributed.require_equal(config)
        opening = _open_run(run, config, opening, world)
        track = Track.from_state(opening.state)
        with _logged(config, run, track.step, world), _true_status(run, world, track, config, device):
            if world.rank == 0:
                facts = {"config_digest": digest, "data": source.describe(), "stack": stack, "job": launch.job()}
                run.write_env(facts | {"resumed": _attempts(run, opening)})
                source.keep(run.path)
            objective = registry.load("objectives", config.objective.name)(config.objective)
            wrapped, optimizer = _wrapped(model.to(device), config, device, world), build_optimizer(model, config.train)
            scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
            parts = (objective, model, wrapped, optimizer, scaler)
            averages = Averages(model, config.train.ema) if config.train.ema else None
            s = Session(config, run, world, share, device, dtype, source, *parts, track, stack, averages)
            _restore(s, opening)
            yield s
    finally:
        run.release()
        distributed.disconnect()


@contextmanager
def _logged(config: RunConfig, run: Run, step: int, world: World) -> Iterator[None]:
    """Copies of the records go where config.log says."""
    loggers = open_loggers(config, run, step) if world.rank == 0 else []
    run.records.followers += [logger.follow for logger in loggers]
    try:
        yield
    finally:
        for logger in loggers:
            logger.close(run.status().get("state", "failed"))


@contextmanager
def _true_status(run: Run, world: World, track: Track, config: RunConfig, device: torch.device) -> Iterator[None]:
    """Whatever ends the run, status.json says it. A rank that waited in vain for another, or had no memory left, says
    so in words."""
    try:
        yield
    except BaseException as error:
        told = distributed.lost(error) or launch.out_of_memory(error, config, device, track.step + 1)
        if world.rank == 0 and isinstance(error, Diverged):
            told = report(run, error)
        elif world.rank == 0 and run.status().get("state") in ("starting", "running"):
            state = "stopped" if isinstance(error, KeyboardInterrupt | GeneratorExit) else "failed"
            shown = told or error
            with suppress(OSError):  # a full disk must not hide what happened
                run.set_status(state, track.step, f"{type(shown).__name__}: {shown}")
        if told is not None:
            raise told from error
        raise


def _load(model: Model, folder: Path | None, config: RunConfig) -> None:
    """The weights to go on from, or to start from, on rank 0: the others get them from it."""
    if folder is not None:
        load_weights(model, folder)
    elif config.train.weights:
        start_from(model, config)


def _require_space(run: Run, model: Model) -> None:
    """Two checkpoints must fit, or the second save would fail: the first goes only after it."""
    need = 2 * 3 * sum(x.nbytes for x in model.state_dict().values())
    place = next(path for path in (run.path.absolute(), *run.path.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if need > free:
        raise ConfigError(
            f"two checkpoints of this model take {need / 1e6:,.0f} MB; {place} has {free / 1e6:,.0f} MB free. Free "
            "some space, or give another --out"
        )


def _attempts(run: Run, opening: Opening) -> list[dict[str, Any]]:
    """For env.json: where and when the run was gone on with."""
    before = run.env().get("resumed", [])
    if opening.folder is None:
        return []
    return [*before, {"step": opening.state["step"], "time": time.time(), "words": list(opening.words)}]


def open_source(config: RunConfig) -> tuple[Source, RunConfig]:
    """The data, and the configuration with the sizes and the epochs that they have. Raises DataError, and
    ConfigError where they have no epochs."""
    source = registry.load("data", config.data.name)(config)
    config = with_updates(with_sizes(config, source.sizes), source.epoch_rows)
    source.check(config)
    return source, config


def _open_run(run: Run, config: RunConfig, opening: Opening, world: World) -> Opening:
    """Rank 0 opens the folder; its refusal, or that nothing is left to do, is everyone's."""
    refusal = None
    if world.rank == 0 and not opening.finished:
        try:
            resume.begin(run, config, opening)
        except MhcnbError as error:
            refusal = error
    refusal, opening = distributed.from_rank_zero((refusal, opening))
    if refusal is not None:
        raise refusal
    if opening.finished:
        raise Finished(opening.finished)
    return opening


def _wrapped(model: Model, config: RunConfig, device: torch.device, world: World) -> nn.Module:
    """The model behind recomputation, compile and DDP."""
    recompute(model, config.train.recompute, config.train.recompute_group)
    if config.train.compile:
        compile_parts(model, config.train.recompute)
    if world.size == 1:
        return model
    ids = None if device.type == "cpu" else [device.index]
    return nn.parallel.DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)


def _restore(s: Session, opening: Opening) -> None:
    """Optimizer, scaler, carries and generators as they were; rank 0 reads, for the others may not see the folder."""
    s.track.carries = [None] * s.share.steps
    if opening.folder is None:
        return
    folder, stored, whole = opening.folder, None, {}
    if s.leads:
        stored = torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True)
        whole = read_tensors(folder / CARRY) if (folder / CARRY).is_file() else {}
    stored, whole = distributed.from_rank_zero((stored, whole))
    trained = stored.pop(TRAINED, None)
    if s.averages:
        s.averages.resume(trained)
    s.optimizer.load_state_dict(stored)
    if s.scaler.is_enabled():
        s.scaler.load_state_dict(opening.state["scaler"])
    s.track.carries = [part and s.model.unpack_carry(part) for part in split(whole, s.share, s.device)]
    if len(opening.state["rng"]) == s.world.size:
        resume.set_random_state(opening.state["rng"][s.world.rank], s.device)
