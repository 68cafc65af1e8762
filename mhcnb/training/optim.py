"""Optimizers from a model's parameter groups, and the one pass over gradients between backward and update."""

from typing import Any

import torch
from torch import Tensor

from mhcnb.config import TrainConfig
from mhcnb.connections.base import Connection
from mhcnb.connections.ends import Ends
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
        for group in _groups(model, train)
    ]
    fused = next(model.parameters()).device.type in ("cuda", "cpu")
    return torch.optim.AdamW(groups, lr=train.lr, betas=train.betas, fused=fused)


def _groups(model: Model, train: TrainConfig) -> list[dict[str, Any]]:
    """The model's groups; where connections have a rate of their own, each of them in two. Not otherwise: the state of
    an optimizer is that of its groups, and those of earlier runs are to be gone on with."""
    groups = model.param_groups()
    if train.connection_lr == 1:
        return groups
    theirs = {id(p) for module in model.modules() if isinstance(module, Connection | Ends) for p in module.parameters()}
    split = []
    for group in groups:
        parts = {own: [p for p in group["params"] if (id(p) in theirs) == own] for own in (False, True)}
        split.append(group | {"params": parts[False]})
        multiplier = group["lr_mult"] * train.connection_lr
        split.append(group | {"params": parts[True], "name": f"{group['name']} of connections", "lr_mult": multiplier})
    return [group for group in split if group["params"]]


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
