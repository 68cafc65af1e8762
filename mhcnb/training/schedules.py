"""Learning rates as functions of the update, so that a run which goes on needs no state of a scheduler.

After the warm-up each but hrm is what torch's own scheduler of that name gives step by step, to rounding.
"""

import math

from mhcnb.config import TrainConfig


def rate_at(train: TrainConfig, step: int) -> float:
    """The rate of update `step` (from 1): a linear ramp over `warmup` updates, then from lr to min_lr by the schedule.

    cosine: half a period. linear: a straight line. constant: lr to the end. wsd (warm-up, stable, decay): lr, then a
    straight line over the last `decay` of all updates, or what the warm-up leaves of them. hrm: as the original HRM
    counts, the ramp ends at update `warmup` itself, and half a cosine period lies between it and the last update.
    """
    if train.schedule == "hrm":
        return _hrm(train, step)
    done = step - 1
    if done < train.warmup:
        return train.lr * step / (train.warmup + 1)
    begin = train.warmup
    if train.schedule == "wsd":
        begin = max(begin, train.steps - round(train.decay * train.steps))
    if train.schedule == "constant" or done < begin:
        return train.lr
    progress = min(1.0, (done - begin) / max(1, train.steps - begin))
    left = (1 + math.cos(math.pi * progress)) / 2 if train.schedule == "cosine" else 1 - progress
    return train.min_lr + (train.lr - train.min_lr) * left


def _hrm(train: TrainConfig, step: int) -> float:
    if step < train.warmup:
        return train.lr * step / train.warmup
    progress = (step - train.warmup) / max(1, train.steps - train.warmup)
    return train.min_lr + (train.lr - train.min_lr) * (1 + math.cos(math.pi * progress)) / 2
