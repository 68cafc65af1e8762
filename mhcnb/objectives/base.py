"""What is learned from a model's output. Losses live here, not in models and not in the loop."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from mhcnb.models.base import Batch, Model
from mhcnb.section import Named


class Clock(NamedTuple):
    """All randomness is a function of these and of the index in the global batch, where that of the first row at hand
    is `row`."""

    seed: int
    step: int
    row: int = 0


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
    shown: ClassVar[tuple[str, ...]] = ()  # shares among them, told beside the losses and kept in summary.json

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

    def derived(self, found: Mapping[str, float]) -> dict[str, float]:
        """What follows from the metrics of a whole evaluation."""
        return {}

    def say(self, found: Mapping[str, float]) -> str:
        """The metrics of an evaluation in words; of more than those that are `shown`, where there is more to say."""
        return ", ".join([f"loss {found['loss']:.4f}", *self.shares(found)])

    def shares(self, found: Mapping[str, float]) -> list[str]:
        """`exact accuracy 31.2%` for each that is shown and there."""
        return [f"{name.replace('_', ' ')} {found[name]:.1%}" for name in self.shown if name in found]
