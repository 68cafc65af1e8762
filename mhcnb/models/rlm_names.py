"""The settings of the public RLM-mHC guide, each for a setting of this kit; see mhcnb.renames."""

from collections.abc import Callable
from typing import Any

from mhcnb.errors import ConfigError
from mhcnb.renames import Rename

LARGE = 1e100  # a product of two such is still a float
RECOMPUTE = {True: "block", False: "none"}


def _connection(enabled: str, stands: Any, final: Callable[[str], Any]) -> str:
    """mhc for a residual model, or where no connection is named; any other connection with streams stays."""
    return stands if enabled == "mhc" and stands not in (None, "residual") else enabled


def _least_rate(ratio: Any, stands: Any, final: Callable[[str], Any]) -> float:
    """The rate at the end, of the rate that the run has."""
    rate = final("train.lr")
    if any(isinstance(x, bool) or not isinstance(x, int | float) or not abs(x) < LARGE for x in (ratio, rate)):
        raise ConfigError(f"expected a number, the share of train.lr ({rate!r}) that is left at the end")
    return ratio * rate


RENAMES = (
    Rename("model.hidden_dim", "model.width"),
    Rename("model.num_layers", "model.layers"),
    Rename("model.num_heads", "model.heads"),
    Rename("model.max_seq_len", "model.block_size"),
    Rename(
        "model.mhc_enabled",
        "connection.name",
        "a connection with streams that is chosen already stays",
        values={True: "mhc", False: "residual"},
        derive=_connection,
    ),
    Rename("model.mhc_flows", "connection.streams", off="model.mhc_enabled"),
    Rename("model.mhc_sinkhorn_iters", "connection.iterations", "of mhc", off="model.mhc_enabled"),
    Rename("model.gradient_checkpointing", "train.recompute", values=RECOMPUTE),
    Rename("data.train_path", "data.root", "a .jsonl, .jsonl.gz or .txt is prepared once, before training"),
    Rename("data.max_length", "model.block_size"),
    Rename("training.optimizer.type", "", "the optimizer of this kit", values={"adamw": None}),
    Rename("training.optimizer.lr", "train.lr"),
    Rename("training.optimizer.weight_decay", "train.weight_decay"),
    Rename("training.optimizer.betas", "train.betas"),
    Rename("training.batch_size", "train.micro_batch", "rows; times accumulation, whatever the number of processes"),
    Rename("training.gradient_accumulation_steps", "train.accumulation", "shared out over the processes"),
    Rename("training.max_steps", "train.steps"),
    Rename("training.max_grad_norm", "train.clip", "0: no clipping"),
    Rename(
        "training.mixed_precision", "train.dtype", values={"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
    ),
    Rename("training.gradient_checkpointing", "train.recompute", values=RECOMPUTE),
    Rename("training.scheduler.type", "train.schedule", "cosine, linear, constant or wsd"),
    Rename("training.scheduler.warmup_steps", "train.warmup"),
    Rename("training.scheduler.min_lr_ratio", "train.min_lr", "times train.lr", derive=_least_rate),
    Rename("training.save_steps", "train.save_every"),
    Rename("training.logging_steps", "log.every"),
    Rename("training.wandb.project", "log.wandb"),
    Rename("training.wandb.entity", "log.wandb_entity"),
)
