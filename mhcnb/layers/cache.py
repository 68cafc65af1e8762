"""What decoding keeps of the tokens that it has seen."""

import torch
from torch import Tensor, nn

from mhcnb.errors import DataError


class Cache:
    """Keys and values of every attention layer, so that a new token costs one position and not all before it.

    The rows of a batch grow together: a shorter prompt has padding [b] tokens before it, which nothing looks at and
    which have no position. For use without gradient; a model takes one as `model(batch, cache=cache)`.
    """

    def __init__(self, capacity: int, padding: Tensor | None = None) -> None:
        self.capacity, self.padding, self.length = capacity, padding, 0
        self._kept: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def extend(self, layer: nn.Module, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """k, v [b, h, t, k] of a layer's new tokens -> [b, h, length + t, k] of all it has seen. Raises DataError."""
        begin, end = self.length, self.length + k.shape[-2]
        if end > self.capacity:
            raise DataError(f"{end} tokens for a cache with room for {self.capacity}; make it larger")
        if layer not in self._kept:
            room = k.shape[0], k.shape[1], self.capacity, k.shape[3]
            self._kept[layer] = k.new_empty(room), v.new_empty(room)
        keys, values = self._kept[layer]
        keys[:, :, begin:end], values[:, :, begin:end] = k, v
        return keys[:, :, :end], values[:, :, :end]

    def advance(self, t: int) -> None:
        """All layers have seen t more tokens."""
        self.length += t

    def positions(self, t: int, device: torch.device) -> Tensor:
        """Of the next t tokens: [t], or [b, t] with padding."""
        places = torch.arange(self.length, self.length + t, device=device)
        return places if self.padding is None else (places - self.padding.unsqueeze(-1)).clamp_min(0)

    def mask(self, t: int, device: torch.device) -> Tensor | None:
        """What the next t tokens may look at, [b or 1, 1, t, length + t]; None where that is all before them."""
        if self.padding is None and (self.length == 0 or t == 1):
            return None
        keys = torch.arange(self.length + t, device=device)
        queries = keys[self.length :].unsqueeze(-1)
        if self.padding is None:
            return (keys <= queries)[None, None]
        real = keys >= self.padding[:, None, None]
        return ((keys <= queries) & (real | (keys == queries))).unsqueeze(1)  # itself: a softmax over nothing is nan
