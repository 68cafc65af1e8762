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
    """Rounds L <- L - log(Σ exp L + eps) over [n_out, n_in, tokens]."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, iterations: int, last: int, eps: float, floor: bool) -> Tensor:
        ctx.save_for_backward(logits)
        ctx.rounds = iterations, last, eps, floor
        return _rounds(logits, *ctx.rounds)[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (logits,) = ctx.saved_tensors
        blocks = zip(logits.split(BLOCK, -1), grads[0].split(BLOCK, -1), strict=True)
        return torch.cat([_backward(L, G, *ctx.rounds) for L, G in blocks], dim=-1), None, None, None, None


def _rounds(logits: Tensor, iterations: int, last: int, eps: float, floor: bool, keep: bool = False) -> list[Tensor]:
    """exp of L after each half round (only the final one unless `keep`); of the logits where there is none. With
    `floor` the first is exp before eps is added to it."""
    L, kept = logits, []
    for half in range(2 * iterations):
        side = last if half % 2 else 1 - last
        shift = L.amax(side, keepdim=True)  # exp of the largest is 1: no overflow, no logarithm of zero
        total = shift + (L - shift).exp_().sum(side, keepdim=True).log_()
        at_entries = floor and half == 0
        if eps and not at_entries:
            total = torch.logaddexp(total, total.new_tensor(math.log(eps)))
        L = L - total
        if keep or half == 2 * iterations - 1:
            kept.append(L.exp())
        if eps and at_entries:
            L = torch.logaddexp(L, L.new_tensor(math.log(eps)))
    return kept or [logits.exp()]


def _backward(logits: Tensor, grad: Tensor, iterations: int, last: int, eps: float, floor: bool) -> Tensor:
    """Each half round is L' = L - log(Σ exp L + eps), so dL = dL' - exp(L')·Σ dL'. A floor log(exp L' + eps) scales
    dL' by exp L' / (exp L' + eps)."""
    kept = _rounds(logits, iterations, last, eps, floor, keep=True)
    G = grad * kept[-1]
    for half in reversed(range(2 * iterations)):
        side = last if half % 2 else 1 - last
        if floor and half == 0:
            G = G * (kept[0] / (kept[0] + eps))
        G = G - kept[half] * G.sum(side, keepdim=True)
    return G


def permutation_matrices(n: int) -> Tensor:
    """All n! permutation matrices [n!, n, n] in the order of itertools.permutations: P_k[i, p_k(i)] = 1."""
    order = torch.tensor(list(itertools.permutations(range(n))))
    return torch.nn.functional.one_hot(order, n).to(torch.get_default_dtype())
