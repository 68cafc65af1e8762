import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mhcnb.analysis.gains import REDUCTIONS, amax, gains, mean_composites, mean_matrices, sums
from mhcnb.analysis.record import Record
from mhcnb.connections.base import Maps
from mhcnb.connections.birkhoff import sinkhorn
from mhcnb.errors import ConfigError


def records_of(*matrices, names=None):
    """Records whose res are these [b, t, n, n]; two sites a block, as in a GPT."""
    names = names or [f"main.{k // 2}.{'attn' if k % 2 == 0 else 'mlp'}" for k in range(len(matrices))]
    calls = [names[:k].count(name) for k, name in enumerate(names)]
    none = torch.zeros(0)
    return [Record(name, call, Maps(none, none, m)) for name, call, m in zip(names, calls, matrices, strict=True)]


def brute(matrices, first, last, side, reduction):
    """Loops over tokens: the product of maps first..last, later factor on the left; then sums and maxima."""
    b, t, n, _ = matrices[0].shape
    products = np.empty((b * t, n, n))
    for token in range(b * t):
        P = np.eye(n)
        for l in range(first, last + 1):  # noqa: E741
            P = matrices[l].numpy().astype(np.float64).reshape(b * t, n, n)[token] @ P
        products[token] = P
    if reduction == "mean_matrix_then_max":
        products = products.mean(0)[None]
    each = []
    for P in products:
        lines = [
            sum(P[i, j] for j in range(n)) if side == "forward" else sum(P[j, i] for j in range(n)) for i in range(n)
        ]
        each.append(max(abs(line) for line in lines))
    return sum(each) / len(each)


@st.composite
def stacks(draw):
    b, t, n, depth = (draw(st.integers(1, high)) for high in (2, 3, 4, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return [torch.randn(b, t, n, n, generator=generator) for _ in range(depth)]


@given(stacks(), st.sampled_from(REDUCTIONS))
@settings(max_examples=40, deadline=None)
def test_gains_equal_loops_over_tokens(matrices, reduction):
    frame, last = gains(records_of(*matrices), reduction), len(matrices) - 1
    assert len(frame) == 3 * len(matrices)
    for row in frame.itertuples():
        l = row.depth - 1  # noqa: E741
        first, end = {"single": (l, l), "prefix": (0, l), "suffix": (l, last)}[row.scope]
        assert row.forward == pytest.approx(brute(matrices, first, end, "forward", reduction), rel=1e-9, abs=1e-12)
        assert row.backward == pytest.approx(brute(matrices, first, end, "backward", reduction), rel=1e-9, abs=1e-12)


def test_the_later_factor_stands_on_the_left():
    first, second = torch.tensor([[2.0, 0], [0, 1]]), torch.tensor([[0.0, 1], [0, 0]])
    frame = gains(records_of(first[None, None], second[None, None])).set_index(["scope", "depth"])
    # second @ first = [[0, 1], [0, 0]]; the other order would give 2
    assert frame.loc[("prefix", 2), "forward"] == frame.loc[("suffix", 1), "forward"] == 1
    assert frame.loc[("prefix", 2), "backward"] == frame.loc[("suffix", 1), "backward"] == 1
    np.testing.assert_array_equal(
        mean_composites(records_of(first[None, None], second[None, None]))["main"], [[0, 1], [0, 0]]
    )


def test_signs_cancel_within_a_sum_and_not_between_tokens():
    P = torch.tensor([[[1.0, -1], [0, 0.5]], [[-1, 0], [0, -1]]])
    assert amax(P) == (0.75, 1.0)  # per token 0.5 and 1; columns 1 and 1
    assert amax(P, "mean_matrix_then_max") == (0.5, 0.75)


@given(stacks())
@settings(max_examples=25, deadline=None)
def test_backward_is_forward_of_the_transposed_network_run_backwards(matrices):
    there = gains(records_of(*matrices)).set_index(["scope", "depth"])
    back = gains(records_of(*[m.mT for m in reversed(matrices)])).set_index(["scope", "depth"])
    for depth in range(1, len(matrices) + 1):
        mirrored = len(matrices) + 1 - depth
        assert there.loc[("suffix", depth), "backward"] == pytest.approx(back.loc[("prefix", mirrored), "forward"])


@pytest.mark.parametrize("order", ["rows", "columns"])
def test_the_exact_side_of_sinkhorn_has_gain_one_and_the_other_stays_under_n(order, float64):
    n = 4
    generator = torch.Generator().manual_seed(0)
    maps = [sinkhorn(6 * torch.randn(2, 8, n, n, generator=generator), 3, order) for _ in range(12)]
    frame = gains(records_of(*maps))
    exact, other = ("forward", "backward") if order == "rows" else ("backward", "forward")
    assert (frame[exact] - 1).abs().max() < 1e-12
    assert frame[other].min() >= 1 - 1e-12  # the mean of its sums is one
    assert 1.01 < frame[other].max() < n
    deviation = sums(records_of(*maps))
    assert deviation[f"{'row' if order == 'rows' else 'column'}_max_deviation"].max() < 1e-12


@given(stacks())
@settings(max_examples=25, deadline=None)
def test_sums_equal_loops(matrices):
    frame = sums(records_of(*matrices))
    for row in frame[frame["scope"] == "single"].itertuples():
        P = matrices[row.depth - 1].double().flatten(0, 1).numpy()
        rows = [sum(token[i, j] for j in range(P.shape[-1])) for token in P for i in range(P.shape[-1])]
        columns = [sum(token[i, j] for i in range(P.shape[-1])) for token in P for j in range(P.shape[-1])]
        for name, values in (("row", rows), ("column", columns)):
            away = [abs(value - 1) for value in values]
            assert getattr(row, f"{name}_mean_deviation") == pytest.approx(sum(away) / len(away))
            assert getattr(row, f"{name}_max_deviation") == pytest.approx(max(away))
            assert getattr(row, f"{name}_min") == pytest.approx(min(values))


def test_composites_end_where_a_span_ends():
    double = 2 * torch.eye(2)[None, None]
    names = ["low.0.mlp", "high.0.mlp", "high.1.mlp"] * 2
    frame = gains(records_of(*[double] * 6, names=names))
    prefixes = frame[frame["scope"] == "prefix"].sort_values("index")
    got = [(r.stack, r.call, r.depth, r.index, r.forward) for r in prefixes.itertuples()]
    assert got == [
        ("low", 0, 1, 1, 2.0),
        ("high", 0, 1, 2, 2.0),
        ("high", 0, 2, 3, 4.0),
        ("low", 1, 1, 4, 2.0),
        ("high", 1, 1, 5, 2.0),
        ("high", 1, 2, 6, 4.0),
    ]


def test_products_keep_float64_over_many_sites():
    n, depth = 3, 200
    generator = torch.Generator().manual_seed(0)
    maps = [sinkhorn(torch.randn(1, 2, n, n, generator=generator).double(), 100).float() for _ in range(depth)]
    frame = gains(records_of(*maps))
    last = frame[(frame["scope"] == "prefix") & (frame["depth"] == depth)].iloc[0]
    exact = np.stack([m.double().numpy() for m in maps])
    P = exact[0]
    for H in exact[1:]:
        P = H @ P
    assert last["forward"] == pytest.approx(np.abs(P.sum(-1)).max(-1).mean(), rel=1e-12)


def test_means_are_over_tokens_and_named_by_site_and_call():
    res = torch.arange(16.0).reshape(2, 2, 2, 2)
    means = mean_matrices(records_of(res, res + 1, names=["main.0.mlp", "main.0.mlp"]))
    assert list(means) == ["main.0.mlp", "main.0.mlp ×2"]
    np.testing.assert_allclose(means["main.0.mlp"], res.numpy().reshape(4, 2, 2).mean(0))


def test_an_unknown_reduction_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="did you mean per_token_then_mean"):
        gains(records_of(torch.ones(1, 1, 2, 2)), "per_token_mean")
