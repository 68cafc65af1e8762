"""The Birkhoff polytope: doubly stochastic matrices as mixtures of permutations (Birkhoff-von Neumann)."""

import itertools
import math
from typing import NamedTuple

import numpy as np

from mhcnb.errors import ConfigError

LARGEST = 6  # 720 permutations


class Mixture(NamedTuple):
    """Σ_k weights[k] · P_k by falling weight; `orders[k]` is (p(0), .., p(n-1)) with P_k[i, p(i)] = 1. `rest` is what
    the permutations leave of the matrix, as the largest entry: 0 where both sides sum to one."""

    weights: np.ndarray
    orders: list[tuple[int, ...]]
    rest: float

    def matrix(self) -> np.ndarray:
        """The mixture as a matrix [n, n]."""
        return np.einsum("k,kij->ij", self.weights, one_hot(self.orders))


def permutations(n: int) -> list[tuple[int, ...]]:
    """All n! orders, as itertools gives them. Raises ConfigError for n above 6."""
    if n > LARGEST:
        raise ConfigError(f"n = {n} has {math.factorial(n):,} permutations; mixtures go up to n = {LARGEST}")
    return list(itertools.permutations(range(n)))


def one_hot(orders: list[tuple[int, ...]]) -> np.ndarray:
    """Permutation matrices [k, n, n] of orders."""
    return np.eye(len(orders[0]))[np.array(orders)]


def mixture(logits: np.ndarray) -> Mixture:
    """The softmax over logits [n!] as mHC-lite takes it, sorted."""
    n = next(n for n in range(1, LARGEST + 2) if math.factorial(n) >= len(logits))
    weights = np.exp(logits - logits.max())
    weights, orders = weights / weights.sum(), permutations(n)
    ranked = np.argsort(-weights, kind="stable")
    return Mixture(weights[ranked], [orders[k] for k in ranked], 0.0)


def decompose(matrix: np.ndarray, tolerance: float = 1e-9) -> Mixture:
    """A matrix [n, n] without negative entries as few permutations, greedily: each time the one whose smallest entry
    is largest, that much of it. At most (n - 1)² + 1 are needed; a mixture is not unique above n = 2."""
    n = len(matrix)
    left, orders = matrix.astype(float).copy(), permutations(n)
    index, rows = np.array(orders), np.arange(n)
    found: list[tuple[float, tuple[int, ...]]] = []
    while len(found) <= (n - 1) ** 2:
        least = left[rows, index].min(-1)
        best = int(least.argmax())
        if not least[best] > tolerance:
            break
        left[rows, index[best]] -= least[best]
        found.append((float(least[best]), orders[best]))
    found.sort(key=lambda term: -term[0])
    weights = np.array([weight for weight, _ in found])
    return Mixture(weights, [order for _, order in found], float(np.abs(left).max()))


def project(matrices: np.ndarray) -> np.ndarray:
    """Points [*b, 2] of matrices [*b, n, n]. n = 2: (the weight of staying, 0). n = 3: on the plane on which the six
    vertices are a regular hexagon, even and odd permutations in turn, and J/3 its centre.

    For n = 3 the polytope has 4 dimensions: even permutations span one triangle about J/3, odd ones another in an
    orthogonal plane, and the two planes are laid on one another. Different matrices may fall on one point.
    """
    n = matrices.shape[-1]
    if n == 2:
        stay = (matrices[..., 0, 0] + matrices[..., 1, 1]) / 2
        return np.stack([stay, np.zeros_like(stay)], -1)
    if n != 3:
        raise ConfigError(f"n = {n}: the polytope has {(n - 1) ** 2} dimensions; it is drawn for n = 2 and 3")
    return np.einsum("...ij,kij,kx->...x", matrices, one_hot(permutations(3)), _hexagon()) / 3


def _hexagon() -> np.ndarray:
    """A corner [6, 2] for each order of `permutations(3)`: even ones at 90°, 210°, 330°, odd ones between."""
    orders = permutations(3)
    odd = [sum(a > b for a, b in itertools.combinations(order, 2)) % 2 for order in orders]
    seen, angles = [0, 0], []
    for parity in odd:
        angles.append(math.radians(90 + 60 * parity + 120 * seen[parity]))
        seen[parity] += 1
    return np.stack([np.cos(angles), np.sin(angles)], -1)
