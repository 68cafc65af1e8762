"""Recomputation gives the bits of the plain way, and keeps less; for every connection and model."""

import gc
from contextlib import contextmanager

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mhcnb import build_model, registry
from mhcnb.analysis.record import record
from mhcnb.layers.recompute import recompute
from mhcnb.layers.site import probing, sites

from .conftest import some_rows

HOW = ["connection", "block"]
GROUP = 4  # of six sites in three blocks
LONG = {"hrm": {"model.seq_len": 64, "model.L_layers": 2, "model.H_layers": 2, "model.puzzle_width": 0}}
SIZES = {"model.width": 64}  # where activations outweigh what is kept once, e.g. random state


class Storages(TorchDispatchMode):
    """Weak references to the memory of every tensor that an operation gives, the model's own apart."""

    def __init__(self, model):
        super().__init__()
        self.own = {StorageWeakRef(x.untyped_storage()) for x in (*model.parameters(), *model.buffers())}
        self.bytes = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for storage in (x.untyped_storage() for x in tree_leaves(out) if isinstance(x, torch.Tensor)):
            self.bytes[StorageWeakRef(storage)] = storage.nbytes()
        return out

    def alive(self):
        """Bytes of those that still exist."""
        left = {storage: count for storage, count in self.bytes.items() if not storage.expired()}
        return sum(count for storage, count in left.items() if storage not in self.own)


@contextmanager
def no_collector():
    """What a cycle of references holds stays."""
    gc.disable()
    yield
    gc.enable()


def dropping(model_name):
    """Dropout, where the model has it."""
    return {"model.dropout": 0.2} if "dropout" in registry.load("models", model_name).Config.model_fields else {}


def _long(small, model_name, connection_name):
    more = LONG.get(model_name, {"model.block_size": 64})
    return build_model(small(model_name, connection_name, SIZES | more))


def loss_and_gradients(model, how, dtype=None):
    recompute(model, how, GROUP)
    model.zero_grad()
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        output = model(some_rows(model, 2))
        loss = output.logits.float().logsumexp(-1).mean() + sum(x.square().sum() for x in output.parts.values())
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters())]


def equal(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["float32", "autocast"])
@pytest.mark.parametrize("how", HOW)
def test_losses_and_gradients_are_equal_to_the_bit(small, perturb, model_name, connection_name, how, dtype):
    """With dropout: what is computed again drops what was dropped."""
    model = perturb(build_model(small(model_name, connection_name, dropping(model_name))), 0.1)
    plain = loss_and_gradients(model, "none", dtype)
    assert all(gradient.abs().max() > 0 for gradient in plain[1:])
    assert equal(loss_and_gradients(model, how, dtype), plain)


def test_less_is_kept_for_backward_and_nothing_after_it(small, model_name, connection_name):
    """block < connection < none, in bytes that exist between forward and backward; with one stream the connection
    keeps nothing, so connection = none."""
    model, kept, left = _long(small, model_name, connection_name), {}, {}
    for how in ("none", *HOW):
        recompute(model, how, GROUP)
        with no_collector(), Storages(model) as storages:
            loss = model(some_rows(model, 2)).hidden.square().mean()
            kept[how] = storages.alive()
            loss.backward()
            model.zero_grad()
            left[how] = storages.alive()
    several = any(site.connection.n > 1 for site in sites(model).values())
    assert kept["block"] < 0.5 * kept["none"]
    assert kept["connection"] < 0.75 * kept["none"] if several else kept["connection"] == kept["none"]
    assert kept["block"] < kept["connection"]
    assert left["block"] == left["connection"] == left["none"] == loss.untyped_storage().nbytes()


@pytest.mark.parametrize("how", HOW)
def test_a_probe_is_called_once_a_call_and_gradients_stay(small, perturb, model_name, connection_name, how):
    """Also with a probe at one block alone, whose neighbours are computed again."""
    model = perturb(build_model(small(model_name, connection_name)), 0.1)
    for names in (list(sites(model)), list(sites(model))[2:3]):
        seen = []
        with probing(model, lambda site, maps, seen=seen: seen.append((site, maps)), names):
            plain = loss_and_gradients(model, "none")
            maps, seen[:] = list(seen), []
            assert equal(loss_and_gradients(model, how), plain)
        assert [site for site, _ in seen] == [site for site, _ in maps]
        assert list(dict.fromkeys(site for site, _ in seen)) == names
        assert all(equal(a, b) for (_, a), (_, b) in zip(seen, maps, strict=True))


@pytest.mark.parametrize("how", HOW)
def test_records_after_training_are_the_same(small, model_name, connection_name, how):
    records = []
    for way in ("none", how):
        model = build_model(small(model_name, connection_name, dropping(model_name)))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(3):
            loss_and_gradients(model, way)
            optimizer.step()
        records.append(record(model, some_rows(model, 2)))
    assert len(records[0]) == len(records[1]) >= len(sites(model))
    for plain, ours in zip(*records, strict=True):
        assert ours[:2] == plain[:2]
        assert equal(ours.maps, plain.maps)
