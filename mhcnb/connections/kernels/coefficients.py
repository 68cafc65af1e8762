"""Triton: norm and projection of any method; and mhc's maps with the read, in one pass over the streams, and back
(mHC eq. 7-9, sections 4.3.1 and 4.3.2).

The norm is a factor r per row, after the product, so that no normed X exists. In `enter`, logits = r·(vec X W) + bias,
gates and a norm weight are in W [n·d, (n+2)n], and its columns are pre, post and res, the order of the packed maps. A
program takes BT tokens: it sums over the width, makes the coefficients in registers, and passes over its tokens again,
last block first, which the cache still holds where BT is small enough (SPAN in launch).
"""
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false, reportMissingImports=false, reportArgumentType=false

import triton
import triton.language as tl

from mhcnb.connections.kernels.rounds import ROWS, sinkhorn, sinkhorn_backward
from mhcnb.connections.kernels.streams import (
    add_products,
    columns,
    get,
    lanes_of_zeros,
    put,
    square,
    streams,
    transposed_product,
)


@triton.jit
def grid(n: tl.constexpr):
    """Row and column of each packed map of a token, [1, ROWS, n], and which rows are res."""
    row, col = tl.arange(0, ROWS)[None, :, None], tl.arange(0, n)[None, None, :]
    return row, col, (row >= 2) & (row < n + 2)


@triton.jit
def packed(t, row, col, n: tl.constexpr):
    """Where the maps of tokens t are in [T, n+2, n]."""
    return (t.to(tl.int64)[:, None, None] * (n + 2) + row) * n + col


@triton.jit
def weights(W, at, D, width: tl.constexpr, padded: tl.constexpr):
    """Rows `at` of W [D, width], with zeros up to `padded` columns: [BC, padded]."""
    k = tl.arange(0, padded)
    inside = (at < D)[:, None] & (k < width)[None, :]
    return tl.load(W + at[:, None] * width + k[None, :], mask=inside, other=0.0)


@triton.jit
def products(
    X, W, norm, t, T, D, norm_eps, l2: tl.constexpr, width: tl.constexpr, padded: tl.constexpr,
    BT: tl.constexpr, BC: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """r·(x W) of rows x of X [T, D], [BT, padded]. norm [2, T]: r, which is (mean x² + eps)^-½ or, with `l2`,
    √D / max(|x|, eps); and its slope, dr/dx = -slope·r·x."""
    p, squares = tl.zeros((BT, padded), tl.float32), tl.zeros((BT, BC), tl.float32)
    for start in range(0, D, BC):
        c = start + tl.arange(0, BC)
        x = get(X, t, c, T, D, 0, 1)
        p = tl.dot(x, weights(W, c, D, width, padded), p, input_precision=precision)
        squares += x * x
    total, count = tl.sum(squares, 1), tl.full((1,), D, tl.float32)
    if l2:
        size = tl.sqrt(total)
        r = tl.sqrt(count) / tl.maximum(size, norm_eps)
        slope = tl.where(size > norm_eps, r * r / count, 0.0)
    else:
        r = 1 / tl.sqrt(total / count + norm_eps)
        slope = r * r / count
    tl.store(norm + t, r, mask=t < T)
    tl.store(norm + T + t, slope, mask=t < T)
    return p * r[:, None]


@triton.jit(do_not_specialize=["T"])
def project_forward(
    X, W, raw, norm, T, D, norm_eps, l2: tl.constexpr, width: tl.constexpr, padded: tl.constexpr,
    BT: tl.constexpr, BC: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """raw = norm(x) W for rows x of X [T, D] and any W [D, width]. A row: reads D."""
    t, k = tl.program_id(0) * BT + tl.arange(0, BT), tl.arange(0, padded)
    found = products(X, W, norm, t, T, D, norm_eps, l2, width, padded, BT, BC, precision)
    at, inside = t.to(tl.int64)[:, None] * width + k[None, :], (t < T)[:, None] & (k < width)[None, :]
    tl.store(raw + at, found, mask=inside)


@triton.jit(do_not_specialize=["T"])
def project_backward(
    X, W, dp, along, so_far, dX, T, D, width: tl.constexpr, padded: tl.constexpr,
    BT: tl.constexpr, BC: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """dX = so_far + dp Wᵀ + along·x for rows x of X [T, D]; along [T] came through the norm. A row: reads 2D, writes
    D."""
    t, k = tl.program_id(0) * BT + tl.arange(0, BT), tl.arange(0, padded)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    at, inside = t.to(tl.int64)[:, None] * width + k[None, :], (t < T)[:, None] & (k < width)[None, :]
    g, factor = tl.load(dp + at, mask=inside, other=0.0), tl.load(along + t, mask=t < T, other=0.0)
    total = get(so_far, t, c, T, D, 0, 1) + factor[:, None] * get(X, t, c, T, D, 0, 1)
    w = tl.trans(weights(W, c, D, width, padded))
    put(dX, t, c, T, D, 0, 1, tl.dot(g, w, total, input_precision=precision))


@triton.jit(do_not_specialize=["T"])
def enter_forward(
    X, W, bias, u, maps, raw, norm, T, d, norm_eps, pre_eps,
    l2: tl.constexpr, iterations: tl.constexpr, first: tl.constexpr, eps: tl.constexpr, floor: tl.constexpr,
    n: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """maps and u = pre·X; and for backward raw = r·(vec X W) and `norm` of `products`. A token: reads nd, and nd from
    cache; writes d."""
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    p = products(X, W, norm, t, T, n * d, norm_eps, l2, (n + 2) * n, ROWS * n, BT, BC, precision)
    row, col, is_res = grid(n)
    at, inside = packed(t, row, col, n), (t < T)[:, None, None] & (row < n + 2)
    scaled = tl.reshape(p, (BT, ROWS, n))
    tl.store(raw + at, scaled, mask=inside)
    logits = scaled + tl.load(bias + row * n + col, mask=row < n + 2, other=0.0)
    gate = tl.sigmoid(logits)
    res = sinkhorn(logits, is_res, iterations, first, eps, floor)
    made = tl.where(row == 0, gate + pre_eps, tl.where(row == 1, 2 * gate, res))
    tl.store(maps + at, made, mask=inside)

    blocks = tl.cdiv(d, BC)
    for block in range(blocks):
        c = (blocks - 1 - block) * BC + tl.arange(0, BC)
        total = tl.zeros((BT, BC), tl.float32)
        for j in tl.static_range(n):
            pre = tl.sum(tl.sum(tl.where((row == 0) & (col == j), made, 0.0), 2), 1)
            total += pre[:, None] * get(X, t, c, T, d, j, n)
        put(u, t, c, T, d, 0, 1, total)


@triton.jit
def logits_backward(
    bias, raw, dmaps, dpre, dbias, t, T,
    iterations: tl.constexpr, first: tl.constexpr, eps: tl.constexpr, floor: tl.constexpr, n: tl.constexpr,
):  # fmt: skip
    """From dmaps, to which dpre, a tuple of lanes, is added: dlogits [BT, ROWS, n]; and raw. Puts their sum over these
    tokens in dbias."""
    row, col, is_res = grid(n)
    at, inside = packed(t, row, col, n), (t < T)[:, None, None] & (row < n + 2)
    g = tl.load(dmaps + at, mask=inside, other=0.0)
    for j in tl.static_range(n):
        g += tl.where((row == 0) & (col == j), tl.sum(dpre[j], 1)[:, None, None], 0.0)
    scaled = tl.load(raw + at, mask=inside, other=0.0)
    logits = scaled + tl.load(bias + row * n + col, mask=row < n + 2, other=0.0)
    gate = tl.sigmoid(logits)
    steep = g * gate * (1 - gate)
    dres = sinkhorn_backward(logits, is_res, g, iterations, first, eps, floor)
    dlogits = tl.where(row == 0, steep, tl.where(row == 1, 2 * steep, dres))
    here = tl.program_id(0) * (ROWS * n) + row * n + col
    tl.store(dbias + here, tl.sum(dlogits, 0, keep_dims=True))
    return dlogits, scaled


@triton.jit(do_not_specialize=["T"])
def enter_backward(
    X, W, bias, maps, raw, norm, du, dmaps, G, dX, dp, dbias, T, d,
    iterations: tl.constexpr, first: tl.constexpr, eps: tl.constexpr, floor: tl.constexpr,
    n: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """dX whole: preᵀ du + resᵀ G, G the gradient of what was carried over, and what came through the maps. For the
    weights: dp [T, (n+2)n], so that dW = (vec X)ᵀ dp, and dbias [programs, ROWS, n]. A token: reads (2n+1)d, and (n+1)d
    from cache; writes nd."""
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    dpre = lanes_of_zeros(n, BT, BC)
    for start in range(0, d, BC):
        c = start + tl.arange(0, BC)
        dpre = add_products(dpre, get(du, t, c, T, d, 0, 1), streams(X, t, c, T, d, n), n)

    dlogits, scaled = logits_backward(bias, raw, dmaps, dpre, dbias, t, T, iterations, first, eps, floor, n)
    r, slope = tl.load(norm + t, mask=t < T, other=0.0), tl.load(norm + T + t, mask=t < T, other=0.0)
    dproducts = dlogits * r[:, None, None]
    row, col, _ = grid(n)
    tl.store(dp + packed(t, row, col, n), dproducts, mask=(t < T)[:, None, None] & (row < n + 2))
    through_norm = -slope * tl.sum(tl.sum(dlogits * scaled, 2), 1)
    dproducts = tl.reshape(dproducts, (BT, ROWS * n))

    pre, res, blocks = columns(maps, t, T, 0, n), square(maps, t, T, n), tl.cdiv(d, BC)
    for block in range(blocks):
        c = (blocks - 1 - block) * BC + tl.arange(0, BC)
        from_u, G_i = get(du, t, c, T, d, 0, 1), streams(G, t, c, T, d, n)
        for j in tl.static_range(n):
            x = get(X, t, c, T, d, j, n)
            total = transposed_product(res, G_i, j, pre[j] * from_u + through_norm[:, None] * x, n)
            w = tl.trans(weights(W, j * d + c, n * d, (n + 2) * n, ROWS * n))
            put(dX, t, c, T, d, j, n, tl.dot(dproducts, w, total, input_precision=precision))


@triton.jit(do_not_specialize=["T", "share"])
def weight_backward(
    X, dp, dW, T, D, share, width: tl.constexpr, padded: tl.constexpr,
    BT: tl.constexpr, BC: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """dW[s] = Σ xᵀ dp over the s-th `share` of the rows x of X [T, D], for BC rows of W. A row: reads D."""
    k, c = tl.arange(0, padded), tl.program_id(0) * BC + tl.arange(0, BC)
    start, total = tl.program_id(1) * share, tl.zeros((BC, padded), tl.float32)
    end = tl.minimum(start + share, T)
    for row in range(start, end, BT):
        t = row + tl.arange(0, BT)
        inside = (t < end)[:, None] & (k < width)[None, :]
        g = tl.load(dp + t.to(tl.int64)[:, None] * width + k[None, :], mask=inside, other=0.0)
        total = tl.dot(tl.trans(get(X, t, c, end, D, 0, 1)), g, total, input_precision=precision)
    at = (tl.program_id(1) * D + c)[:, None] * width + k[None, :]
    tl.store(dW + at, total, mask=(c < D)[:, None] & (k < width)[None, :])
