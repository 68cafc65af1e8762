"""The ckpt.pt that nanoGPT's train.py saves, and the scripts that descend from it: tensors and plain values, or no."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mhcnb.errors import CheckpointError, ConfigError
from mhcnb.models.gpt import GPT

ARGS = {"n_layer": "layers", "n_embd": "width", "block_size": "block_size", "vocab_size": "vocab_size", "bias": "bias"}
TRAIN = {  # nanoGPT's name -> ours; the rest of its config goes to env.json
    "batch_size": "micro_batch",
    "gradient_accumulation_steps": "accumulation",
    "learning_rate": "lr",
    "min_lr": "min_lr",
    "warmup_iters": "warmup",
    "weight_decay": "weight_decay",
    "grad_clip": "clip",
    "eval_interval": "eval_every",
    "eval_iters": "eval_batches",
}


class Ckpt(NamedTuple):
    """model: {name: tensor}; args: its sizes; config: how it was trained, so far in `step` updates; loss: the last one
    of validation. `project` wrote the file."""

    file: Path
    project: str
    model: Mapping[str, Tensor]
    args: Mapping[str, Any]
    step: int
    loss: float | None
    config: Mapping[str, Any]


def read_ckpt(file: Path, project: str) -> Ckpt:
    """What a ckpt.pt holds. Only tensors and plain values are read: anything else in the file is refused by name and
    never built. Raises CheckpointError."""
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file; give the ckpt.pt that {project}'s train.py wrote")
    stored = _load(file)
    for key in ("model", "model_args"):
        if not isinstance(stored, dict) or not isinstance(stored.get(key), Mapping):
            got = f"its keys: {', '.join(map(str, stored)) or 'none'}" if isinstance(stored, dict) else type(stored)
            raise CheckpointError(f"{file} has no {key}: expected the dict that {project}'s train.py saves; {got}")
    step, config = stored.get("iter_num", 0), stored.get("config")
    if type(step) is not int or step < 0:
        raise CheckpointError(f"{file}: iter_num = {step!r}; expected a whole number")
    loss = stored.get("best_val_loss")  # train.py sets it at every save, to the loss of what it saves
    loss = float(loss) if isinstance(loss, int | float) or (isinstance(loss, Tensor) and loss.numel() == 1) else None
    config = config if isinstance(config, Mapping) else {}
    return Ckpt(file, project, stored["model"], stored["model_args"], step, loss, config)


def _load(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file may make the reader fail in any way
        found = re.search(r"(?:GLOBAL|function|class) ([\w.]+)", str(error))
        if found:
            raise CheckpointError(
                f"{file} holds {found[1]}, which is neither a tensor nor a plain value; it was not built, for that may "
                "run foreign code. Save model, model_args, iter_num and config alone, as plain values, and import that"
            ) from None
        raise CheckpointError(f"{file} cannot be read as a checkpoint of torch.save: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"[:200]


def heads_of(ckpt: Ckpt, given: int | None = None) -> int:
    """The number of attention heads, which no tensor shows: that of model_args, else `given`. Raises CheckpointError,
    ConfigError where the two differ."""
    heads = ckpt.args.get("n_head", given)
    if heads is None:
        hint = "; give --heads" if ckpt.project == "mhc-lite" else ""
        raise CheckpointError(f"{ckpt.file}: model_args has no n_head, and no tensor shows it{hint}")
    if given not in (None, heads):
        raise ConfigError(f"{ckpt.file}: model_args say n_head {heads}, --heads says {given}; leave --heads out")
    if type(heads) is not int or heads < 1:
        raise CheckpointError(f"{ckpt.file}: n_head = {heads!r}; expected a whole number from 1 on")
    return heads


def require_args(ckpt: Ckpt, model: GPT) -> None:
    """What the file says of itself must be what its tensors are. Raises CheckpointError."""
    sizes, args = model.config.model_dump(), ckpt.args
    wrong = [f"{a} {args[a]!r}, tensors {sizes[b]}" for a, b in ARGS.items() if a in args and args[a] != sizes[b]]
    if wrong:
        raise CheckpointError(f"{ckpt.file}: model_args and tensors differ: {'; '.join(wrong)}")


def training(ckpt: Ckpt) -> dict[str, Any]:
    """The section `train` of a configuration, as far as our fields go; steps are those made so far."""
    train: dict[str, Any] = {"lr": 6e-4} | {
        ours: ckpt.config[theirs] for theirs, ours in TRAIN.items() if theirs in ckpt.config
    }
    if {"beta1", "beta2"} <= ckpt.config.keys():
        train["betas"] = [ckpt.config["beta1"], ckpt.config["beta2"]]
    return train | {"steps": max(1, ckpt.step)}
