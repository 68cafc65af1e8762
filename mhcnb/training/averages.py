"""Averages of the weights over the updates: what is evaluated and kept where train.ema asks for it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from mhcnb.models.base import Model

TRAINED = "trained"  # in a checkpoint's optimizer.pt: the weights, where its model has the averages


class Averages:
    """w̄ ← ema · w̄ + (1 - ema) · w after every update, beginning at the weights of the start. All that the model's
    state_dict has of floating point, so tables that are no parameters, too."""

    def __init__(self, model: Model, ema: float) -> None:
        self.ema = ema
        self.weights = {name: x for name, x in model.state_dict().items() if x.is_floating_point()}
        self.means = {name: x.clone() for name, x in self.weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """To be called after each update."""
        torch._foreach_lerp_(list(self.means.values()), list(self.weights.values()), 1 - self.ema)  # pyright: ignore

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has its averages for a while."""
        trained = {name: x.clone() for name, x in self.weights.items()}
        self._put(self.means)
        try:
            yield
        finally:
            self._put(trained)

    def resume(self, trained: Mapping[str, Tensor]) -> None:
        """From a checkpoint: the model has its averages, which stay, and gets the weights that are trained."""
        self.means = {name: x.clone() for name, x in self.weights.items()}
        self._put(trained)

    def _put(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, x in self.weights.items():
                x.copy_(values[name])
