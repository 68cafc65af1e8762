"""What a training process holds, and what it does with one micro-batch."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mhcnb.config import RunConfig
from mhcnb.data.base import Source
from mhcnb.models.base import Batch, Model
from mhcnb.objectives.base import Clock, Objective, Step
from mhcnb.run import Run
from mhcnb.training.averages import Averages
from mhcnb.training.distributed import Share, World
from mhcnb.training.track import Track


@dataclass
class Session:
    """One process's parts of a run. `model` holds the weights; `wrapped` is the same behind compile and DDP."""

    config: RunConfig
    run: Run
    world: World
    share: Share
    device: torch.device
    dtype: torch.dtype
    source: Source
    objective: Objective
    model: Model
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    track: Track
    stack: dict[str, Any]
    averages: Averages | None

    @property
    def leads(self) -> bool:
        """Whether this process writes the run folder."""
        return self.world.rank == 0

    @property
    def tokens_per_step(self) -> int:
        """Of the global batch; its rows where the model knows no tokens."""
        train = self.config.train
        return train.micro_batch * train.accumulation * getattr(self.config.model, "block_size", 1)

    def autocast(self) -> torch.autocast:
        """Mixed precision as configured; nothing in float32."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def averaged(self) -> AbstractContextManager[None]:
        """The model with the weights that are evaluated and kept, for a while."""
        return self.averages.in_place() if self.averages else nullcontext()

    def forward_backward(self, batch: Batch, carry: Any, clock: Clock, row: int, sync: bool) -> Step:
        """One micro-batch, whose first row in the global batch is `row`: adds to the gradients, those of the loss sum
        over `nominal`. They travel between ranks where `sync`."""
        clock = clock._replace(row=row)
        torch.manual_seed(dropout_seed(clock))
        batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        alone = not sync and self.world.size > 1
        with self.wrapped.no_sync() if alone else nullcontext():  # type: ignore[operator]
            with self.autocast():
                out = self.objective.step(self.wrapped, batch, carry, clock)  # type: ignore[arg-type]
            self.scaler.scale(out.loss_sum / self.nominal(batch)).backward()
        return out

    def nominal(self, batch: Batch) -> float:
        """About the count of the global batch, known before it is counted: keeps float16 gradients in range."""
        return float(batch["inputs"].numel() * self.share.steps * self.world.size)


def dropout_seed(clock: Clock) -> int:
    """A function of (seed, step, first row): neither rank nor history decides what is dropped."""
    return (clock.seed * 1_000_003 + clock.step) * 1_000_003 + clock.row
