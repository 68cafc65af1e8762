"""What is learned from a model's output. Losses live here, not in models and not in the loop."""

from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from mhcnb.models.base import Batch, Model
from mhcnb.section import Named


class Clock(NamedTuple):
    """All randomness is a function of these and of the index in the global batch."""

    seed: int
    step: int


class Step(NamedTuple):
    """loss_sum is what backward runs on; the loop divides it by count, summed over micro-batches and ranks."""

    loss_sum: Tensor
    count: Tensor
    metrics: dict[str, tuple[Tensor, Tensor]]  # name -> (sum, count)
    carry: Any


class Objective:
    """Turns one micro-batch into a Step. `model` may be wrapped (DDP, compiled)."""

    Config: ClassVar[type[Named]]
    metrics: ClassVar[tuple[str, ...]]  # what `evaluate` gives

    def __init__(self, config: Any) -> None:
        self.config = config

    def step(self, model: Model, batch: Batch, carry: Any, clock: Clock) -> Step:
        """The loss of one micro-batch."""
        raise NotImplementedError

    def after_update(self, clock: Clock) -> None:
        """Called after each optimizer step."""

    def evaluate(self, model: Model, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """{metric: (sum, count)} of one batch, `loss` among them."""
        raise NotImplementedError
