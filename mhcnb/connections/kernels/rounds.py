"""Triton: the rounds of Sinkhorn–Knopp on chip, forward and backward (birkhoff.sinkhorn, mHC eq. 9).

A token's logits are rows 2 to n+1 of a tile [BT, ROWS, n], as they are packed; `real` marks them, and the other rows
are 0 throughout. `first` is the axis whose sums are divided by first, 1 for columns; the other is exact at the end.

The first division, and where eps is 0 the second, are made on logarithms. After them no sum is below 1/n², whatever
the logits, so that the rest divides: a factor of float32 on each entry, and no exp or log.
"""
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false, reportMissingImports=false
# ruff: noqa: RUF005  (Triton's compiler knows no (*a, b))

import triton
import triton.language as tl

ROWS = tl.constexpr(8)  # a power of two; n + 2 are used
LOWEST = tl.constexpr(-1e30)  # a logit that weighs nothing, and whose differences are finite


@triton.jit
def divide(M, axis: tl.constexpr, eps: tl.constexpr):
    """M over its sums, and those; 1 in the unused rows."""
    sums = tl.sum(M, axis, keep_dims=True) + eps
    sums = tl.where(sums > 0, sums, 1.0)
    return M / sums, sums


@triton.jit
def log_divide(L, real, axis: tl.constexpr):
    """L less the logarithm of the sums of exp L."""
    top = tl.max(L, axis, keep_dims=True)
    sums = tl.log(tl.sum(tl.exp(L - top), axis, keep_dims=True))
    return tl.where(real, L - top - sums, LOWEST)


@triton.jit
def begin(L, real, first: tl.constexpr, eps: tl.constexpr, floor: tl.constexpr):
    """The matrices after the first and the second division, and what the first gave before eps was added to it, which
    with `floor` is done to each entry."""
    L = tl.where(real, L, LOWEST)
    if eps == 0:
        L = log_divide(L, real, first)
        half, L = tl.exp(L), log_divide(L, real, 3 - first)
        return half, tl.exp(L), half
    top = tl.max(L, first, keep_dims=True)
    E = tl.where(real, tl.exp(L - top), 0.0)
    sums = tl.sum(E, first, keep_dims=True)
    if floor:
        share = E / tl.where(sums > 0, sums, 1.0)
        half = tl.where(real, share + eps, 0.0)
    else:
        share = E / (sums + eps * tl.exp(-top))
        half = share
    whole, _ = divide(half, 3 - first, eps)
    return half, whole, share


@triton.jit
def sinkhorn(L, real, iterations: tl.constexpr, first: tl.constexpr, eps: tl.constexpr, floor: tl.constexpr):
    """The matrices after all rounds."""
    _, M, _ = begin(L, real, first, eps, floor)
    for _ in range(iterations - 1):
        M, _ = divide(M, first, eps)
        M, _ = divide(M, 3 - first, eps)
    return M


@triton.jit
def sinkhorn_backward(
    L, real, G, iterations: tl.constexpr, first: tl.constexpr, eps: tl.constexpr, floor: tl.constexpr
):
    """The gradient of the logits from that of the matrices.

    In D, the gradient of log M, a division is the same whatever eps: D - M' Σ D, M' the matrix after it. The rounds
    are made again, of which only the sums are kept: they take M' back to what it was before.
    """
    last: tl.constexpr = 3 - first
    half, M, share = begin(L, real, first, eps, floor)
    sums = ()
    for _ in tl.static_range(iterations - 1):
        M, by_first = divide(M, first, eps)
        M, by_last = divide(M, last, eps)
        sums = sums + (by_first, by_last)
    D = G * M
    for k in tl.static_range(iterations - 1):
        D -= M * tl.sum(D, last, keep_dims=True)
        M *= sums[2 * (iterations - 2 - k) + 1]
        D -= M * tl.sum(D, first, keep_dims=True)
        M *= sums[2 * (iterations - 2 - k)]
    D -= M * tl.sum(D, last, keep_dims=True)
    if floor:
        D = share * D / tl.where(real, half, 1.0)
    return D - share * tl.sum(D, first, keep_dims=True)
