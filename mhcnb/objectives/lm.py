"""Next-token prediction."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mhcnb.models.base import Batch, Model
from mhcnb.objectives.base import Clock, Objective, Step
from mhcnb.section import Named

IGNORED = -100
BLOCK = 1 << 22  # logits: what is made of them on the way stays in a cache


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
    """(sum of -log p over targets, their number), in at least float32. logits [*b, v], targets [*b]."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    flat, at = logits.flatten(0, -2), targets.flatten()
    if torch.compiler.is_compiling():
        return F.cross_entropy(flat.to(wide), at, ignore_index=IGNORED, reduction="sum"), (at != IGNORED).sum()
    loss: Any = _CrossEntropy.apply(flat, at, wide)
    return loss, (at != IGNORED).sum()


class _CrossEntropy(torch.autograd.Function):
    """Σ lse(l) - l[target] over logits [T, v]; dl = softmax(l) - onehot(target). By blocks of rows, so that beside the
    logits, in the type they have, there is never more than their gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, wide: torch.dtype) -> Tensor:
        ctx.save_for_backward(logits, targets)
        ctx.wide, total = wide, logits.new_zeros((), dtype=wide)
        for part, at in _blocks(logits, targets):
            total += F.cross_entropy(part.to(wide), at, ignore_index=IGNORED, reduction="sum")
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        logits, targets = ctx.saved_tensors
        out = torch.empty_like(logits)
        scale = (grads[0] * (targets != IGNORED)).unsqueeze(-1)
        index = targets.clamp_min(0).unsqueeze(-1)
        minus = scale.new_full(index.shape, -1)
        for part, at, less, by, into in _blocks(logits, index, minus, scale, out):
            p = torch.softmax(part, -1, dtype=ctx.wide).scatter_add_(1, at, less)
            torch.mul(p, by, out=into)
        return out, None, None


def _blocks(logits: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """All by the same rows, BLOCK logits at a time."""
    rows = max(1, BLOCK // logits.shape[-1])
    return zip(*(x.split(rows) for x in (logits, *others)), strict=True)
