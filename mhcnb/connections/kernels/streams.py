"""Triton: reading from n streams, and carrying them over beside the write, forward and backward.

X [T, n, d], u and y [T, d] and their gradients are contiguous, bfloat16 or float32; maps [T, n+2, n] in float32 are
packed: a token's row 0 is pre, row 1 post, rows 2... res. Sums are made in float32. A program takes BT tokens; what it
sums over the width it sums in BC lanes, and over those once, at the end. Nothing is added atomically: results repeat to
the bit.
"""
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false, reportMissingImports=false
# ruff: noqa: RUF005  (Triton's compiler knows no (*a, b))

import triton
import triton.language as tl


@triton.jit
def get(base, t, c, T, d, row, rows):
    """base[t, row, c] of base [T, rows, d] in float32, zeros outside: [BT, BC]."""
    at = base + (t.to(tl.int64)[:, None] * rows + row) * d + c[None, :]
    return tl.load(at, mask=(t < T)[:, None] & (c < d)[None, :], other=0.0).to(tl.float32)


@triton.jit
def put(base, t, c, T, d, row, rows, value):
    """base[t, row, c] = value [BT, BC], in the type of base."""
    at = base + (t.to(tl.int64)[:, None] * rows + row) * d + c[None, :]
    tl.store(at, value.to(base.dtype.element_ty), mask=(t < T)[:, None] & (c < d)[None, :])


@triton.jit
def columns(maps, t, T, row, n: tl.constexpr):
    """maps[t, row, j] for each j: a tuple of n columns [BT, 1]."""
    at, found = maps + (t.to(tl.int64) * (n + 2) + row) * n, ()
    for j in tl.static_range(n):
        found = found + (tl.load(at + j, mask=t < T, other=0.0)[:, None],)
    return found


@triton.jit
def put_sums(maps, t, T, row, lanes, n: tl.constexpr):
    """maps[t, row, j] = Σ_c lanes[j][t, c] for each j."""
    at = maps + (t.to(tl.int64) * (n + 2) + row) * n
    for j in tl.static_range(n):
        tl.store(at + j, tl.sum(lanes[j], 1), mask=t < T)


@triton.jit
def square(maps, t, T, n: tl.constexpr):
    """res as a tuple of its rows, each a tuple of columns [BT, 1]."""
    rows = ()
    for i in tl.static_range(n):
        rows = rows + (columns(maps, t, T, 2 + i, n),)
    return rows


@triton.jit
def streams(base, t, c, T, d, n: tl.constexpr):
    """The n streams of base [T, n, d]: a tuple of tiles [BT, BC]."""
    found = ()
    for j in tl.static_range(n):
        found = found + (get(base, t, c, T, d, j, n),)
    return found


@triton.jit
def lanes_of_zeros(n: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr):
    """n tiles to sum in."""
    zeros = ()
    for _ in tl.static_range(n):
        zeros = zeros + (tl.zeros((BT, BC), tl.float32),)
    return zeros


@triton.jit
def add_products(total, x, other, n: tl.constexpr):
    """total[j] + x·other[j] for each j, elementwise."""
    more = ()
    for j in tl.static_range(n):
        more = more + (total[j] + x * other[j],)
    return more


@triton.jit
def transposed_product(res, G, j: tl.constexpr, total, n: tl.constexpr):
    """total + Σ_i res[i, j] G_i."""
    for i in tl.static_range(n):
        total += res[i][j] * G[i]
    return total


@triton.jit(do_not_specialize=["T"])
def read_forward(maps, X, u, T, d, n: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr):
    """u = pre·X. A token: reads nd, writes d."""
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    pre, total = columns(maps, t, T, 0, n), tl.zeros((BT, BC), tl.float32)
    for j in tl.static_range(n):
        total += pre[j] * get(X, t, c, T, d, j, n)
    put(u, t, c, T, d, 0, 1, total)


@triton.jit(do_not_specialize=["T"])
def read_backward(maps, X, du, G, dmaps, dX, T, d, n: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr):
    """dpre = X du and dX = preᵀ du + resᵀ G, the streams' whole gradient but for what came through the maps. The rest
    of dmaps is zero. A token: reads (2n+1)d, writes nd."""
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    pre, res, dpre = columns(maps, t, T, 0, n), square(maps, t, T, n), lanes_of_zeros(n, BT, BC)
    for start in range(0, d, BC):
        c = start + tl.arange(0, BC)
        g, G_i = get(du, t, c, T, d, 0, 1), streams(G, t, c, T, d, n)
        dpre = add_products(dpre, g, streams(X, t, c, T, d, n), n)
        for j in tl.static_range(n):
            put(dX, t, c, T, d, j, n, transposed_product(res, G_i, j, pre[j] * g, n))
    put_sums(dmaps, t, T, 0, dpre, n)
    nothing = lanes_of_zeros(n, BT, BC)
    for row in tl.static_range(1, n + 2):
        put_sums(dmaps, t, T, row, nothing, n)


@triton.jit(do_not_specialize=["T"])
def write_forward(maps, X, y, out, T, d, n: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr):
    """X' = res·X + post ⊗ y. A token: reads (n+1)d, writes nd."""
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    post, X_j, y_tile = columns(maps, t, T, 1, n), streams(X, t, c, T, d, n), get(y, t, c, T, d, 0, 1)
    for i in tl.static_range(n):
        res_i, total = columns(maps, t, T, 2 + i, n), post[i] * y_tile
        for j in tl.static_range(n):
            total += res_i[j] * X_j[j]
        put(out, t, c, T, d, i, n, total)


@triton.jit(do_not_specialize=["T"])
def write_backward(maps, X, y, G, dy, dmaps, T, d, n: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr):
    """dy = post G, dpost = G y, dres = G Xᵀ for G the gradient of X'; resᵀ G is left to the backward of the read, which
    passes over the streams in any case. dpre is zero. A token: reads (2n+1)d, writes d."""
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    post, dpost, dres = columns(maps, t, T, 1, n), lanes_of_zeros(n, BT, BC), ()
    for _ in tl.static_range(n):
        dres = dres + (lanes_of_zeros(n, BT, BC),)
    for start in range(0, d, BC):
        c = start + tl.arange(0, BC)
        G_i, X_j = streams(G, t, c, T, d, n), streams(X, t, c, T, d, n)
        dpost = add_products(dpost, get(y, t, c, T, d, 0, 1), G_i, n)
        back, more = tl.zeros((BT, BC), tl.float32), ()
        for i in tl.static_range(n):
            back += post[i] * G_i[i]
            more = more + (add_products(dres[i], G_i[i], X_j, n),)
        dres = more
        put(dy, t, c, T, d, 0, 1, back)
    put_sums(dmaps, t, T, 0, lanes_of_zeros(n, BT, BC), n)
    put_sums(dmaps, t, T, 1, dpost, n)
    for i in tl.static_range(n):
        put_sums(dmaps, t, T, 2 + i, dres[i], n)
