"""Checkpoints: a folder with weights, optimizer and state that appears whole or not at all, and is verified when read.

checkpoints/step-00001000/{config.yaml, model.safetensors, optimizer.pt, carry.safetensors, state.json, manifest.json}
"""

import json
import logging
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mhcnb import durable, yamlfile
from mhcnb.config import RunConfig, as_dict, build_config
from mhcnb.errors import CheckpointError, RunError
from mhcnb.models.base import Model, build_model
from mhcnb.run import Run

log = logging.getLogger(__name__)
FORMAT = 2
WEIGHTS, OPTIMIZER, CARRY, STATE, CONFIG = (
    "model.safetensors", "optimizer.pt", "carry.safetensors", "state.json", "config.yaml"
)  # fmt: skip


class Snapshot(NamedTuple):
    """A training at a step boundary, copied to the CPU. Weights alone have no optimizer."""

    step: int
    config: RunConfig
    model: dict[str, Tensor]
    optimizer: dict[str, Any] | None
    carry: dict[str, Tensor]
    state: dict[str, Any]


# writing --------------------------------------------------------------------------------------------------------------


def copied(value: Any) -> Any:
    """A nested state_dict with every tensor copied to the CPU, so that training may go on."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, dict):
        return {key: copied(part) for key, part in value.items()}
    return [copied(part) for part in value] if isinstance(value, list) else value


def save(run: Run, step: int, model: Model, config: RunConfig) -> Path:
    """Writes weights alone, as for an imported model."""
    return write(run, Snapshot(step, config, copied(model.state_dict()), None, {}, {}))


def write(run: Run, snapshot: Snapshot) -> Path:
    """Writes checkpoints/step-N under a hidden name, its manifest last, then renames it; one that is there stays.

    Raises RunError where the disk refuses; what was there before is untouched.
    """
    final = run.path / "checkpoints" / f"step-{snapshot.step:08d}"
    if final.exists():
        return final
    part = final.with_name(f".{final.name}")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        _fill(part, snapshot)
        durable.write_manifest(part)
        durable.publish(part, final)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch.save gives a full disk as a RuntimeError
        shutil.rmtree(part, ignore_errors=True)
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        free = shutil.disk_usage(run.path).free
        raise RunError(
            f"cannot save {final}: {cause}; it takes about {_size(snapshot) / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are "
            "free there. Free some space, or give another --out"
        ) from error
    return final


def _fill(part: Path, snapshot: Snapshot) -> None:
    save_file(snapshot.model, part / WEIGHTS)
    if snapshot.optimizer is not None:
        torch.save(snapshot.optimizer, part / OPTIMIZER)
    if snapshot.carry:
        save_file(snapshot.carry, part / CARRY)
    (part / CONFIG).write_text(yamlfile.dump(as_dict(snapshot.config)), encoding="utf-8")
    state = {"format": FORMAT, "step": snapshot.step} | snapshot.state
    (part / STATE).write_text(json.dumps(state) + "\n", encoding="utf-8")


def _size(snapshot: Snapshot) -> int:
    """Bytes of a training's checkpoint: the weights, and two moments of each."""
    return sum(x.nbytes for x in snapshot.model.values()) * (1 if snapshot.optimizer is None else 3)


def prune(run: Run, keep_last: int) -> None:
    """Deletes all checkpoints but the last few, the best by validation loss, and those that somebody asked for."""
    states = {}
    for folder in run.checkpoints():
        with suppress(CheckpointError):  # a damaged one is for a person to look at
            states[folder] = read_state(folder)
    losses = {folder: state["val_loss"] for folder, state in states.items() if state.get("val_loss") is not None}
    kept = {*list(states)[-keep_last:], *(folder for folder, state in states.items() if state.get("asked"))}
    if losses:
        kept.add(min(losses, key=losses.__getitem__))
    for folder in states.keys() - kept:
        gone = folder.with_name(f".gone-{folder.name}")  # so that one half deleted is never taken for a checkpoint
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def sweep_up(run: Run) -> None:
    """Removes what a killed process left half written or half deleted; its names begin with a dot."""
    for left in (run.path / "checkpoints").glob(".*step-*"):
        shutil.rmtree(left, ignore_errors=True)


# reading --------------------------------------------------------------------------------------------------------------


def newest_sound(run: Run) -> tuple[Path, list[tuple[Path, str]]]:
    """The newest checkpoint that is as it was written, and newer ones that are not, with the reason.

    Raises CheckpointError where none is sound, or was written by a newer version.
    """
    damaged: list[tuple[Path, str]] = []
    run.last_checkpoint()  # raises where there is none
    for folder in reversed(run.checkpoints()):
        try:
            durable.verify(folder)
        except CheckpointError as error:
            damaged.append((folder, str(error)))
        else:
            read_state(folder)
            return folder, damaged
    listed = "\n".join(f"  {reason}" for _, reason in damaged)
    raise CheckpointError(
        f"{run.path}: none of its {len(damaged)} checkpoints is sound; nothing was changed:\n{listed}\nPut one "
        "back from a copy, or move the folder away and start anew"
    )


def read_state(folder: Path) -> dict[str, Any]:
    """state.json. Raises CheckpointError where it is damaged or of a newer version."""
    path = folder / STATE
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        written = state["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): the checkpoint was not written to its end") from error
    if not isinstance(written, int) or written > FORMAT:
        raise CheckpointError(
            f"{path}: checkpoint format {written!r}; this mhcnb reads formats up to {FORMAT}: written by a newer "
            "version, install that one"
        )
    return state


def read_config(folder: Path) -> RunConfig:
    """config.yaml of a checkpoint."""
    values, lines = yamlfile.read_mapping(folder / CONFIG)
    return build_config(values, str(folder / CONFIG), lines)


def find_checkpoint(path: str | Path) -> Path:
    """The verified folder of a checkpoint, or of a run's newest sound one. Weights and config.yaml alone, as somebody
    may have shared them, are taken as they are. Raises CheckpointError, RunError."""
    path = Path(path)
    if not (path / WEIGHTS).is_file():
        folder, damaged = newest_sound(Run.open(path))
        for _, reason in damaged:
            log.warning("%s; %s is used instead", reason, folder.name)
        return folder
    if (path / STATE).exists() or (path / durable.MANIFEST).exists():
        read_state(path)
        durable.verify(path, (CONFIG, WEIGHTS, STATE))
    return path


def load_model(path: str | Path) -> tuple[Model, RunConfig]:
    """(model, config) of a run (its newest sound checkpoint) or of a checkpoint folder; on the CPU.

    Raises CheckpointError where the weights are damaged or not of the configuration beside them, or the checkpoint
    was written by a newer version.
    """
    folder = find_checkpoint(path)
    config = read_config(folder)
    model = build_model(config)
    load_weights(model, folder)
    return model, config


def load_weights(model: Model, folder: Path) -> None:
    """The weights of a verified checkpoint into a model. Raises CheckpointError where they are not of it."""
    state = read_tensors(folder / WEIGHTS)
    require_match(state, model.state_dict(), folder)
    model.load_state_dict(state)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file, on the CPU."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def require_match(state: dict[str, Tensor], own: dict[str, Tensor], folder: Path) -> None:
    """Raises CheckpointError with the first five names or shapes that differ."""
    differing = sorted(set(state) ^ set(own)) + sorted(
        k for k in set(state) & set(own) if state[k].shape != own[k].shape
    )
    if differing:
        first = [
            f"{k}: file {tuple(state[k].shape) if k in state else 'absent'}, "
            f"configuration {tuple(own[k].shape) if k in own else 'absent'}"
            for k in differing[:5]
        ]
        raise CheckpointError(
            f"{folder}: {len(differing)} tensors are not those of the configuration: {'; '.join(first)}"
        )
