"""Optimizers from a model's parameter groups, and the one pass over gradients between backward and update."""

import torch
from torch import Tensor

from mhcnb.config import TrainConfig
from mhcnb.models.base import Model


def build_optimizer(model: Model, train: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over the model's groups; each keeps its name and lr_mult."""
    groups = [
        {
            "params": group["params"],
            "name": group["name"],
            "lr_mult": group["lr_mult"],
            "weight_decay": train.weight_decay if group["decay"] else 0.0,
        }
        for group in model.param_groups()
    ]
    fused = next(model.parameters()).device.type in ("cuda", "cpu")
    return torch.optim.AdamW(groups, lr=train.lr, betas=train.betas, fused=fused)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The schedule's rate, times each group's multiplier."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_mult"]


def scale_and_clip(parameters: list[Tensor], factor: Tensor, clip: float) -> Tensor:
    """Multiplies all gradients by `factor`, then down to a total norm of `clip` (0: not). Returns the norm between."""
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads) * factor
    if clip:
        factor = factor * (clip / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(grads, factor)  # pyright: ignore[reportPrivateImportUsage]
    return norm
