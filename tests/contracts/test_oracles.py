"""Each connection against its paper's equations, written with loops over scalars."""

import itertools
import math

import pytest
import torch

from mhcnb.connections.config import DIALECTS


def normed(x, config, gamma):
    """One RMSNorm (or x·√D/|x|) of a list of numbers, times 1 + γ where there is one."""
    squares = sum(v * v for v in x)
    if config.norm == "rms":
        factor = 1 / math.sqrt(squares / len(x) + config.norm_eps)
    else:
        factor = math.sqrt(len(x)) / max(math.sqrt(squares), config.norm_eps)
    return [v * factor * (1 + g) for v, g in zip(x, gamma, strict=True)]


def projected(h, weight):
    return [sum(h[r] * weight[r][c] for r in range(len(h))) for c in range(len(weight[0]))]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def parameters(connection):
    values = {name: p.tolist() for name, p in connection.named_parameters()}
    values.setdefault("gamma", [0.0] * len(values["weight"]))
    return values


def joint_logits(connection, X):
    """mHC eq. 7: one norm over all n·d values of the token, stream after stream; columns pre, post, res."""
    p, n = parameters(connection), connection.n
    raw = projected(normed([v for row in X for v in row], connection.config, p["gamma"]), p["weight"])
    pre = [p["gate"][0] * raw[i] + p["bias.pre"][i] for i in range(n)]
    post = [p["gate"][1] * raw[n + i] + p["bias.post"][i] for i in range(n)]
    res = [p["gate"][2] * raw[2 * n + k] + b for k, b in enumerate(p["bias.res"])]
    return [sigmoid(v) for v in pre], [2 * sigmoid(v) for v in post], res


def residual(connection, X):
    return [1.0], [1.0], [[1.0]]


def hc(connection, X):
    """HC eq. 10-13: each stream j, normed alone, gives pre[j], post[j] and what it sends to each i, res[i][j]."""
    p, n = parameters(connection), connection.n
    pre, post, res = [0.0] * n, [0.0] * n, [[0.0] * n for _ in range(n)]
    for j in range(n):
        raw = projected(normed(X[j], connection.config, p["gamma"]), p["weight"])
        pre[j] = p["bias.pre"][j] + p["gate"][0] * math.tanh(raw[0])
        post[j] = p["bias.post"][j] + p["gate"][1] * math.tanh(raw[1])
        for i in range(n):
            res[i][j] = p["bias.res"][j * n + i] + p["gate"][0] * math.tanh(raw[2 + i])
    return pre, post, res


def mhc(connection, X):
    """mHC eq. 8-9: exp, then `iterations` times one side and the other, the exact side last. DeepSeek-V4: eps goes to
    the entries, not the sums, of the very first division, and to pre."""
    pre, post, logits = joint_logits(connection, X)
    n, config = connection.n, connection.config
    M = [[math.exp(logits[i * n + j]) for j in range(n)] for i in range(n)]
    for half in range(2 * config.iterations):
        floor = half == 0 and config.first == "softmax"
        eps = 0 if floor else config.eps
        rows = [sum(M[i]) + eps for i in range(n)]
        columns = [sum(M[i][j] for i in range(n)) + eps for j in range(n)]
        by_rows = half % 2 == (1 if config.order == "rows" else 0)
        M = [[M[i][j] / (rows[i] if by_rows else columns[j]) for j in range(n)] for i in range(n)]
        M = [[value + config.eps * floor for value in row] for row in M]
    return [value + config.pre_eps for value in pre], post, M


def mhc_lite(connection, X):
    """mHC-lite: Σ_k softmax(logits)_k P_k over all permutations in lexical order, P_k[i][p_k(i)] = 1."""
    pre, post, logits = joint_logits(connection, X)
    n, total = connection.n, sum(math.exp(v) for v in logits)
    res = [[0.0] * n for _ in range(n)]
    for v, p in zip(logits, itertools.permutations(range(n)), strict=True):
        for i in range(n):
            res[i][p[i]] += math.exp(v) / total
    return pre, post, res


def kromhc(connection, X):
    """KromHC: two streams exchange by factor k what their numbers differ in at bit k, the first factor the highest."""
    pre, post, logits = joint_logits(connection, X)
    n, K = connection.n, len(logits) // 2
    res = [[1.0] * n for _ in range(n)]
    for i, j, k in itertools.product(range(n), range(n), range(K)):
        stay, swap = math.exp(logits[2 * k]), math.exp(logits[2 * k + 1])
        differ = (i ^ j) >> (K - 1 - k) & 1
        res[i][j] *= (swap if differ else stay) / (stay + swap)
    return pre, post, res


def joint_logits_without_res(connection, X):
    p, n = parameters(connection), connection.n
    raw = projected(normed([v for row in X for v in row], connection.config, p["gamma"]), p["weight"])
    pre = [sigmoid(p["gate"][0] * raw[i] + p["bias.pre"][i]) for i in range(n)]
    return pre, [2 * sigmoid(p["gate"][1] * raw[n + i] + p["bias.post"][i]) for i in range(n)]


def identity(connection, X):
    n = connection.n
    return *joint_logits_without_res(connection, X), [[float(i == j) for j in range(n)] for i in range(n)]


def average(connection, X):
    n = connection.n
    return *joint_logits_without_res(connection, X), [[1 / n] * n for _ in range(n)]


ORACLES = {
    "residual": residual,
    "hc": hc,
    "mhc": mhc,
    "mhc_lite": mhc_lite,
    "kromhc": kromhc,
    "identity": identity,
    "average": average,
}


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_maps_equal_the_loops(connection_name, make, perturb, dialect, n):
    if connection_name not in ORACLES:
        pytest.fail(f"write the loops of {connection_name} from its paper and enter them in ORACLES")
    connection = perturb(make(connection_name, n, 4, dialect=dialect, eps=1e-3).double())
    X = torch.randn(3, connection.n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    maps = connection.maps(X)
    for t in range(3):
        for got, want in zip(maps, ORACLES[connection_name](connection, X[t].tolist()), strict=True):
            torch.testing.assert_close(got[t], torch.tensor(want, dtype=torch.float64), rtol=1e-12, atol=1e-12)


# one permutation fixes every transpose -------------------------------------------------------------------------------


def permute_hc(connection, p):
    """A_r[source][destination], the papers' H_resᵀ."""
    A = torch.zeros(connection.n, connection.n)
    for destination, source in enumerate(p):
        A[source, destination] = 1
    connection.bias["res"].copy_(A.flatten())


def permute_mhc(connection, p):
    logits = torch.full((connection.n, connection.n), -80.0)
    for destination, source in enumerate(p):
        logits[destination, source] = 0
    connection.bias["res"].copy_(logits.flatten())


def permute_mhc_lite(connection, p):
    logits = [0.0 if q == tuple(p) else -80.0 for q in itertools.permutations(range(connection.n))]
    connection.bias["res"].copy_(torch.tensor(logits))


@pytest.mark.parametrize("permute", [permute_hc, permute_mhc, permute_mhc_lite])
@pytest.mark.parametrize("p", [(1, 2, 0), (2, 0, 1), (1, 2, 3, 0), (2, 0, 3, 1)], ids=str)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_cyclic_permutation_moves_stream_p_i_to_i(make, permute, p, dialect):
    """X'_i = X_{p(i)}: no cyclic permutation of three or more is its own transpose."""
    connection = make(permute.__name__.removeprefix("permute_"), len(p), 5, dialect=dialect, eps=0.0)
    with torch.no_grad():
        permute(connection, p)
        X = torch.randn(2, len(p), 5)
        out = connection(X, torch.zeros_like)
    torch.testing.assert_close(out, X[:, list(p)], rtol=1e-6, atol=1e-6)


# counts and names ----------------------------------------------------------------------------------------------------

COUNTS = {  # without a norm weight; d + that of it
    "residual": lambda n, d: (0, 0),
    "hc": lambda n, d: (d * (n + 2) + n * (n + 2) + 2, d),
    "mhc": lambda n, d: (n * n * (n + 2) * d + n * (n + 2) + 3, n * d),
    "mhc_lite": lambda n, d: (n * d * (math.factorial(n) + 2 * n) + math.factorial(n) + 2 * n + 3, n * d),
    "kromhc": lambda n, d: ((n * d + 1) * (2 * math.log2(n) + 2 * n) + 3, n * d),
    "identity": lambda n, d: (n * d * 2 * n + 2 * n + 2, n * d),
    "average": lambda n, d: (n * d * 2 * n + 2 * n + 2, n * d),
}


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_parameter_counts(connection_name, make, n):
    if connection_name not in COUNTS:
        pytest.fail(f"enter the parameter count of {connection_name} in COUNTS")
    connection = make(connection_name, n, 6)
    plain, norm = COUNTS[connection_name](connection.n, 6)
    count = sum(p.numel() for p in connection.parameters())
    weighted = sum(p.numel() for p in make(connection_name, n, 6, dialect="mhc_lite").parameters())
    assert (count, weighted) == (plain, plain + norm)


@pytest.mark.parametrize(("name", "thousands"), [("mhc", 1844), ("mhc_lite", 2434), ("kromhc", 959)])
def test_parameter_counts_that_were_published(make, name, thousands):
    """KromHC (arXiv 2601.21579): width 768, n = 4, 24 sites, norm weights counted; its table cuts 2433.9 to 2433."""
    count = 24 * sum(p.numel() for p in make(name, 4, 768, dialect="mhc_lite").parameters())
    assert round(count / 1000) == thousands


@pytest.mark.parametrize("name", ["hc", "mhc", "mhc_lite", "kromhc", "identity", "average"])
def test_names_of_a_state_dict(make, name):
    names = {"weight", "gate", "bias.pre", "bias.post", "bias.res"}
    if name in ("identity", "average"):
        names.remove("bias.res")
    assert set(make(name).state_dict()) == names
    assert set(make(name, dialect="mhc_lite").state_dict()) == names | {"gamma"}
    assert not make("residual").state_dict()
