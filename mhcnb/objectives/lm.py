"""Next-token prediction."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mhcnb.models.base import Batch, Model, Output
from mhcnb.objectives.base import Clock, Objective, Step
from mhcnb.section import Named

IGNORED = -100
# logits at a time: enough to make it worth while to go over the gradient of the weight once more
BLOCK = {"cpu": 1 << 23}
LARGE_BLOCK = 1 << 27


class LMConfig(Named):
    """Nothing to choose."""

    name: str = "lm"


class LM(Objective):
    """Mean cross entropy over the targets that are not -100, in nats. Logits exist by blocks of tokens alone."""

    Config = LMConfig
    metrics = ("loss", "accuracy", "top5_accuracy")

    def step(self, model: Model, batch: Batch, carry: Any, clock: Clock) -> Step:
        output = model(batch, carry)
        loss, count = head_cross_entropy(output.hidden, output.head.weight, batch["targets"])
        return Step(loss, count, {"loss": (loss.detach(), count)}, output.carry)

    def evaluate(self, model: Model, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """loss, accuracy (the most likely token is right) and top5_accuracy (right among the five most likely)."""
        output, targets = model(batch), batch["targets"].flatten()
        sums = torch.stack([torch.stack(scores) for scores in _scores(output, targets)]).sum(0)
        count = (targets != IGNORED).sum()
        return {name: (total, count) for name, total in zip(self.metrics, sums, strict=True)}

    def derived(self, found: Mapping[str, float]) -> dict[str, float]:
        return {"perplexity": math.exp(found["loss"])}

    def say(self, found: Mapping[str, float]) -> str:
        return (
            f"loss {found['loss']:.4f} nats a token (perplexity {found['perplexity']:.2f}); the next token is the "
            f"most likely one {found['accuracy']:.1%} of the time, among the five most likely "
            f"{found['top5_accuracy']:.1%}"
        )


def cross_entropy(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(sum of -log p over targets, their number), in at least float32. logits [*b, v], targets [*b]."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    flat, at = logits.flatten(0, -2).to(wide), targets.flatten()
    return F.cross_entropy(flat, at, ignore_index=IGNORED, reduction="sum"), (at != IGNORED).sum()


def head_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """`cross_entropy` of the logits hidden [*b, d] @ weight [v, d]ᵀ, of which a block of tokens at a time exists. The
    product is one of autocast's. Backward can come once."""
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    with torch.autocast(kind, enabled=False):
        at = targets.flatten()
        loss: Any = _HeadCrossEntropy.apply(hidden.flatten(0, -2), weight, at, dtype)
        return loss, (at != IGNORED).sum()


class _HeadCrossEntropy(torch.autograd.Function):
    """Σ lse(l) - l[target], l = h Wᵀ, over hidden h [T, d]. dl = softmax(l) - onehot(target) does not wait for
    backward, which would have to make l again: dh = dl W and dW = dlᵀ h are made at once, and scaled there."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
        h, W, wide = hidden.to(dtype), weight.to(dtype), torch.promote_types(dtype, torch.float32)
        kept, at = (targets != IGNORED).unsqueeze(-1), targets.clamp_min(0).unsqueeze(-1)
        total = h.new_zeros((), dtype=wide)
        dh = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        dW = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        for i, rows in enumerate(_blocks(h, W)):
            part, used, index = h[rows], kept[rows], at[rows]
            p = torch.log_softmax(part @ W.T, -1, dtype=wide)
            total -= p.gather(1, index).masked_fill_(~used, 0).sum()
            if dh is None and dW is None:
                continue
            dl = p.exp_().scatter_add_(1, index, p.new_full((), -1).expand(index.shape)).to(dtype)
            if dh is not None:
                dh[rows] = (dl @ W).mul_(used)
            if dW is not None:
                _add_product(dW, dl.T, part * used, first=i == 0)
        ctx.gradients = dh, dW
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("backward through head_cross_entropy came before; its gradients were given away then")
        dh, dW = (None if x is None else x.mul_(grads[0]) for x in gradients)
        return dh, dW, None, None


def _add_product(total: Tensor, a: Tensor, b: Tensor, first: bool) -> None:
    """total += a @ b, or total = a @ b where it is the first; rounded to the type of a and b, and added in total's."""
    if total.dtype == a.dtype:
        torch.addmm(total, a, b, beta=0 if first else 1, out=total)
    elif first:
        total.copy_(a @ b)
    else:
        total.add_(a @ b)


def _blocks(h: Tensor, weight: Tensor) -> Iterator[slice]:
    """The rows of h, so many at a time that their logits fill a block."""
    rows = max(1, BLOCK.get(h.device.type, LARGE_BLOCK) // len(weight))
    return (slice(i, i + rows) for i in range(0, max(len(h), 1), rows))


def _scores(output: Output, targets: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Sums over a block of tokens: of -log p, of those that are right, and of those among the five most likely."""
    hidden = output.hidden.flatten(0, -2)
    for rows in _blocks(hidden, output.head.weight):
        logits, at = output.head(hidden[rows]).float(), targets[rows]
        chosen = logits.gather(-1, at.clamp_min(0).unsqueeze(-1))
        rank = (logits > chosen).sum(-1).masked_fill(at == IGNORED, 5)
        loss, _ = cross_entropy(logits, at)
        yield loss, (rank < 1).sum().to(loss), (rank < 5).sum().to(loss)
