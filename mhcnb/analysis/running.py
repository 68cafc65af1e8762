"""Statistics of many series of numbers that grow together, in memory that does not grow with them."""

import torch
from torch import Tensor

SHARE = 6  # 2^6 bins an octave: a bin's middle is within 1/128 of every value in it
LOWEST, HIGHEST = -40, 64  # octaves of the distance from the reference: 1e-12 to 1e19
SIDE = (HIGHEST - LOWEST) << SHARE
SHIFT = 52 - SHARE
FIRST = (1023 + LOWEST) << SHARE  # of a float64's leading bits: sign 0, exponent, start of the fraction


class Running:
    """Mean, least, largest, worst token and quantiles of S series, to which values come in blocks.

    Quantiles come from a histogram of fixed size whose bins are finest around the series' `references` [S]: what is
    given is within 1 % of the true quantile's distance from its reference (or 1e-12, below that). All else is exact.
    """

    def __init__(self, references: Tensor, quantiles: bool = True) -> None:
        S = len(references)
        self.references = references.double()
        self.count = 0
        self.sums = torch.zeros(S, dtype=torch.float64)
        self.least = torch.full((S,), torch.inf, dtype=torch.float64)
        self.largest = -self.least
        self.furthest = torch.full((S,), -1.0, dtype=torch.float64)
        self.worst = torch.full((S,), -1)
        self.bins = torch.zeros(S, 2 * SIDE if quantiles else 0, dtype=torch.int32)

    def add(self, values: Tensor) -> None:
        """Appends values [S, T]; the first of all has index 0."""
        offset = values - self.references[:, None]
        away = offset.abs()
        top, at = away.max(1)
        newer = (top > self.furthest) | (top.isnan() & ~self.furthest.isnan())
        self.furthest = torch.where(newer, top, self.furthest)
        self.worst = torch.where(newer, at + self.count, self.worst)
        self.count += values.shape[1]
        self.sums += values.sum(1)
        self.least = torch.minimum(self.least, values.amin(1))  # both hand nan on
        self.largest = torch.maximum(self.largest, values.amax(1))
        if self.bins.numel():
            index = ((away.view(torch.int64) >> SHIFT) - FIRST).clamp_(0, SIDE - 1)
            index = torch.where(offset < 0, SIDE - 1 - index, SIDE + index)
            self.bins.scatter_add_(1, index, torch.ones((), dtype=torch.int32).expand_as(index))

    def column(self, name: str) -> Tensor:
        """[S]: mean, min, max, worst (the index of the value furthest from the reference), or p50, p99, ..."""
        known = dict(mean=self.sums / self.count, min=self.least, max=self.largest, worst=self.worst)
        return known[name] if name in known else self.quantile(int(name.removeprefix("p")) / 100)

    def quantile(self, share: float) -> Tensor:
        """[S]: the value that at least this share of values does not exceed; nan where any value is."""
        below = self.bins.cumsum(1, dtype=torch.int32)
        rank = max(1, -int(-share * self.count // 1))
        index = torch.searchsorted(below, torch.full((len(below), 1), rank, dtype=torch.int32)).squeeze(1)
        i = torch.where(index < SIDE, SIDE - 1 - index, index - SIDE)
        edges = torch.stack([i + FIRST, i + FIRST + 1]) << SHIFT
        middle = edges.view(torch.float64).mean(0)
        value = self.references + torch.where(index < SIDE, -middle, middle)
        value = torch.minimum(torch.maximum(value, self.least), self.largest)
        return torch.where(self.sums.isnan(), torch.nan, value)
