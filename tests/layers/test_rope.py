"""Rotary positions by their definition."""

import cmath

import torch

from mhcnb.layers.rope import rotate, rotation

K, THETA = 6, 100.0


def vectors(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_pairs_are_complex_numbers_that_turn():
    """(x_i, x_{i + k/2}) as x_i + i·x_{i + k/2}, times e^(i·position·θ^(-2i/k))."""
    x, positions = vectors(1, 4, 2, K), [0, 3, 7, 1]
    out = rotate(x, rotation(torch.tensor(positions), K, THETA, x.dtype))
    for t, position in enumerate(positions):
        for h in range(2):
            for i in range(K // 2):
                turned = complex(x[0, t, h, i], x[0, t, h, i + 3]) * cmath.exp(1j * position * THETA ** (-2 * i / K))
                found = complex(out[0, t, h, i], out[0, t, h, i + 3])
                assert abs(found - turned) < 1e-14


def test_scores_depend_on_the_distance_alone():
    q, k = vectors(1, 1, 1, K), vectors(1, 1, 1, K, seed=1)

    def score(i, j):
        turned = (rotate(x, rotation(torch.tensor([at]), K, THETA, x.dtype)) for x, at in ((q, i), (k, j)))
        return float(torch.mul(*turned).sum())

    assert abs(score(5, 2) - score(105, 102)) < 1e-12
    assert abs(score(5, 2) - score(2, 5)) > 1e-2


def test_positions_of_each_row():
    x, positions = vectors(2, 3, 2, K), torch.tensor([[0, 1, 2], [5, 0, 1]])
    rows = [rotate(row[None], rotation(p, K, THETA, x.dtype)) for row, p in zip(x, positions, strict=True)]
    torch.testing.assert_close(rotate(x, rotation(positions, K, THETA, x.dtype)), torch.cat(rows))


def test_angles_are_float32_at_least_and_x_keeps_its_type():
    """8191 is no bfloat16."""
    by = rotation(torch.tensor([8191]), K, THETA, torch.bfloat16)
    assert by.cos.dtype == torch.float32
    torch.testing.assert_close(by.cos[0, 0, 0].double(), torch.tensor(8191.0).double().cos(), rtol=0, atol=1e-6)
    assert rotate(vectors(1, 1, 1, K).bfloat16(), by).dtype == torch.bfloat16
