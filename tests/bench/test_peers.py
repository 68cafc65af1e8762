import sys

import pytest
import torch
from torch import nn

from mhcnb.bench import peers as module
from mhcnb.bench.gpt import Size, gpt
from mhcnb.bench.peers import STREAMS, Peer, hyper_connections, pack, peers
from mhcnb.connections.birkhoff import sinkhorn_plain
from mhcnb.errors import ConfigError

SMALL = Size(width=16, layers=2, heads=2, batch=2, tokens=5, vocabulary=31)


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """As if nothing were installed."""
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)


def test_packing_puts_each_stream_beside_the_batch():
    X = torch.randn(2, 3, 4, 5)
    packed = pack(X)
    for b in range(2):
        for n in range(4):
            assert torch.equal(packed[b * 4 + n], X[b, :, n])


class EachAlone(nn.Module):
    """A connection in their layout in which every stream is a residual network of its own."""

    def __init__(self, streams, *, dim, branch, layer_index):
        super().__init__()
        self.branch = branch

    def forward(self, X, **context):
        return X + self.branch(X, **context)


def test_our_gpt_behind_connections_of_theirs_that_are_residual_is_the_residual_gpt():
    """Their entry copies and their exit sums, so equal streams give the final norm 4 times the residual state."""
    theirs, ours = module._behind(EachAlone, SMALL), gpt("residual", SMALL)
    batch = SMALL.batch_of(torch.device("cpu"))
    for model in (theirs, ours):
        model.double()
    expected = ours(*batch)
    torch.testing.assert_close(theirs(*batch), expected, rtol=1e-3, atol=0)  # eps of a norm at width 16
    theirs(*batch).backward()
    assert all(p.grad is not None for p in theirs.parameters())


def test_a_checkout_is_driven_by_its_own_code(checkout, capsys):
    before = list(sys.path)
    (peer,) = peers([f"mhc-lite={checkout()}"])
    assert sys.path == before
    assert isinstance(peer, Peer)
    assert set(peer.gpts) == {"residual", "hc", "mhc", "mhc_lite"}
    loss = peer.gpts["mhc_lite"](SMALL)
    (config,) = sys.modules["hyper_conn"].built
    assert (config.n_embd, config.n_layer, config.n_head) == (16, 2, 2)
    assert (config.block_size, config.vocab_size, config.bias) == (5, 31, False)
    assert (config.hyper_conn_n, config.hyper_conn_type) == (STREAMS, "mhc_lite")
    assert loss(*SMALL.batch_of(torch.device("cpu"))).shape == ()
    assert capsys.readouterr().out == ""  # it prints as it goes
    peer.gpts["residual"](SMALL)
    config = sys.modules["hyper_conn"].built[-1]
    assert (config.hyper_conn_n, config.hyper_conn_type) == (1, "none")
    logits = torch.randn(3, 4, 4)
    torch.testing.assert_close(peer.sinkhorn(logits, 7), sinkhorn_plain(logits, 7))


def test_another_checkout_is_not_mistaken_for_the_first(checkout):
    for folder in (checkout("one"), checkout("another")):
        (peer,) = peers([f"mhc-lite={folder}"])
        assert sys.modules[peer.layers["mhc"].__module__].WHERE.startswith(str(folder))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["mhc-lite"], "--peer mhc-lite; expected mhc-lite=PATH"),
        (["other=x"], "--peer other=x; expected mhc-lite=PATH"),
        (["mhc-lite=/nowhere"], "no model.py and no hyper_conn/mhc.py there; expected a checkout of"),
    ],
)
def test_what_is_no_peer_is_refused(given, said):
    with pytest.raises(ConfigError, match=said):
        peers(given)


def test_twice_the_same_is_refused(checkout):
    with pytest.raises(ConfigError, match="mhc-lite is given twice"):
        peers([f"mhc-lite={checkout()}"] * 2)


def test_a_package_that_it_needs_is_named(checkout):
    folder = checkout()
    (folder / "hyper_conn/mhc.py").write_text("import einops_of_nobody\n")
    with pytest.raises(ConfigError, match="needs the package einops_of_nobody, which is not installed: pip install"):
        peers([f"mhc-lite={folder}"])


def test_the_installed_package_has_the_layout_that_is_assumed():
    """At its start the residual map of its mhc is Sinkhorn of the identity, pre σ(one-hot), post 2σ(1)."""
    pytest.importorskip("hyper_connections")
    peer, X = hyper_connections(), torch.randn(2, 3, STREAMS, 8)
    layer = peer.layers["mhc"](STREAMS, dim=8, branch=nn.Tanh(), layer_index=1)
    out = layer(pack(X)).unflatten(0, (2, STREAMS)).transpose(1, 2)
    res = sinkhorn_plain(torch.eye(STREAMS))
    pre = torch.sigmoid(torch.nn.functional.one_hot(torch.tensor(1), STREAMS).float())
    post = 2 * torch.sigmoid(torch.ones(STREAMS))
    for b in range(2):
        for t in range(3):
            expected = res.T @ X[b, t] + post[:, None] * torch.tanh(pre @ X[b, t])
            torch.testing.assert_close(out[b, t], expected)
    logits = torch.randn(3, 4, 4)
    torch.testing.assert_close(peer.sinkhorn(logits, 20), sinkhorn_plain(logits, 20))
    loss = peer.gpts["hc"](SMALL)(*SMALL.batch_of(torch.device("cpu")))
    assert loss.item() == pytest.approx(torch.tensor(31.0).log().item(), rel=0.05)
