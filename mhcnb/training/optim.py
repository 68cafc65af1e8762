"""Optimizers from a model's parameter groups, and the one pass over gradients between backward and update."""

from typing import Any

import torch
from torch import Tensor

from mhcnb.config import TrainConfig
from mhcnb.connections.base import Connection
from mhcnb.connections.ends import Ends
from mhcnb.layers.table import Table
from mhcnb.models.base import Model
from mhcnb.training.adam_atan2 import AdamAtan2
from mhcnb.training.sign_sgd import SignSGD


def build_optimizer(model: Model, train: TrainConfig) -> torch.optim.Optimizer:
    """The optimizers that the model's groups name, as one; each group keeps its name and lr_mult."""
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for group in _groups(model, train):
        decay = group["weight_decay"] if group["decay"] else 0.0
        kept = {"params": group["params"], "name": group["name"], "lr_mult": group["lr_mult"], "weight_decay": decay}
        by_kind.setdefault(group["optimizer"], []).append(kept)
    made = {kind: _optimizer(kind, groups, model, train) for kind, groups in by_kind.items()}
    return Together(made) if len(made) > 1 else next(iter(made.values()))


def _optimizer(kind: str, groups: list[dict[str, Any]], model: Model, train: TrainConfig) -> torch.optim.Optimizer:
    if kind == "sign_sgd":
        (group,) = groups
        return SignSGD([module for module in model.modules() if isinstance(module, Table)], group, train.lr)
    if kind == "adam_atan2":
        return AdamAtan2(groups, train.lr, train.betas)
    fused = next(model.parameters()).device.type in ("cuda", "cpu")
    return torch.optim.AdamW(groups, lr=train.lr, betas=train.betas, fused=fused)


class Together(torch.optim.Optimizer):
    """Several optimizers, by name, that step as one."""

    def __init__(self, parts: dict[str, torch.optim.Optimizer]) -> None:
        self.parts = parts
        self._gather()

    def _gather(self) -> None:
        self.param_groups = [group for part in self.parts.values() for group in part.param_groups]

    def step(self, closure: Any = None) -> None:
        """One update of each."""
        for part in self.parts.values():
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Of each."""
        for part in self.parts.values():
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Of each, by name."""
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Back to what `state_dict` gave."""
        for name, part in self.parts.items():
            part.load_state_dict(state_dict[name])
        self._gather()


def _groups(model: Model, train: TrainConfig) -> list[dict[str, Any]]:
    """The model's groups, with weight_decay; where connections have a rate of their own, each of them in two. Not
    otherwise: the state of an optimizer is that of its groups, and those of earlier runs are to be gone on with."""
    groups = [_rated(group, train) for group in model.param_groups()]
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


def _rated(group: dict[str, Any], train: TrainConfig) -> dict[str, Any]:
    """Tables have a rate and a decay of their own where these are given."""
    if group["optimizer"] != "sign_sgd":
        return group | {"weight_decay": train.weight_decay}
    rate = group["lr_mult"] if train.puzzle_lr is None else train.puzzle_lr / train.lr
    decay = train.weight_decay if train.puzzle_weight_decay is None else train.puzzle_weight_decay
    return group | {"lr_mult": rate, "weight_decay": decay}


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
