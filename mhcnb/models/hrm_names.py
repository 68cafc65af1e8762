"""The settings of the original HRM and its public guide, each for a setting of this kit; see mhcnb.renames."""

from collections.abc import Callable
from typing import Any

from mhcnb.errors import ConfigError
from mhcnb.renames import Rename

LOSSES = {"stablemax_cross_entropy": "stablemax", "softmax_cross_entropy": "softmax"}
TYPES = {"bfloat16": "bfloat16", "float32": "float32"}


def _micro_batch(rows: Any, stands: Any, final: Callable[[str], Any]) -> int:
    """The rows of one of the micro-batches that make a global batch."""
    parts = final("train.accumulation") or 1
    if any(isinstance(x, bool) or not isinstance(x, int) or x < 1 for x in (rows, parts)) or rows % parts:
        raise ConfigError(f"expected a number of rows divisible by train.accumulation ({parts!r})")
    return rows // parts


def _least_rate(ratio: Any, stands: Any, final: Callable[[str], Any]) -> float:
    """The rate at the end, of the rate that the run has."""
    rate = final("train.lr")
    if any(isinstance(x, bool) or not isinstance(x, int | float) or not 0 <= x <= 1 for x in (ratio, rate)):
        raise ConfigError(f"expected a number from 0 to 1, the share of train.lr ({rate!r}) that is left at the end")
    return ratio * rate


RENAMES = (
    Rename("data_path", "data.root"),
    Rename("epochs", "train.epochs", "passes over the original puzzles, whatever their augmentations"),
    Rename("eval_interval", "data.epochs_per_iteration", "the run is evaluated after each where train.eval_every is 0"),
    Rename(
        "global_batch_size", "train.micro_batch", "times train.accumulation, over all processes", derive=_micro_batch
    ),
    Rename("lr", "train.lr"),
    Rename("lr_min_ratio", "train.min_lr", "times train.lr", derive=_least_rate),
    Rename("lr_warmup_steps", "train.warmup"),
    Rename("weight_decay", "train.weight_decay"),
    Rename("puzzle_emb_lr", "train.puzzle_lr"),
    Rename("puzzle_emb_weight_decay", "train.puzzle_weight_decay"),
    Rename("checkpoint_every_eval", "train.save_evaluated"),
    Rename("arch.hidden_size", "model.width"),
    Rename("arch.H_layers", "model.H_layers"),
    Rename("arch.L_layers", "model.L_layers"),
    Rename("arch.H_cycles", "model.H_cycles"),
    Rename("arch.L_cycles", "model.L_cycles"),
    Rename("arch.num_heads", "model.heads"),
    Rename("arch.expansion", "model.expansion"),
    Rename("arch.pos_encodings", "model.positions"),
    Rename("arch.rope_theta", "model.rope_theta"),
    Rename("arch.rms_norm_eps", "model.norm_eps"),
    Rename("arch.puzzle_emb_ndim", "model.puzzle_width"),
    Rename("arch.halt_max_steps", "model.halt_max_steps"),
    Rename("arch.halt_exploration_prob", "model.halt_exploration"),
    Rename("arch.forward_dtype", "train.dtype", values=TYPES),
    Rename("arch.loss.loss_type", "objective.loss", values=LOSSES),
)
