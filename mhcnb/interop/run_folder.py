"""A checkpoint of another project as a run folder, so that whatever reads runs reads it too."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mhcnb import registry
from mhcnb.config import RunConfig, as_dict, build_config
from mhcnb.errors import CheckpointError, ConfigError, DataError
from mhcnb.interop.mhc_lite import load_gpt
from mhcnb.layers.site import sites
from mhcnb.models.gpt import GPT
from mhcnb.run import Run
from mhcnb.training.checkpoint import save

TRAIN = {  # mhc-lite's name -> ours; the rest of its config goes to env.json
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
ARGS = {"n_layer": "layers", "n_embd": "width", "block_size": "block_size", "vocab_size": "vocab_size", "bias": "bias"}


def import_mhc_lite(file: Path, out: Path, heads: int | None = None, data: str | None = None) -> Run:
    """A finished run with one checkpoint from the ckpt.pt that mhc-lite's train.py writes. The number of heads is that
    of its model_args; `data` becomes data.root (None: DATA_ROOT at the time of reading).

    Raises CheckpointError for a file that is none, or holds more than tensors and plain values; ConfigError, DataError
    where heads or data do not fit; RunError where `out` holds a run. Nothing is written before all is read.
    """
    stored = read_checkpoint(file)
    model = load_gpt(stored["model"], heads=_heads(stored["model_args"], heads, file))
    _require_args(stored["model_args"], model, file)
    step = stored.get("iter_num", 0)
    if type(step) is not int or step < 0:
        raise CheckpointError(f"{file}: iter_num = {step!r}; expected a whole number")
    config = _config(stored, model, data, file)
    if data is not None:
        _require_data(config)
    Run(out).require_new()
    run = Run.create(out, config)
    try:
        save(run, step, model, config)
        _describe(run, config, model, stored, step, file)
    finally:
        run.release()
    return run


def read_checkpoint(file: Path) -> dict[str, Any]:
    """The dict of a ckpt.pt: model and model_args, and what else is there. Only tensors and plain values are read:
    anything else in the file is refused by name and never built. Raises CheckpointError."""
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file; give the ckpt.pt that mhc-lite's train.py wrote")
    try:
        stored = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file may make the reader fail in any way
        found = re.search(r"(?:GLOBAL|function|class) ([\w.]+)", str(error))
        if found:
            raise CheckpointError(
                f"{file} holds {found[1]}, which is neither a tensor nor a plain value; it was not built, for that may "
                "run foreign code. Save model, model_args, iter_num and config alone, as plain values, and import that"
            ) from None
        raise CheckpointError(f"{file} cannot be read as a checkpoint of torch.save: {_first_line(error)}") from error
    for key in ("model", "model_args"):
        if not isinstance(stored, dict) or not isinstance(stored.get(key), Mapping):
            got = f"its keys: {', '.join(map(str, stored)) or 'none'}" if isinstance(stored, dict) else type(stored)
            raise CheckpointError(f"{file} has no {key}: expected the dict that mhc-lite's train.py saves; {got}")
    return stored


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"[:200]


def _heads(args: Mapping[str, Any], given: int | None, file: Path) -> int:
    heads = args.get("n_head", given)
    if heads is None:
        raise CheckpointError(f"{file}: model_args has no n_head, and no tensor shows it; give --heads")
    if given not in (None, heads):
        raise ConfigError(f"{file}: model_args say n_head {heads}, --heads says {given}; leave --heads out")
    if type(heads) is not int or heads < 1:
        raise CheckpointError(f"{file}: n_head = {heads!r}; expected a whole number from 1 on")
    return heads


def _require_args(args: Mapping[str, Any], model: GPT, file: Path) -> None:
    """What the file says of itself must be what its tensors are."""
    sizes = model.config.model_dump()
    wrong = [f"{a} {args[a]!r}, tensors {sizes[b]}" for a, b in ARGS.items() if a in args and args[a] != sizes[b]]
    if wrong:
        raise CheckpointError(f"{file}: model_args and tensors differ: {'; '.join(wrong)}")


def _config(stored: Mapping[str, Any], model: GPT, data: str | None, file: Path) -> RunConfig:
    """The run as mhc-lite trained it, as far as our fields go; steps are those made so far."""
    given = stored.get("config")
    given = given if isinstance(given, Mapping) else {}
    train = {"lr": 6e-4} | {ours: given[theirs] for theirs, ours in TRAIN.items() if theirs in given}
    if {"beta1", "beta2"} <= given.keys():
        train["betas"] = [given["beta1"], given["beta2"]]
    values = {
        "preset": "mhc-lite",
        "seed": given.get("seed", 0),
        "connection": as_dict(next(iter(sites(model).values())).connection.config),
        "model": as_dict(model.config) | {"dropout": stored["model_args"].get("dropout", 0.0)},
        "data": {"name": "shards", "root": data},
        "objective": {"name": "lm"},
        "train": train | {"steps": max(1, stored.get("iter_num", 0))},
    }
    return build_config(values, str(file))


def _require_data(config: RunConfig) -> None:
    """Data of another vocabulary are refused; nothing tells whether the same ids mean the same text."""
    source = registry.load("data", config.data.name)(config)
    size: int = config.model.vocab_size  # type: ignore[attr-defined]
    if source.vocab_size is not None and -(-source.vocab_size // 64) * 64 != -(-size // 64) * 64:
        raise DataError(
            f"data.root = {config.data.root}: a vocabulary of {source.vocab_size}, the model has {size}: "  # type: ignore[attr-defined]
            "the ids would mean other text than it was trained on; give shards made with its tokenizer"
        )
    source.check(config)


def _describe(run: Run, config: RunConfig, model: GPT, stored: Mapping[str, Any], step: int, file: Path) -> None:
    loss = stored.get("best_val_loss")  # train.py sets it at every save, to the loss of what it saves
    loss = float(loss) if isinstance(loss, int | float) or (isinstance(loss, Tensor) and loss.numel() == 1) else None
    summary = {"connection": config.connection.name, "model": config.model.name, "preset": config.preset}
    summary |= {"seed": config.seed, "steps": step, "final_val_loss": loss}
    run.write_summary(summary | {"params": sum(p.numel() for p in model.parameters())})
    origin = {"format": "mhc-lite", "file": str(file), "model_args": stored["model_args"]}
    run.write_env({"imported": origin | {"config": stored.get("config"), "val_loss": loss}})
    run.set_status("done", step, f"imported from {file.name} of mhc-lite")
