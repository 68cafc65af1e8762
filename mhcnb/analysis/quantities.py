"""What one residual map, or a composite of several, does to a state: numbers of a matrix P [n_out, n_in] per token.

P [*tokens, n, n] is float64. J is the matrix of ones, so that J/n averages the streams.

Accuracy. Norms and sums carry rounding only. Singular values come from LAPACK, per matrix, with an absolute error of a
few 1e-16·σ_max: a σ_min below that is noise (and so it is in P itself, a product of rounded factors). Eigenvalues carry
a backward error of that size: |λ2| is exact to 1e-15 where eigenvectors are well apart, and to (1e-16)^(1/m) where m
eigenvectors coincide (a Jordan block), as for every algorithm in float64. A matrix that is not finite gives nan.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

BLOCK = 4096  # matrices for which another thread pays


def amax_forward(P: Tensor) -> Tensor:
    """max_i |Σ_j P_ij|: the most that a state equal in all streams grows. mHC section 3.1."""
    return P.sum(-1).abs().amax(-1)


def amax_backward(P: Tensor) -> Tensor:
    """max_j |Σ_i P_ij|: the same for a gradient, which meets Pᵀ."""
    return P.sum(-2).abs().amax(-1)


def amax(P: Tensor) -> Tensor:
    """The larger of the two: 1 where rows and columns all sum to one."""
    return torch.maximum(amax_forward(P), amax_backward(P))


def inf_norm(P: Tensor) -> Tensor:
    """max_i Σ_j |P_ij|: the most that any state grows, in the largest entry. Signs do not cancel."""
    return P.abs().sum(-1).amax(-1)


def row_deviation(P: Tensor) -> Tensor:
    """max_i |Σ_j P_ij - 1|."""
    return (P.sum(-1) - 1).abs().amax(-1)


def column_deviation(P: Tensor) -> Tensor:
    """max_j |Σ_i P_ij - 1|."""
    return (P.sum(-2) - 1).abs().amax(-1)


def min_column_sum(P: Tensor) -> Tensor:
    """min_j Σ_i P_ij: near 0, a stream is hardly passed on to any other."""
    return P.sum(-2).amin(-1)


def mean_zero_gain(P: Tensor) -> Tensor:
    """‖P(I - J/n)‖₂: the most that a difference between streams grows; 0 where all streams come out alike."""
    return singular_values(P - P.mean(-1, keepdim=True))[..., 0]


def sigma_max(P: Tensor) -> Tensor:
    """‖P‖₂."""
    return singular_values(P)[..., 0]


def sigma_min(P: Tensor) -> Tensor:
    """The smallest singular value."""
    return singular_values(P)[..., -1]


def lambda2(P: Tensor) -> Tensor:
    """|λ2|, eigenvalues in falling order of |λ|: how slowly differences fade under P applied again and again; 0 for
    n = 1."""
    if P.shape[-1] == 1:
        return torch.where(P[..., 0, 0].isfinite(), 0.0, torch.nan).to(P.dtype)
    return _spectrum(lambda M: torch.linalg.eigvals(M).abs().topk(2, dim=-1).values, P, 2)[..., 1]


def entropy(P: Tensor) -> Tensor:
    """Mean over rows of -Σ_j p_j log p_j in nats, p = |row| / Σ|row|: 0 where each stream reads one, log n where all
    alike. A row of zeros counts 0."""
    size = P.abs()
    p = size / size.sum(-1, keepdim=True).clamp_min(torch.finfo(P.dtype).tiny)
    return torch.special.entr(p).sum(-1).mean(-1)


def identity_distance(P: Tensor) -> Tensor:
    """‖P - I‖_F."""
    return torch.linalg.vector_norm(P - torch.eye(P.shape[-1], dtype=P.dtype, device=P.device), dim=(-2, -1))


def average_distance(P: Tensor) -> Tensor:
    """‖P - J/n‖_F."""
    return torch.linalg.vector_norm(P - 1 / P.shape[-1], dim=(-2, -1))


QUANTITIES: dict[str, Callable[[Tensor], Tensor]] = {
    of.__name__: of
    for of in (
        amax_forward, amax_backward, amax, inf_norm, row_deviation, column_deviation, min_column_sum, mean_zero_gain,
        sigma_max, sigma_min, lambda2, entropy, identity_distance, average_distance,
    )
}  # fmt: skip

# the value of the identity, from which a distance is read: the worst token is the one furthest from it
REFERENCES = {
    name: 1.0 if name in ("amax_forward", "amax_backward", "amax", "inf_norm", "min_column_sum", "mean_zero_gain",
                          "sigma_max", "sigma_min", "lambda2") else 0.0
    for name in QUANTITIES
}  # fmt: skip


def all_quantities(P: Tensor) -> dict[str, Tensor]:
    """Every quantity of P [*tokens, n, n], in the order of QUANTITIES; σ_max and σ_min from one decomposition."""
    sigma = singular_values(P)
    shared = {"sigma_max": sigma[..., 0], "sigma_min": sigma[..., -1]}
    return {name: shared[name] if name in shared else of(P) for name, of in QUANTITIES.items()}


def singular_values(P: Tensor) -> Tensor:
    """[*tokens, n], falling."""
    return _spectrum(torch.linalg.svdvals, P, P.shape[-1])


def _spectrum(of: Callable[[Tensor], Tensor], P: Tensor, width: int) -> Tensor:
    """of(P) [*tokens, width], matrices shared out over torch's threads: LAPACK takes them one by one. Always on the
    CPU, where eigenvalues of millions of small matrices are faster than on any accelerator."""
    n = P.shape[-1]
    M = P.reshape(-1, n, n).cpu()
    finite = M.isfinite().flatten(1).all(1)
    if not finite.all():
        M = torch.where(finite[:, None, None], M, 0.0)
    workers = min(torch.get_num_threads(), -(-len(M) // BLOCK))
    if workers > 1:
        with ThreadPoolExecutor(workers) as pool:
            values = torch.cat(list(pool.map(of, M.chunk(workers))))
    else:
        values = of(M)
    return torch.where(finite[:, None], values, torch.nan).view(*P.shape[:-2], width).to(P.device)
