"""Doubly stochastic matrices: Sinkhorn–Knopp and the permutation basis."""

import itertools
import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 4096  # tokens at a time in backward: the 2 x iterations kept matrices stay in cache


def sinkhorn(
    logits: Tensor, iterations: int = 20, order: str = "rows", eps: float = 0.0, first: str = "sums"
) -> Tensor:
    """exp(logits) [*b, n, n] scaled towards row and column sums of one. mHC eq. 9; log domain.

    Each round divides by the sums of one side, then of the other: `order` names the second, whose sums are one to
    rounding. `eps` is added to every sum; with first="softmax" (DeepSeek-V4) the very first division is exact and eps
    is added to each entry after it, a floor that bounds how far 20 rounds have to go. Only the logits are saved;
    backward repeats the rounds and is exact for any number of them, none included.
    """
    n = logits.shape[-1]
    last = logits.reshape(-1, n, n).permute(1, 2, 0).contiguous()  # [n_out, n_in, tokens]: tokens vectorise
    floor = first == "softmax" and eps > 0  # without eps both begin alike
    result: Any = _Sinkhorn.apply(last, iterations, 1 if order == "rows" else 0, eps, floor)
    return result.permute(2, 0, 1).contiguous().view(logits.shape)


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


class _Sinkhorn(torch.autograd.Function):
    """The rounds over [n_out, n_in, tokens], of which nothing but their logits is kept."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, iterations: int, last: int, eps: float, floor: bool) -> Tensor:
        ctx.save_for_backward(logits)
        ctx.rounds = iterations, last, eps, floor
        return _rounds(logits, *ctx.rounds)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (logits,) = ctx.saved_tensors
        blocks = zip(logits.split(BLOCK, -1), grads[0].split(BLOCK, -1), strict=True)
        return torch.cat([_backward(L, G, *ctx.rounds) for L, G in blocks], dim=-1), None, None, None, None


def _rounds(
    logits: Tensor, iterations: int, last: int, eps: float, floor: bool, kept: list[Tensor] | None = None
) -> Tensor:
    """exp of L after 2 x iterations half rounds L <- L - log(Σ exp L + eps), which `kept` gets; with `floor` the
    first divides by the sum alone, and eps is then added to each entry."""
    L, least = logits, logits.new_tensor(math.log(eps) if eps else 0.0)
    for half in range(2 * iterations):
        side, first = last if half % 2 else 1 - last, floor and half == 0
        if eps and not first:
            L = L - torch.logaddexp(torch.logsumexp(L, side, keepdim=True), least)
        else:
            L = torch.log_softmax(L, side)
        if kept is not None:
            kept.append(L)
        L = torch.logaddexp(L, least) if first else L
    return L.exp()


def _backward(logits: Tensor, grad: Tensor, iterations: int, last: int, eps: float, floor: bool) -> Tensor:
    """Each half round is L' = L - log(Σ exp L + eps), so dL = dL' - exp(L')·Σ dL', with eps as without. A floor
    log(exp L' + eps) scales dL' by exp L' / (exp L' + eps)."""
    kept: list[Tensor] = []
    G = grad * _rounds(logits, iterations, last, eps, floor, kept)
    for half in reversed(range(2 * iterations)):
        if floor and half == 0:
            G = G * kept[0].exp() / (kept[0].exp() + eps)
        G = torch.ops.aten._log_softmax_backward_data(G, kept[half], last if half % 2 else 1 - last, G.dtype)
    return G


def permutation_matrices(n: int) -> Tensor:
    """All n! permutation matrices [n!, n, n] in the order of itertools.permutations: P_k[i, p_k(i)] = 1."""
    order = torch.tensor(list(itertools.permutations(range(n))))
    return torch.nn.functional.one_hot(order, n).to(torch.get_default_dtype())
