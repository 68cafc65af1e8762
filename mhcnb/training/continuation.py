"""`+resume_from_checkpoint=PATH`: in the guides of other tools one argument for two things, going on with a run and a
new run from its weights. Which of them it is follows from what has changed, and is said."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from mhcnb import durable
from mhcnb.config import RunConfig, run_name
from mhcnb.errors import CheckpointError, RunError
from mhcnb.paths import find
from mhcnb.renames import RESUME
from mhcnb.run import Run
from mhcnb.training import resume
from mhcnb.training.checkpoint import OPTIMIZER, STATE, find_checkpoint, newest_sound, read_config, read_state
from mhcnb.training.distributed import world_from_env
from mhcnb.training.setup import open_source

log = logging.getLogger(__name__)


def go_on(config: RunConfig, path: str, out: Path | None) -> tuple[RunConfig, Path]:
    """(configuration, folder) to train with: the run of the checkpoint at `path` where only what may change on resume
    differs, in that run or, where `out` is another folder, in a copy of it as it was then; else a new run from its
    weights. Opens the data. Raises CheckpointError where no sound checkpoint is there, RunError where going on from
    it would lose later ones."""
    folder = find_checkpoint(find(path))
    default = Path("outputs") / run_name(config)
    if changed := _changes(config, folder):
        log.info("+%s: a new run from the weights of %s; it cannot be gone on with: %s", RESUME, folder, changed)
        return _with(config, weights=str(path)), out or default
    own, step = _run_of(folder), read_state(folder)["step"]
    place = out or (own.path if own else default)
    if own and place.resolve() == own.path.resolve():
        if folder.name != (newest := newest_sound(own)[0]).name:
            raise RunError(
                f"{folder} is not the newest checkpoint of its run: going on from it there would lose what led to "
                f"{newest.name}. Name the run, {own.path}, or give another --out"
            )
    elif world_from_env().rank == 0:
        _copy(folder, own, step, Run(place), config)
    log.info("+%s: going on with %s at step %d, in %s", RESUME, own.path if own else folder, step, place)
    return _with(config, resume="auto", weights=read_config(folder).train.weights), place


def _changes(config: RunConfig, folder: Path) -> str:
    """What keeps a checkpoint from being gone on with, in words; empty where nothing does."""
    if not all((folder / name).is_file() for name in (STATE, OPTIMIZER)):
        return "it holds weights alone"
    old = read_config(folder)
    source, config = open_source(_with(config, weights=old.train.weights))  # which are in it already
    refused = resume.compare(old, config)[1]
    if refused:
        return ", ".join(f"{key} {a} -> {b}" for key, (a, b) in refused.items())
    try:
        resume.require_same_data(folder, read_state(folder).get("data", {}), source.fingerprint())
    except CheckpointError:
        return "the data are others"
    return ""


def _run_of(folder: Path) -> Run | None:
    """The run that a checkpoint lies in; None for one that was copied out of it."""
    path = folder.parent.parent
    return Run(path) if folder.parent.name == "checkpoints" and (path / "config.yaml").is_file() else None


def _copy(folder: Path, own: Run | None, step: int, run: Run, config: RunConfig) -> None:
    """`run` becomes a run that is at this checkpoint, of this step, with what had been recorded by then."""
    if run.checkpoints() and resume.restarted(run):
        return
    run.make(config)
    final = run.path / "checkpoints" / folder.name
    part = final.with_name(f".{final.name}")
    try:
        kept = [record for record in (own.results() if own else []) if record["step"] <= step]
        durable.write_text(run.path / "results.jsonl", "".join(json.dumps(record) + "\n" for record in kept))
        shutil.copytree(folder, part)
        durable.publish(part, final)
    except OSError as error:
        raise RunError(f"cannot copy {folder} to {final}: {error.strerror} (errno {error.errno})") from error
    finally:
        run.release()


def _with(config: RunConfig, **train: Any) -> RunConfig:
    return config.model_copy(update={"train": config.train.model_copy(update=train)})
