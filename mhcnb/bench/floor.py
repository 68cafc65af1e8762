"""The work that nobody can avoid, done in the same run and by nothing else: how fast this machine copies and
multiplies. What a contender takes beside it is how far it is from the floor."""

from collections.abc import Callable, Iterable

import torch

from mhcnb.bench.measure import Timing
from mhcnb.bench.place import Place

SIDE = {True: 8192, False: 1024}  # of the square matrices that reach the ceiling, on an accelerator and on a CPU


def mixing_bytes(n: int, d: int, tokens: int, dtype: torch.dtype) -> int:
    """Least traffic of one site, forward and backward: (8n + 5)·d elements a token. Forward reads X and writes u, then
    reads X and y and writes X': 3n + 2. Backward reads dX', X, y, writes dy, then reads du, X, dX', writes dX, once
    more than the most it could keep on the chip: 5n + 3. One stream: X, y and X' forward, likewise backward, 6."""
    return (6 if n == 1 else 8 * n + 5) * d * tokens * dtype.itemsize


def copies(amount: int, where: Place) -> Callable[[], None]:
    """Moves `amount` bytes: half are read, half written."""
    source = torch.ones(max(1, amount // 2), dtype=torch.uint8, device=where.device)
    target = torch.empty_like(source)

    def run() -> None:
        target.copy_(source)
        where.finish()

    return run


def matmuls(flops: float, where: Place) -> Callable[[], None]:
    """Does `flops`, to the nearest product, in large square matrix products of the type that training has."""
    side = SIDE[where.accelerated]
    a, b = (torch.randn(side, side, device=where.device, dtype=where.dtype) for _ in range(2))
    out = torch.empty_like(a)
    rows = max(1, round(flops / (2 * side**2)))  # the last product is a part of one

    def run() -> None:
        for start in range(0, rows, side):
            part = min(side, rows - start)
            torch.mm(a[:part], b, out=out[:part])
        where.finish()

    return run


def counted(timings: Iterable[Timing], work: Callable[[str], float], unit: str) -> list[Timing]:
    """The timings with what work(name) says of each."""
    return [t._replace(work=float(work(t.name)), unit=unit) for t in timings]
