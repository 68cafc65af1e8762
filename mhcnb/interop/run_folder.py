"""A checkpoint of another project as a run folder, so that whatever reads runs reads it too."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from mhcnb import registry
from mhcnb.config import RunConfig, as_dict, build_config
from mhcnb.data.tokenizer import open_tokenizer
from mhcnb.errors import DataError
from mhcnb.interop import mhc_lite, nanogpt
from mhcnb.interop.ckpt import Ckpt, heads_of, read_ckpt, require_args, training
from mhcnb.interop.llama import read_llama
from mhcnb.layers.site import sites
from mhcnb.models.gpt import GPT
from mhcnb.run import Run
from mhcnb.training.checkpoint import Snapshot, copied, write


class Imported(NamedTuple):
    """What a run folder is made of: weights under our names, a configuration, and where they came from."""

    tensors: dict[str, Tensor]
    config: RunConfig
    step: int
    loss: float | None  # of validation, as they measured it
    origin: dict[str, Any]  # format, file or folder, and what they say of themselves; for env.json
    tokenizer: Path | None = None


def import_mhc_lite(file: Path, out: Path, heads: int | None = None, data: str | None = None) -> Run:
    """A finished run with one checkpoint from the ckpt.pt that mhc-lite's train.py writes. The number of heads is that
    of its model_args; `data` becomes data.root (None: DATA_ROOT at the time of reading).

    Raises CheckpointError for a file that is none, or holds more than tensors and plain values; ConfigError, DataError
    where heads or data do not fit; RunError where `out` holds a run. Nothing is written before all is read.
    """
    ckpt = read_ckpt(file, "mhc-lite")
    return _import_gpt(ckpt, mhc_lite.load_gpt(ckpt.model, heads=heads_of(ckpt, heads)), out, data)


def import_nanogpt(file: Path, out: Path, data: str | None = None) -> Run:
    """A finished run of residual connections with one checkpoint from the ckpt.pt that nanoGPT's train.py writes;
    otherwise as `import_mhc_lite`, and a fork's model_args are refused too."""
    ckpt = read_ckpt(file, "nanoGPT")
    nanogpt.require_known(ckpt)
    return _import_gpt(ckpt, nanogpt.load_gpt(ckpt.model, heads=heads_of(ckpt)), out, data)


def import_llama(folder: Path, out: Path, data: str | None = None) -> Run:
    """A finished run of residual connections with one checkpoint, in float32, from a Hugging Face folder of a Llama:
    config.json and safetensors. `data` becomes data.root; a tokenizer.json beside the weights is kept in the run and
    becomes data.tokenizer, so that text is prepared for this model.

    Raises CheckpointError where the folder is not such, or holds what this model does not compute; else as
    `import_mhc_lite`.
    """
    llama = read_llama(folder)
    tokenizer = str(llama.tokenizer) if llama.tokenizer else None
    if tokenizer:
        open_tokenizer(tokenizer)
    values = {"preset": "llama", "connection": {"name": "residual"}, "model": as_dict(llama.config)}
    values["train"] = {"lr": 3e-4, "steps": 1}
    config = _config(values, {"root": data, "tokenizer": tokenizer}, folder / "config.json")
    origin = {"format": "llama", "folder": str(folder), "config": llama.stored}
    return _write(Imported(llama.tensors(), config, 0, None, origin, llama.tokenizer), out)


def _import_gpt(ckpt: Ckpt, model: GPT, out: Path, data: str | None) -> Run:
    require_args(ckpt, model)
    connection = next(iter(sites(model).values())).connection.config
    values = {
        "preset": ckpt.project.lower(),
        "seed": ckpt.config.get("seed", 0),
        "connection": as_dict(connection),
        "model": as_dict(model.config) | {"dropout": ckpt.args.get("dropout", 0.0)},
        "train": training(ckpt),
    }
    config = _config(values, {"root": data}, ckpt.file)
    origin = {"format": ckpt.project, "file": str(ckpt.file), "model_args": ckpt.args, "config": ckpt.config}
    return _write(Imported(copied(model.state_dict()), config, ckpt.step, ckpt.loss, origin), out)


def _config(values: Mapping[str, Any], data: Mapping[str, Any], where: Path) -> RunConfig:
    """The run as they trained it, as far as our fields go; with data of its vocabulary, where any are given."""
    sections = {"data": {"name": "shards", **data}, "objective": {"name": "lm"}}
    config = build_config({**values, **sections}, str(where))
    if data["root"] is not None:
        _require_data(config)
    return config


def _require_data(config: RunConfig) -> None:
    """Data of another tokenizer are refused, where that is known, else those of another vocabulary: nothing tells then
    whether the same ids mean the same text."""
    source, section = registry.load("data", config.data.name)(config), config.data
    size: int = config.model.vocab_size  # type: ignore[attr-defined]
    theirs = None if section.tokenizer else source.vocab_size  # type: ignore[attr-defined]
    if theirs is not None and -(-theirs // 64) * 64 != -(-size // 64) * 64:
        raise DataError(
            f"data.root = {section.root}: a vocabulary of {theirs}, the model has {size}: "  # type: ignore[attr-defined]
            "the ids would mean other text than it was trained on; give shards made with its tokenizer"
        )
    source.check(config)


def _write(what: Imported, out: Path) -> Run:
    """The run folder. Raises RunError where `out` holds a run."""
    config, step = what.config, what.step
    if what.tokenizer:
        own = config.data.model_copy(update={"tokenizer": str(out / what.tokenizer.name)})
        config = config.model_copy(update={"data": own})
    Run(out).require_new()
    run = Run.create(out, config)
    try:
        if what.tokenizer:
            _keep(what.tokenizer, out)
        write(run, Snapshot(step, config, what.tensors, None, {}, {}))
        summary = {"connection": config.connection.name, "model": config.model.name, "preset": config.preset}
        summary |= {"seed": config.seed, "steps": step, "final_val_loss": what.loss}
        run.write_summary(summary | {"params": sum(tensor.numel() for tensor in what.tensors.values())})
        run.write_env({"imported": what.origin | {"val_loss": what.loss}})
        run.set_status("done", step, f"imported from {what.origin['format']}")
    finally:
        run.release()
    return run


def _keep(tokenizer: Path, out: Path) -> None:
    """The tokenizer as it is, and what says which of its tokens ends a text."""
    for file in (tokenizer, tokenizer.with_name("tokenizer_config.json")):
        if file.is_file():
            shutil.copyfile(file, out / file.name)
