"""Permutation mixtures and the two projections, against enumeration."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhcnb.analysis.polytope import decompose, mixture, one_hot, permutations, project
from mhcnb.errors import ConfigError

seeds = st.integers(0, 10_000)


def doubly_stochastic(n, seed, terms=7):
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(terms))
    return sum(w * np.eye(n)[rng.permutation(n)] for w in weights)


@given(st.integers(1, 6), seeds)
def test_a_doubly_stochastic_matrix_is_its_permutations_again(n, seed):
    P = doubly_stochastic(n, seed)
    mix = decompose(P)
    np.testing.assert_allclose(mix.matrix(), P, atol=1e-7)
    assert mix.weights.sum() == pytest.approx(1, abs=1e-7)
    assert (np.diff(mix.weights) <= 0).all()
    assert len(mix.weights) <= (n - 1) ** 2 + 1
    assert mix.rest < 1e-7


def test_what_no_permutation_takes_is_left_over():
    mix = decompose(np.array([[0.5, 0.0], [0.7, 0.2]]))
    assert mix.orders == [(0, 1)]
    assert mix.weights == pytest.approx([0.2])
    assert mix.rest == pytest.approx(0.7)
    assert len(decompose(np.array([[1.0, 0.0], [1.0, 0.0]])).weights) == 0


@given(st.integers(1, 4), seeds)
def test_the_softmax_mixture_is_the_sum_over_all_permutations(n, seed):
    orders = list(itertools.permutations(range(n)))
    logits = np.random.default_rng(seed).normal(size=len(orders)) * 3
    share = np.exp(logits) / np.exp(logits).sum()
    expected = np.zeros((n, n))
    for weight, order in zip(share, orders, strict=True):
        for i in range(n):
            expected[i, order[i]] += weight
    mix = mixture(logits)
    np.testing.assert_allclose(mix.matrix(), expected, atol=1e-12)
    np.testing.assert_allclose(mix.weights, np.sort(share)[::-1])


def test_seven_streams_are_refused_with_the_count():
    with pytest.raises(ConfigError, match="5,040 permutations"):
        decompose(np.eye(7))


@given(seeds)
def test_three_streams_fall_on_a_hexagon_and_mixtures_between_its_corners(seed):
    orders = permutations(3)
    corners = project(one_hot(orders))
    np.testing.assert_allclose(np.linalg.norm(corners, axis=1), 1)
    angles = np.sort(np.degrees(np.arctan2(corners[:, 1], corners[:, 0])))
    np.testing.assert_allclose(np.diff(angles), 60)
    weights = np.random.default_rng(seed).dirichlet(np.ones(6))
    mixed = np.einsum("k,kij->ij", weights, one_hot(orders))
    np.testing.assert_allclose(project(mixed), weights @ corners, atol=1e-12)
    np.testing.assert_allclose(project(np.full((3, 3), 1 / 3)), 0, atol=1e-12)


def test_neighbours_on_the_hexagon_differ_by_a_swap():
    """Odd permutations lie between even ones."""
    corners = project(one_hot(permutations(3)))
    signs = [round(np.linalg.det(P)) for P in one_hot(permutations(3))]
    around = np.array(signs)[np.argsort(np.arctan2(corners[:, 1], corners[:, 0]))]
    assert (around[:-1] != around[1:]).all()


def test_two_streams_are_a_segment_and_four_are_refused():
    np.testing.assert_allclose(project(np.array([np.eye(2), np.eye(2)[::-1]])), [[1, 0], [0, 0]])
    with pytest.raises(ConfigError, match="9 dimensions"):
        project(np.eye(4))
