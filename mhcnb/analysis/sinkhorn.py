"""Sinkhorn–Knopp on the bench: how fast both sides converge, and what three ways of going backward give."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mhcnb.connections.birkhoff import sinkhorn


class Errors(NamedTuple):
    """max |sum - 1| over the rows and over the columns, [iterations + 1, *b] each; entry 0 is exp(logits) itself."""

    rows: Tensor
    columns: Tensor


def errors(
    logits: Tensor,
    iterations: int,
    order: str = "rows",
    eps: float = 0.0,
    dtype: torch.dtype = torch.float32,
    first: str = "sums",
) -> Errors:
    """The error of either side after each round over logits [*b, n, n], computed in `dtype`, summed in float64."""
    states = [logits.to(dtype), *list(half_rounds(logits.to(dtype), iterations, order, eps, first))[1::2]]
    M = torch.stack([L.exp().double() for L in states])
    return Errors((M.sum(-1) - 1).abs().amax(-1), (M.sum(-2) - 1).abs().amax(-1))


def gradients(
    logits: Tensor, G: Tensor, iterations: int, order: str = "rows", eps: float = 0.0, first: str = "sums"
) -> dict[str, Tensor]:
    """{mode: dL/dlogits [*b, n, n]} for G = dL/dM, in float64: unrolled (autograd through every round), recomputed
    (what training uses), implicit (as if converged) and finite (central differences, the judge)."""
    L, G = logits.detach().double(), G.double()
    return {
        "unrolled": unrolled(L, G, iterations, order, eps, first),
        "recomputed": recomputed(L, G, iterations, order, eps, first),
        "implicit": implicit(sinkhorn(L, iterations, order, eps, first), G),
        "finite": finite(L, G, iterations, order, eps, first),
    }


def half_rounds(logits: Tensor, iterations: int, order: str, eps: float, first: str) -> Iterator[Tensor]:
    """log M after each division, two a round. `order` names the second side of a round."""
    L, (one, other) = logits, (-2, -1) if order == "rows" else (-1, -2)
    log_eps = L.new_tensor(math.log(eps) if eps else -math.inf)
    for half in range(2 * iterations):
        total = L.logsumexp(other if half % 2 else one, keepdim=True)
        if first == "softmax" and half == 0:  # eps goes to the entries, once
            L = torch.logaddexp(L - total, log_eps)
        else:
            L = L - torch.logaddexp(total, log_eps)
        yield L


def unrolled(logits: Tensor, G: Tensor, iterations: int, order: str, eps: float, first: str) -> Tensor:
    """Autograd keeps every round, 2 x iterations matrices a token."""
    leaf = logits.detach().requires_grad_()
    L = [leaf, *half_rounds(leaf, iterations, order, eps, first)][-1]
    return torch.autograd.grad(L.exp(), leaf, G)[0]


def recomputed(logits: Tensor, G: Tensor, iterations: int, order: str, eps: float, first: str) -> Tensor:
    """The rounds done again from the logits, which alone were kept: exact for any number of rounds."""
    leaf = logits.detach().requires_grad_()
    return torch.autograd.grad(sinkhorn(leaf, iterations, order, eps, first), leaf, G)[0]


def implicit(R: Tensor, G: Tensor) -> Tensor:
    """The gradient of the limit, from the result R alone: M = exp(logits - a 1ᵀ - 1 βᵀ) with fixed sums gives
    (diag c - Rᵀ diag(r)⁻¹ R) β = s_c - Rᵀ diag(r)⁻¹ s_r, where s are sums of R⊙G. Right only where R has converged."""
    r, s = R.sum(-1), R * G
    Q = R.mT / r.unsqueeze(-2)  # Rᵀ diag(r)⁻¹
    system = torch.diag_embed(R.sum(-2)) - Q @ R  # singular along 1, where it does not matter
    beta = torch.linalg.pinv(system, hermitian=True) @ (s.sum(-2).unsqueeze(-1) - Q @ s.sum(-1, keepdim=True))
    a = (s.sum(-1, keepdim=True) - R @ beta) / r.unsqueeze(-1)
    return R * (G - a - beta.mT)


def finite(logits: Tensor, G: Tensor, iterations: int, order: str, eps: float, first: str, h: float = 1e-5) -> Tensor:
    """Central differences of Σ M⊙G in every logit; an error of about 1e-10."""
    n = logits.shape[-1]
    steps = h * torch.eye(n * n, dtype=logits.dtype).view(n * n, *[1] * (logits.ndim - 2), n, n)

    def value(L: Tensor) -> Tensor:
        return (sinkhorn(L, iterations, order, eps, first) * G).sum((-2, -1))

    change = (value(logits + steps) - value(logits - steps)) / (2 * h)  # [n², *b]
    return change.movedim(0, -1).unflatten(-1, (n, n))
