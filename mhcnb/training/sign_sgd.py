"""The optimizer of tables: a step of fixed length along the sign of the gradient, for the rows that were looked up."""

from typing import Any

import torch
from torch import Tensor

from mhcnb.layers.table import Table
from mhcnb.training import distributed


class SignSGD(torch.optim.Optimizer):
    """w ← w·(1 - lr·decay) - lr·sign(Σ g) for each identifier in the global batch, Σ over all that looked it up: on
    all ranks, in all micro-batches. A sum of 0 only decays; the other rows stay as they are. All ranks step together.
    """

    def __init__(self, tables: list[Table], group: dict[str, Any], lr: float) -> None:
        super().__init__([group | {"params": [table.rows for table in tables]}], dict(lr=lr, weight_decay=0.0))
        self._tables = tables
        self.zero_grad()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One update of what was looked up since `zero_grad`."""
        (group,) = self.param_groups
        for table in self._tables:
            if pairs := [(ids, found.grad) for ids, found in table.looked_up or () if found.grad is not None]:
                ids, grads = (distributed.joined(torch.cat(parts)) for parts in zip(*pairs, strict=True))
                _update(table.rows, ids, grads, group["lr"], group["weight_decay"])

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets what was looked up."""
        for table in self._tables:
            table.forget()


def _update(rows: Tensor, ids: Tensor, grads: Tensor, lr: float, decay: float) -> None:
    """rows [ids, d] in place; ids [b], grads [b, d]."""
    if len(rows) == 1:  # of a Sudoku
        rows.mul_(1 - lr * decay).sub_(grads.sum(0).sign_(), alpha=lr)
        return
    found, place = ids.unique(return_inverse=True)
    total = grads.new_zeros(len(found), grads.shape[-1]).index_add_(0, place, grads)
    rows[found] = rows[found].mul_(1 - lr * decay).sub_(total.sign_(), alpha=lr)
