"""The kernels are the plain forms, values and gradients, on whatever device they run; collected by test_kernels.py."""

import logging
import os

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mhcnb import build_model, load_config, registry
from mhcnb.connections import kernels, ops
from mhcnb.connections.birkhoff import sinkhorn
from mhcnb.connections.kernels import choice, mixing, operators, projecting
from mhcnb.layers.recompute import recompute

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
SETTINGS = operators.Settings(False, 1e-6, 0.0, 20, 1, 0.0, False)
CLOSE = {torch.float32: 1e-6, torch.bfloat16: 2e-2}  # of a tensor's largest entry


@pytest.fixture(autouse=True)
def dispatched(monkeypatch):
    monkeypatch.setattr(kernels, "ON", {DEVICE})


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def with_gradients(f, inputs, dtype=None):
    """f of the inputs and its gradients, in `dtype`."""
    leaves = [x.detach().to(dtype or x.dtype, copy=True).requires_grad_() for x in inputs]
    out = f(*leaves)
    return out.detach(), *torch.autograd.grad((out * random(*out.shape, seed=9)).sum(), leaves)


def agree(got, exact, close):
    for i, (a, b) in enumerate(zip(got, exact, strict=True)):
        off = (a.double() - b).abs().max().item()
        assert off <= close * b.abs().max().item() + 1e-30, f"tensor {i}: off by {off} where {b.abs().max()} is largest"


def branch(u):
    return torch.tanh(u.roll(1, -1) * torch.linspace(0.5, 2, u.shape[-1], dtype=u.dtype, device=u.device))


def plain_enter(X, W, bias, s):
    """pre, post and res by their definitions (mHC eq. 7-9); res in the log domain, which no range overflows."""
    n, x = X.shape[-2], X.flatten(-2)
    logits = ops.norm_project_plain(x, W, "l2" if s.l2 else "rms", s.norm_eps) + bias
    pre, post, res = logits.split([n, n, n * n], dim=-1)
    order, first = "rows" if s.first == 1 else "columns", "softmax" if s.floor else "sums"
    return (
        pre.sigmoid() + s.pre_eps,
        2 * post.sigmoid(),
        sinkhorn(res.unflatten(-1, (n, n)), s.iterations, order, s.eps, first),
    )


KINDS = [
    SETTINGS,
    SETTINGS._replace(first=2, l2=True),
    SETTINGS._replace(floor=True, eps=1e-6, pre_eps=1e-6),
    SETTINGS._replace(eps=1e-3, iterations=2, l2=True, norm_eps=8.0),  # |x| of 64 values lies on both sides
    SETTINGS._replace(iterations=1),
]


@settings(max_examples=6, derandomize=True)
@given(
    n=st.sampled_from([2, 4]), d=st.integers(1, 70), tokens=st.integers(1, 20), spread=st.floats(0, 10),
    kind=st.sampled_from(KINDS), dtype=st.sampled_from(list(CLOSE)), seed=st.integers(0, 99),
)  # fmt: skip
@example(n=4, d=150, tokens=67, spread=10, kind=KINDS[0], dtype=torch.float32, seed=0)  # several blocks and programs
@example(n=4, d=70, tokens=19, spread=10, kind=KINDS[0], dtype=torch.bfloat16, seed=0)
@example(n=2, d=67, tokens=70, spread=5, kind=KINDS[1], dtype=torch.float32, seed=0)
@example(n=4, d=1, tokens=1, spread=3, kind=KINDS[2], dtype=torch.float32, seed=0)
@example(n=4, d=16, tokens=20, spread=3, kind=KINDS[3], dtype=torch.float32, seed=0)
def test_a_site_of_mhc(n, d, tokens, spread, kind, dtype, seed):
    """X' and the gradients of streams, weights, bias, in float64 from the same inputs. Half of what tells logits apart
    comes with the streams."""
    X, W = random(tokens, n, d, seed=seed, dtype=dtype), random(n * d, n * (n + 2), seed=seed + 1) / (n * d) ** 0.5
    bias = (torch.rand(n * (n + 2), generator=torch.Generator().manual_seed(seed)) * spread).to(DEVICE)
    W = W * spread / 8

    def fast(X, W, bias):
        u, entered = operators.enter(X, W, bias, kind)
        return operators.write(entered, branch(u))

    def plain(X, W, bias):
        pre, post, res = plain_enter(X, W, bias, kind)
        return ops.write_plain(res, X, post, branch((pre.unsqueeze(-1) * X).sum(-2)))

    inputs = (X, W, bias)
    agree(with_gradients(fast, inputs), with_gradients(plain, inputs, torch.float64), CLOSE[dtype])


@pytest.mark.parametrize("y_type", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize(("n", "d", "batch"), [(2, 270, (5,)), (4, 33, (2, 3)), (4, 130, ()), (2, 8, (0,))], ids=str)
def test_read_and_write(n, d, batch, dtype, y_type):
    """Any maps, of any sign. The branch may be in another type than the streams."""
    maps = random(*batch, n), random(*batch, n, seed=1), random(*batch, n, n, seed=2)
    X = random(*batch, n, d, seed=3, dtype=dtype)

    def fast(X, pre, post, res):
        u, entered = operators.read(X, X.view(-1, n, d), pre, post, res)
        assert u.dtype == X.dtype
        return operators.write(entered, branch(u).to(y_type))

    def plain(X, pre, post, res):
        return ops.write_plain(res, X, post, branch((pre.unsqueeze(-1) * X).sum(-2)))

    got, exact = with_gradients(fast, (X, *maps)), with_gradients(plain, (X, *maps), torch.float64)
    assert [g.dtype for g in got] == [dtype, dtype, *[torch.float32] * 3]
    assert [g.shape for g in got] == [e.shape for e in exact]
    if 0 not in batch:
        agree(got, exact, max(CLOSE[dtype], CLOSE[y_type]))


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
def test_weights_of_many_tokens(dtype):
    """More tokens than one program sums over, and a share that is not full."""
    x, dp = random(601, 70, dtype=dtype), random(601, 8, seed=1)
    agree([projecting._weight_backward(x, dp)], [x.double().T @ dp.double()], CLOSE[dtype])


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("spread", [1, 10, 30, 80, 1000])
def test_sinkhorn(kind, spread):
    """Its values and gradients, whatever the range of the logits: here each token's logits are its streams, which a
    clamped norm and the weights leave as they are."""
    n, big = 4, 1e6
    logits = (torch.rand(24, 24, generator=torch.Generator().manual_seed(spread)) * spread).to(DEVICE)
    W, bias = big / 24**0.5 * torch.eye(24, device=DEVICE), torch.zeros(24, device=DEVICE)
    kind = kind._replace(l2=True, norm_eps=big)

    def fast(logits):
        return projecting.enter(logits.view(-1, n, n + 2), W, bias, *kind)[1][:, 2:]

    def plain(logits):
        return plain_enter(logits.view(-1, n, n + 2), W.double(), bias.double(), kind)[2]

    got, exact = with_gradients(fast, (logits,)), with_gradients(plain, (logits,), torch.float64)
    ulp = torch.finfo(torch.float32).eps * max(spread, 4)  # what rounding a logit does to an entry
    agree(got, exact, 4 * ulp)
    if not kind.eps:
        assert (got[0].sum(-1 if kind.first == 1 else -2) - 1).abs().max() < 1e-6


def made(name, n, dialect="paper", d=12):
    """A connection away from its start."""
    cls = registry.load("connections", name)
    connection = cls(cls.Config(name=name, streams=n, dialect=dialect), n, d, 1, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for i, parameter in enumerate(connection.parameters()):
            parameter += 0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
    return connection.to(DEVICE)


METHODS = [name for name in registry.entries("connections") if name != "residual"]


@pytest.mark.parametrize(("dialect", "n"), [("paper", 4), ("mhc_lite", 2), ("deepseek_v4", 4)])
@pytest.mark.parametrize("name", METHODS)
def test_every_connection(name, dialect, n, monkeypatch):
    """With kernels as without: X', and the gradients of streams and parameters."""
    connection = made(name, n, dialect)
    inputs = [random(2, 5, n, 12), *connection.parameters()]
    names = [name for name, _ in connection.named_parameters()]

    def run(X, *parameters):
        return torch.func.functional_call(connection, dict(zip(names, parameters, strict=True)), (X, branch))

    with monkeypatch.context() as patch:
        patch.setattr(kernels, "ON", set())
        exact, plain = with_gradients(run, inputs, torch.float64), with_gradients(run, inputs)
    for got, rounded, true in zip(with_gradients(run, inputs), plain, exact, strict=True):
        unavoidable = (rounded - true).abs().max() / true.abs().max()
        agree([got], [true], max(3e-6, 4 * unavoidable.item()))


def nodes(connection, X):
    """The operators of this project that dynamo's one graph of a site has, forward and backward through it."""
    found = []

    def backend(graph, _):
        found.extend(str(node.target) for node in graph.graph.nodes if "mhcnb" in str(node.target))
        return graph.forward

    torch.compile(connection, backend=backend, fullgraph=True)(X, branch)
    return found


def test_torch_compile_sees_one_node_each():
    assert nodes(made("mhc", 4), random(3, 4, 12)) == ["mhcnb.enter.default", "mhcnb.write.default"]
    others = ["mhcnb.project.default", "mhcnb.read.default", "mhcnb.write.default"]
    assert nodes(made("hc", 4), random(3, 4, 12)) == others


@pytest.mark.parametrize("name", ["mhc", "hc"])
def test_compiled_is_eager(name):
    """Traced ahead of time, forward and backward: shapes, types and strides of the operators are as announced."""
    connection = made(name, 4)
    compiled = torch.compile(connection, backend="aot_eager", fullgraph=True)
    for tokens in (3, 5):
        X = random(tokens, 4, 12, dtype=torch.bfloat16)
        eager = with_gradients(lambda X: connection(X, branch), (X,))
        agree(with_gradients(lambda X: compiled(X, branch), (X,)), [x.double() for x in eager], 1e-2)


def test_operators_keep_their_promises():
    """torch.library's own checks: schema, announced shapes, autograd registration."""
    X, W, bias = random(5, 4, 6).requires_grad_(), random(24, 24).requires_grad_(), random(24).requires_grad_()
    maps, y = random(5, 6, 4).requires_grad_(), random(5, 6).requires_grad_()
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(projecting.enter, (X, W, bias, *SETTINGS), test_utils=checks)
    torch.library.opcheck(projecting.project, (X.flatten(1), W, False, 1e-6), test_utils=checks)
    torch.library.opcheck(mixing.read, (maps, X, X.detach()), test_utils=checks)
    torch.library.opcheck(mixing.write, (maps, torch.zeros_like(X), X.detach(), y), test_utils=checks)


def test_distributed_data_parallel():
    """Its hooks fire for every parameter, and leave the gradients that there are without it."""
    connection, X, store = made("mhc", 4), random(3, 4, 12), torch.distributed.HashStore()
    alone = torch.autograd.grad(connection(X, branch).square().sum(), list(connection.parameters()))
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        torch.nn.parallel.DistributedDataParallel(connection)(X, branch).square().sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert all(torch.equal(p.grad, g) for p, g in zip(connection.parameters(), alone, strict=True))


def test_only_streams_and_branch_are_kept():
    """What backward keeps beside X and y is some fifty coefficients a token, and the weights."""
    X, connection, kept = random(64, 4, 256).requires_grad_(), made("mhc", 4, d=256), {}

    def pack(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    y = random(64, 256).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        connection(X, lambda u: y)
    weights = 4 * 4 * connection.weight.numel()  # of 4 bytes: itself, scaled by its gates, and in between
    assert sum(kept.values()) <= X.nbytes + y.nbytes + 64 * 52 * 4 + weights


def test_recomputation_is_exact():
    size = {"model.width": 16, "model.layers": 1, "model.heads": 2, "model.block_size": 6, "model.vocab_size": 64}
    method = {"connection.name": "mhc", "connection.streams": 2, "connection.iterations": 3}
    model = build_model(load_config("params/gpt/tiny.yaml", method | size)).to(DEVICE).train()
    inputs = {"inputs": torch.arange(12, device=DEVICE).view(2, 6)}

    def gradients(how):
        recompute(model, how, 2)  # both sites a group
        return torch.autograd.grad(model(inputs).logits.square().mean(), list(model.parameters()))

    kept = gradients("none")
    for how in ("connection", "block"):
        assert all(torch.equal(a, b) for a, b in zip(gradients(how), kept, strict=True)), how


def test_an_empty_batch():
    for name in ("mhc", "hc"):
        connection, X = made(name, 4), random(2, 0, 4, 12).requires_grad_()
        dX, *gradients = torch.autograd.grad(connection(X, branch).sum(), [X, *connection.parameters()])
        assert dX.shape == X.shape
        assert not any(g.any() for g in gradients)


def test_results_repeat_to_the_bit():
    connection, X = made("mhc", 4, d=40), random(20, 4, 40)
    first, again = (
        torch.autograd.grad(connection(X, branch).square().sum(), list(connection.parameters())) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_probed_site_computes_its_maps_in_the_plain_form(monkeypatch):
    connection, X, seen = made("mhc", 4), random(3, 4, 12), []
    expected = connection(X, branch)
    connection.probe = seen.append
    monkeypatch.setattr(operators, "enter", None)
    out = connection(X, branch)
    assert all(torch.equal(a, b) for a, b in zip(seen[0], connection.maps(X), strict=True))
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("n", "dtype", "why"), [(3, torch.float32, "not 3 in float32"), (4, torch.float64, "float64")])
def test_what_they_do_not_take_falls_back_with_one_line(n, dtype, why, caplog):
    choice.why_not.cache_clear()
    connection, X = made("mhc", n).to(dtype), random(3, n, 12, dtype=dtype)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            out = connection(X, branch)
    assert [why in record.message for record in caplog.records] == [True]
    maps = connection.maps(X)
    torch.testing.assert_close(out, ops.write_plain(maps.res, X, maps.post, branch(ops.read_plain(maps.pre, X))))
