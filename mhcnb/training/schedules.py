"""Learning rates as functions of the update."""

import math

from mhcnb.config import TrainConfig


def cosine(train: TrainConfig, step: int) -> float:
    """The rate of update `step` (from 1): a linear ramp over `warmup` updates, then half a cosine from lr to min_lr."""
    done = step - 1
    if done < train.warmup:
        return train.lr * step / (train.warmup + 1)
    progress = min(1.0, (done - train.warmup) / max(1, train.steps - train.warmup))
    return train.min_lr + (train.lr - train.min_lr) * (1 + math.cos(math.pi * progress)) / 2
