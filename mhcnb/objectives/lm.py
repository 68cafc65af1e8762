"""Next-token prediction."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mhcnb.models.base import Batch, Model
from mhcnb.objectives.base import Clock, Objective, Step
from mhcnb.section import Named

IGNORED = -100


class LMConfig(Named):
    """Nothing to choose."""

    name: str = "lm"


class LM(Objective):
    """Mean cross entropy over the targets that are not -100, in nats."""

    Config = LMConfig
    metrics = ("loss", "accuracy", "top5_accuracy")

    def step(self, model: Model, batch: Batch, carry: Any, clock: Clock) -> Step:
        output = model(batch, carry)
        loss, count = cross_entropy(output.logits, batch["targets"])
        return Step(loss, count, {"loss": (loss.detach(), count)}, output.carry)

    def evaluate(self, model: Model, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """loss, accuracy (the most likely token is right) and top5_accuracy (right among the five most likely)."""
        logits, targets = model(batch).logits.float(), batch["targets"]
        loss, count = cross_entropy(logits, targets)
        kept = targets != IGNORED
        chosen = logits.gather(-1, targets.clamp_min(0).unsqueeze(-1))
        rank = (logits > chosen).sum(-1)[kept]
        return {
            "loss": (loss, count),
            "accuracy": ((rank < 1).sum(), count),
            "top5_accuracy": ((rank < 5).sum(), count),
        }


def cross_entropy(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(sum of -log p over targets, their number), in at least float32."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    return loss, (targets != IGNORED).sum()
