"""What the constraint of mhc costs: Sinkhorn–Knopp of every token's logits, forward and backward."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mhcnb.bench import floor
from mhcnb.bench.measure import FLOOR, Timing, side_by_side
from mhcnb.bench.peers import STREAMS
from mhcnb.bench.place import Place, one_thread, there_and_back
from mhcnb.connections import birkhoff

ITERATIONS = 20
TOKENS = {False: 4096, True: 16384}  # by whether there is an accelerator


def sinkhorn(where: Place, rounds: int = 21) -> list[Timing]:
    """20 rounds on 4 x 4 logits of range about 10, float32, against the definition through autograd: one CPU thread
    and 4096 tokens, or an accelerator and 16,384. The rate: logits in and matrices out, then both gradients and the
    logits again, over the time."""
    return at(TOKENS[where.accelerated], where, rounds)


def at(tokens: int, where: Place, rounds: int) -> list[Timing]:
    """The case with so many tokens."""
    logits = 2 * torch.randn(tokens, STREAMS, STREAMS, generator=torch.Generator().manual_seed(0))
    theirs = {f"{peer.name}: sinkhorn": peer.sinkhorn for peer in where.peers}
    ways = {"plain": birkhoff.sinkhorn_plain, "sinkhorn": birkhoff.sinkhorn} | theirs
    with one_thread():
        contenders = {name: _contender(way, logits, where) for name, way in ways.items()}
        moved = 5 * logits.nbytes
        contenders[f"{FLOOR}copying as much"] = floor.copies(moved, where)
        timings = side_by_side("sinkhorn", contenders, rounds)
    return floor.counted(timings, lambda name: moved, "B")


class _Rounds(nn.Module):
    def __init__(self, way: Callable[[Tensor, int], Tensor]) -> None:
        super().__init__()
        self.way = way

    def forward(self, logits: Tensor) -> Tensor:
        return self.way(logits, ITERATIONS)


def _contender(way: Callable[[Tensor, int], Tensor], logits: Tensor, where: Place) -> Callable[[], None]:
    own = logits.to(where.device).clone().requires_grad_()
    return there_and_back(_Rounds(way), (own,), where)
