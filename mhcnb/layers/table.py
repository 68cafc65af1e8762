"""Vectors by identifier, of which a step touches only those of its batch."""

import torch
from torch import Tensor, nn


class Table(nn.Module):
    """rows [ids, d], zero at first. They are a buffer and no parameter: what a training step looked up is copied out
    beside the identifiers, and the gradients of these copies, one a row of the batch, are what the optimizer of
    tables takes, see training.sign_sgd. So neither a gradient nor a moment is as large as the table."""

    rows: Tensor

    def __init__(self, ids: int, d: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(ids, d))
        # ids [b] and their copies [b, d], a pair a pass; kept only once an optimizer is there, which empties it
        self.looked_up: list[tuple[Tensor, Tensor]] | None = None

    def forward(self, ids: Tensor) -> Tensor:
        """ids [b] -> [b, d]."""
        found = self.rows[ids]
        if self.looked_up is not None and self.training and torch.is_grad_enabled():
            self.looked_up.append((ids, found.requires_grad_()))
        return found

    def forget(self) -> None:
        """Drops what was looked up so far, and its gradients; from now on it is kept."""
        self.looked_up = []
