"""Doubly stochastic matrices: Sinkhorn–Knopp and the permutation basis."""

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

BLOCK = 1024  # tokens at a time: what the rounds make, and in backward keep, stays in cache


def sinkhorn(
    logits: Tensor, iterations: int = 20, order: str = "rows", eps: float = 0.0, first: str = "sums"
) -> Tensor:
    """exp(logits) [*b, n, n] scaled towards row and column sums of one. mHC eq. 9.

    Each round divides by the sums of one side, then of the other: `order` names the second, whose sums are one to
    rounding. `eps` is added to every sum; with first="softmax" (DeepSeek-V4) the very first division is exact and eps
    is added to each entry after it, a floor that bounds how far 20 rounds have to go. Only the logits are saved;
    backward repeats the rounds and is exact for any number of them, none included.
    """
    n = logits.shape[-1]
    floor = first == "softmax" and eps > 0  # without eps both begin alike
    result = _sinkhorn(logits.reshape(-1, n, n), iterations, 1 if order == "rows" else 0, eps, floor)
    return result.view(logits.shape)


def sinkhorn_plain(
    logits: Tensor, iterations: int = 20, order: str = "rows", eps: float = 0.0, first: str = "sums"
) -> Tensor:
    """The definition: exp, then divide by sums. The oracle of `sinkhorn`; overflows where it does not."""
    M = logits.exp()
    one, other = (-2, -1) if order == "rows" else (-1, -2)
    for i in range(iterations):
        softmax = first == "softmax" and i == 0
        M = M / M.sum(one, keepdim=True) + eps if softmax else M / (M.sum(one, keepdim=True) + eps)
        M = M / (M.sum(other, keepdim=True) + eps)
    return M


@custom_op("mhcnb::sinkhorn", mutates_args=())
def _sinkhorn(logits: Tensor, iterations: int, last: int, eps: float, floor: bool) -> Tensor:
    """The last iterate of logits [tokens, n, n]. One operator, or torch.compile would unroll the rounds."""
    return _by_blocks(lambda L: _last(_iterates(L, iterations, last, eps, floor)), logits)


@custom_op("mhcnb::sinkhorn_backward", mutates_args=())
def _sinkhorn_backward(logits: Tensor, grad: Tensor, iterations: int, last: int, eps: float, floor: bool) -> Tensor:
    """The gradient of the logits, through the rounds made again."""
    return _by_blocks(lambda L, G: _through_rounds(L, G, iterations, last, eps, floor), logits, grad)


def _by_blocks(f: Callable[..., Tensor], *given: Tensor) -> Tensor:
    """f of each BLOCK of tokens of [tokens, n, n], as [n, n, tokens]: tokens vectorise."""
    blocks = zip(*(x.permute(1, 2, 0).contiguous().split(BLOCK, -1) for x in given), strict=True)
    return torch.cat([f(*block) for block in blocks], dim=-1).permute(2, 0, 1).contiguous()


def _last(iterates: Iterator[Tensor]) -> Tensor:
    return deque(iterates, maxlen=1)[0]


@_sinkhorn.register_fake
@_sinkhorn_backward.register_fake
def _(logits: Tensor, *_: Any) -> Tensor:
    return logits.new_empty(logits.shape)


def _keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    logits, *ctx.rounds = inputs
    ctx.save_for_backward(logits)


def _back(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
    return _sinkhorn_backward(*ctx.saved_tensors, grad, *ctx.rounds), None, None, None, None


_sinkhorn.register_autograd(_back, setup_context=_keep)


def _iterates(logits: Tensor, iterations: int, last: int, eps: float, floor: bool) -> Iterator[Tensor]:
    """What each half round makes of exp(logits): M / (Σ M + eps); with `floor` the first of them divides by the sum
    alone, and eps is added to each entry.

    The first round is one of logarithms, which no range overflows: L - log(Σ exp L + eps). Without eps every later sum
    is between 1/n² and n², so that the others are divisions.
    """
    L, least = logits, logits.new_full((), math.log(eps) if eps else 0.0)
    M = L.exp() if not iterations else L
    if not iterations:
        yield M
    for half in range(2 * iterations):
        side = last if half % 2 else 1 - last
        if half > 1:
            total = M.sum(side, keepdim=True)
            M = M / (total + eps if eps else total)
            yield M
            continue
        if not eps or (floor and half == 0):
            L = torch.log_softmax(L, side)
            L = torch.logaddexp(L, least) if eps else L
        else:
            L = L - torch.logaddexp(torch.logsumexp(L, side, keepdim=True), least)
        M = L.exp()
        yield M


def _through_rounds(logits: Tensor, G: Tensor, iterations: int, last: int, eps: float, floor: bool) -> Tensor:
    """By the gradients y of logarithms: from M' = M / (Σ M + eps) follows y = y' - M' Σ y'."""
    iterates = list(_iterates(logits, iterations, last, eps, floor))
    y = G * iterates[-1]
    for half in reversed(range(2 * iterations)):
        side, M = last if half % 2 else 1 - last, iterates[half]
        if floor and half == 0:
            M, y = M - eps, y * (1 - eps / M)
        y.addcmul_(M, y.sum(side, keepdim=True), value=-1)
    return y


def permutation_matrices(n: int) -> Tensor:
    """All n! permutation matrices [n!, n, n] in the order of itertools.permutations: P_k[i, p_k(i)] = 1."""
    order = torch.tensor(list(itertools.permutations(range(n))))
    return torch.nn.functional.one_hot(order, n).to(torch.get_default_dtype())
