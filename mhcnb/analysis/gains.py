"""How much the residual maps amplify, by depth: mHC (arXiv 2512.24880) section 3.1, figures 3, 7 and 8.

For res or a composite P [n_out, n_in] of one token:

    amax gain forward  = max_i |Σ_j P_ij|      the most that a state equal in all streams grows
    amax gain backward = max_j |Σ_i P_ij|      the same for a gradient, which meets Pᵀ

The absolute value is of the sum: entries may cancel, and Σ|P_ij| is another quantity. Composites of a span of L
sites, later factor on the left:

    prefix P_{1..l} = res_l ··· res_1          from the entry of the stack to depth l
    suffix P_{l..L} = res_L ··· res_l          from depth l to the exit, the way of a gradient that reaches l
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from mhcnb.analysis.record import Record
from mhcnb.errors import ConfigError, nearest

Frame = Any  # a pandas.DataFrame: what its indexing gives has no type that a checker could use
SCOPES = ("single", "prefix", "suffix")
REDUCTIONS = ("per_token_then_mean", "mean_matrix_then_max")


class Product(NamedTuple):
    """P [b, t, n_out, n_in] in float64: res of one site, or the composite that ends (prefix) or begins (suffix) there.

    `depth` counts from 1 within the span, `index` from 1 over all calls of the model.
    """

    stack: str
    call: int
    depth: int
    index: int
    site: str
    scope: str
    P: Tensor


class Gain(NamedTuple):
    """Amax gains. A matrix without negative entries whose rows sum to one has forward 1 and backward 1 to n."""

    forward: float
    backward: float


class Sums(NamedTuple):
    """Row and column sums of P: how far from 1 on average and at worst over tokens, and the smallest."""

    row_mean_deviation: float
    row_max_deviation: float
    row_min: float
    column_mean_deviation: float
    column_max_deviation: float
    column_min: float


def amax(P: Tensor, reduction: str = REDUCTIONS[0]) -> Gain:
    """Amax gains of P [*tokens, n_out, n_in]: each token's, averaged, or those of the average matrix."""
    require_reduction(reduction)
    if reduction == "mean_matrix_then_max":
        P = P.flatten(end_dim=-3).mean(0)
    return Gain(P.sum(-1).abs().amax(-1).mean().item(), P.sum(-2).abs().amax(-1).mean().item())


def require_reduction(reduction: str) -> None:
    """Raises ConfigError where that is none of REDUCTIONS."""
    if reduction not in REDUCTIONS:
        raise ConfigError(f"reduction {reduction!r} is unknown{nearest(str(reduction), REDUCTIONS)}")


def sums_of(P: Tensor) -> Sums:
    """Row and column sums of P [*tokens, n_out, n_in]."""
    rows, columns = P.sum(-1), P.sum(-2)
    sides = ((s - 1).abs() for s in (rows, columns))
    (r_mean, r_max), (c_mean, c_max) = ((side.mean().item(), side.max().item()) for side in sides)
    return Sums(r_mean, r_max, rows.min().item(), c_mean, c_max, columns.min().item())


def gains(records: Iterable[Record], reduction: str = REDUCTIONS[0]) -> Frame:
    """A row a product: stack, call, depth, index, site, scope (single, prefix, suffix), forward, backward; and the
    reduction."""
    return _tabulate(records, Gain, lambda P: amax(P, reduction)).assign(reduction=reduction)


def sums(records: Iterable[Record]) -> Frame:
    """A row a product: stack, call, depth, index, site, scope, and the fields of Sums."""
    return _tabulate(records, Sums, sums_of)


def mean_matrices(records: Iterable[Record]) -> dict[str, np.ndarray]:
    """{site: mean of res over tokens [n_out, n_in]} in call order; further calls of a site are named `site ×2`, ..."""
    return {
        r.site + (f" ×{r.call + 1}" if r.call else ""): r.maps.res.double().flatten(end_dim=-3).mean(0).numpy()
        for r in records
    }


def mean_composites(records: Iterable[Record]) -> dict[str, np.ndarray]:
    """{stack: mean over tokens of the whole composite P_{1..L} [n_out, n_in]}, for each span."""
    whole = {(p.stack, p.call): p.P for p in products(records) if p.scope == "prefix"}  # the deepest comes last
    return {
        stack + (f" ×{call + 1}" if call else ""): P.flatten(end_dim=-3).mean(0).numpy()
        for (stack, call), P in whole.items()
    }


def products(records: Iterable[Record]) -> Iterator[Product]:
    """Every single map, prefix and suffix of every span: all singles, then prefixes from the entry, then suffixes
    from the exit. Only two products are alive at a time."""
    for (stack, call), span in spans(records).items():
        yield from _walk(stack, call, span, "single")
        yield from _walk(stack, call, span, "prefix", lambda P, H: H @ P)
        yield from _walk(stack, call, span[::-1], "suffix", lambda P, H: P @ H)


def _walk(
    stack: str,
    call: int,
    span: list[tuple[int, int, Record]],
    scope: str,
    join: Callable[[Tensor, Tensor], Tensor] = lambda P, H: H,
) -> Iterator[Product]:
    running = accumulate((r.maps.res.double() for _, _, r in span), join)
    for (depth, index, r), P in zip(span, running, strict=True):
        yield Product(stack, call, depth, index, r.site, scope, P)


def stack_of(site: str) -> str:
    """The stack of a site's name: `main` of `main.3.attn`."""
    return site.rsplit(".", 2)[0]


def spans(records: Iterable[Record]) -> dict[tuple[str, int], list[tuple[int, int, Record]]]:
    """{(stack, call): [(depth, index, record)]}: what lies between an expand and its reduce. Composites end there,
    for the state is one copy in between."""
    found: dict[tuple[str, int], list[tuple[int, int, Record]]] = {}
    for index, r in enumerate(records, 1):
        span = found.setdefault((stack_of(r.site), r.call), [])
        span.append((len(span) + 1, index, r))
    return found


def _tabulate(records: Iterable[Record], kind: Any, measure: Callable[[Tensor], Any]) -> Frame:
    import pandas

    rows = [(*product[:-1], *measure(product.P)) for product in products(records)]
    return pandas.DataFrame(rows, columns=[*Product._fields[:-1], *kind._fields])
