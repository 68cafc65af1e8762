"""What a run or a sweep will cost, before it is started: `print(mhcnb.plan("params/gpt/tiny.yaml"))`."""

import json
import logging
import os
import shutil
from collections.abc import Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mhcnb import registry, yamlfile
from mhcnb.analysis.cost import build_meta, connection_flops, parameters
from mhcnb.config import RunConfig, as_dict, load_config, run_name
from mhcnb.errors import ConfigError
from mhcnb.models.base import open_sizes, with_sizes
from mhcnb.notebook.forecast import Forecast, Planned
from mhcnb.notebook.parameters import checked
from mhcnb.notebook.start import headless
from mhcnb.paths import find, outputs
from mhcnb.training import launch
from mhcnb.training.distributed import ONE, World
from mhcnb.training.epochs import with_known_updates
from mhcnb.training.estimate import Timings, measure, run_bytes, run_seconds
from mhcnb.training.fit import free_memory, process_bytes, remedies, resident
from mhcnb.training.footprint import Memory, activations, checkpoint_bytes, memory
from mhcnb.training.setup import open_source

log = logging.getLogger(__name__)
# what decides how long a step takes and what it holds; of `log`, whether maps are recorded at all
SECTIONS = ("connection", "model", "data", "objective")
TRAIN = ("micro_batch", "accumulation", "device", "dtype", "compile", "recompute", "recompute_group")
RECOMPUTE = ("none", "connection", "block")


@checked
def plan(
    params: str | Path | RunConfig,
    overrides: Mapping[str, Any] | None = None,
    *,
    out: str | Path | None = None,
    processes: int = 1,
    measured: bool | None = None,
) -> Forecast:
    """Parameters, FLOPs, memory, disk and time of a params file or a sweep file; print it, or ask for its `frame()`.
    `out` is where it would be written: whose free space counts.

    `measured`: make some steps of each shape of run, which takes about 15 seconds, and tell the time by them; default
    where somebody watches. Without it data are opened only where they alone know the vocabulary, or how many updates
    an epoch has. Raises ConfigError, DataError and RunError.
    """
    work = _read(params, overrides or {}, outputs(out or "outputs"), processes)
    work = work._replace(cells=[(name, _with_numbers(config)) for name, config in work.cells])
    groups = {_shape(config): config for _, config in work.cells}  # in the order in which they start
    measured = not headless() if measured is None else measured
    warnings = _busy() if measured else []
    groups = {shape: _complete(config, measured) for shape, config in groups.items()}
    facts = {shape: _facts(config, work) for shape, config in groups.items()}
    timings = _timings(groups, work) if measured else {}
    runs = [
        _planned(name, config, facts[_shape(config)], timings.get(_shape(config)), work) for name, config in work.cells
    ]
    warnings += [*_memory_warnings(facts, groups, work), *_disk_warnings(runs, work)]
    return Forecast(runs, work.at_once, work.then, work.sweep, warnings)


class _Work(NamedTuple):
    """What is to be done: runs by name, so many at a time, each so many ranks; then notebooks; into a folder."""

    cells: list[tuple[str, RunConfig]]
    at_once: int
    processes: int
    then: int
    out: Path
    sweep: bool


class _Facts(NamedTuple):
    """What arithmetic says of one shape of run."""

    parts: dict[str, int]
    flops: float
    connection_flops: float
    held: Memory
    process: int
    activations: dict[str, int]
    checkpoint: int
    device: torch.device
    dtype: torch.dtype


def _read(params: str | Path | RunConfig, overrides: Mapping[str, Any], out: Path, processes: int) -> _Work:
    """Raises ConfigError."""
    if processes < 1:
        raise ConfigError(f"processes = {processes}; expected 1 or more")
    if isinstance(params, RunConfig):
        return _Work([(run_name(params), params)], 1, processes, 0, out, False)
    path = find(str(params))
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; plan takes a params or a sweep file, or a run's config.yaml")
    if not {"base", "grid"} & yamlfile.read_mapping(path)[0].keys():
        config = load_config(path, overrides)
        return _Work([(run_name(config), config)], 1, processes, 0, out, False)
    from mhcnb.sweep.plan import plan as cells_of

    found = cells_of(path, overrides)
    cells = [(cell.name, cell.config) for cell in found.cells]
    return _Work(cells, min(found.workers, len(cells)), found.cells[0].processes, len(found.then), out, True)


def _with_numbers(config: RunConfig) -> RunConfig:
    """With the sizes that are known without the data, and the updates of its epochs. Raises DataError."""
    data: Any = config.data
    known = with_known_updates(with_sizes(config, registry.load("data", data.name).known_sizes(data)))
    return known if known.train.steps and known.train.eval_every else open_source(config)[1]


def _complete(config: RunConfig, measured: bool) -> RunConfig:
    """With the sizes of its data where nothing else says them; where steps are to be made the data are opened in any
    case, so that what is wrong with them is told at once. Raises DataError."""
    return open_source(config)[1] if measured or open_sizes(config) else config


def _shape(config: RunConfig) -> str:
    """Equal for runs whose steps cost the same."""
    values = as_dict(config)
    train = {name: values["train"][name] for name in TRAIN}
    return json.dumps([*(values[name] for name in SECTIONS), train, config.log.maps_every > 0], sort_keys=True)


def _facts(config: RunConfig, work: _Work) -> _Facts:
    device, world = launch.choose_device(config, ONE), World(size=work.processes)
    dtype, model, now = launch.autocast_dtype(config, device), build_meta(config), resident()
    held = memory(config, dtype, world)
    kept = {config.train.recompute: held.activations}
    for how in () if work.sweep else RECOMPUTE:
        other = config.model_copy(update={"train": config.train.model_copy(update={"recompute": how})})
        kept[how] = kept[how] if how in kept else activations(other, dtype, world)
    process, stored = process_bytes(config, held, device, now), checkpoint_bytes(config, world)
    flops = model.flops_per_token()
    return _Facts(parameters(model), flops, connection_flops(model), held, process, kept, stored, device, dtype)


def _timings(groups: dict[str, RunConfig], work: _Work) -> dict[str, Timings]:
    """Of each shape, measured with as many beside it as there will be."""
    from mhcnb.sweep.engines.base import threads_a_rank

    found: dict[str, Timings] = {}
    shapes = list(groups)
    for i in range(0, len(shapes), work.at_once):
        some = shapes[i : i + work.at_once]
        log.info("measuring %d of %d shapes of run", min(len(shapes), i + work.at_once), len(shapes))
        beside = list(islice(cycle(some), work.at_once))
        threads = threads_a_rank(work.at_once, work.processes)
        found |= dict(zip(beside, measure([groups[shape] for shape in beside], work.processes, threads), strict=True))
    return found


def _planned(name: str, config: RunConfig, facts: _Facts, timings: Timings | None, work: _Work) -> Planned:
    train = config.train
    tokens = train.micro_batch * train.accumulation * getattr(config.model, "block_size", 1)
    return Planned(
        name=name,
        config=config,
        device=f"{facts.device.type}, {str(facts.dtype).removeprefix('torch.')}",
        processes=work.processes,
        parts=facts.parts,
        flops=facts.flops,
        connection_flops=facts.connection_flops,
        tokens_a_step=tokens,
        memory=facts.held,
        process_bytes=facts.process,
        activations=facts.activations,
        checkpoint_bytes=facts.checkpoint,
        disk_bytes=run_bytes(config, facts.checkpoint),
        timings=timings,
        seconds=run_seconds(config, timings, work.processes) if timings else None,
    )


def _busy() -> list[str]:
    """A text where others use the machine: their share is in what is measured now."""
    load, cores = (os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0), os.cpu_count() or 1
    if load < 0.5 * cores:
        return []
    return [f"{load:.1f} processes of {cores} cores were at work before the measurement: alone, it takes less time"]


def _memory_warnings(facts: dict[str, _Facts], groups: dict[str, RunConfig], work: _Work) -> list[str]:
    """A text for the shape that needs most, where the device has not so much for all that run on it at a time."""
    shape = max(facts, key=lambda shape: facts[shape].process)
    most, config = facts[shape], groups[shape]
    free, cpu = free_memory(most.device), most.device.type == "cpu"
    together = work.at_once * work.processes
    sharing = together if cpu else -(-together // torch.accelerator.device_count())
    if free is None or most.process * sharing <= free:
        return []
    held, extra = most.held, most.process - most.held.update
    least = extra + held.weights + held.gradients + held.moments  # whatever the batch
    world, room = World(size=work.processes), free // sharing
    found = remedies(config, most.dtype, world, extra, room) if least <= room else []
    many = f", {sharing} times at once," if sharing > 1 else ""
    advice = (
        f"It would fit with {', or '.join(found)}" if found else "No smaller micro-batch fits; take a smaller model"
    )
    advice += ", or fewer workers" if work.at_once > 1 else ""
    return [
        f"{run_name(config)} does not fit: a process holds about {most.process / 1e9:.1f} GB{many} and "
        f"{free / 1e9:.1f} GB are free ({most.device.type}). {advice}"
    ]


def _disk_warnings(runs: list[Planned], work: _Work) -> list[str]:
    place = next(path for path in (work.out.absolute(), *work.out.absolute().parents) if path.exists())
    free, need = shutil.disk_usage(place).free, sum(run.disk_bytes for run in runs)
    if need <= free:
        return []
    return [
        f"the disk does not suffice: checkpoints take up to {need / 1e9:.1f} GB, {place} has {free / 1e9:.1f} GB free. "
        "Keep fewer with train.keep_last=2, free some space, or write elsewhere with --out"
    ]
