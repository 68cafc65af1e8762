"""What is run again, when, and what it meets there: modes, contexts, ranks, the loop. That it gives the same bits for
every connection and model is among the contracts."""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

from mhcnb import build_model, registry
from mhcnb.config import load_config
from mhcnb.layers import recompute as module
from mhcnb.layers.recompute import best_group, recompute
from mhcnb.layers.site import sites
from mhcnb.layers.stack import Stack
from mhcnb.run import Run
from mhcnb.training.loop import train

HOW = ["none", "connection", "block"]
TIMES = {"none": 1, "connection": 1, "block": 2}  # that a branch runs in a forward and a backward
GROUPS = ["auto", 1, 3, 4, 9]  # of four sites in two blocks
WAYS = [*(("connection", group) for group in GROUPS), ("block", "auto")]
MEASURED = {"time_s", "tokens_per_s", "step_ms", "mfu", "peak_memory_gb"}
D = 8


class Branch(nn.Module):
    """u -> tanh(u W), noting its context."""

    def __init__(self):
        super().__init__()
        self.weight, self.seen = nn.Parameter(torch.eye(D) + 0.1), []

    def forward(self, u, **context):
        self.seen.append(context)
        return torch.tanh(u @ self.weight)


def stack(how, branches, connection="mhc", group="auto"):
    """With norms before the second branches."""
    config, norm = registry.load("connections", connection).Config(name=connection), nn.LayerNorm(D)
    made = Stack(config, D, [{"a": (a, None), "b": (b, norm)} for a, b in branches], torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    recompute(made, how, group)
    return made


def pairs(depth=2):
    return [(Branch(), Branch()) for _ in range(depth)]


def entering(dtype=torch.float32):
    return torch.randn(3, D, generator=torch.Generator().manual_seed(2)).to(dtype).requires_grad_()


@pytest.mark.parametrize("connection", ["residual", "mhc"])
@pytest.mark.parametrize("how", HOW)
def test_a_branch_runs_again_for_a_block_alone_and_meets_its_context_there(how, connection):
    branches = pairs()
    made = stack(how, branches, connection)
    made(entering(), nn.Identity(), mask="m").sum().backward()
    assert [b.seen for pair in branches for b in pair] == [[{"mask": "m"}] * TIMES[how]] * 4


@pytest.mark.parametrize("how", HOW)
def test_nothing_runs_again_in_evaluation_or_without_gradients(how, monkeypatch):
    monkeypatch.delattr(module, "checkpoint")  # whoever calls it fails
    made = stack(how, pairs())
    made.eval()(entering(), nn.Identity()).sum().backward()
    with torch.no_grad():
        made.train()(entering(), nn.Identity())


def test_connections_of_one_stream_are_left_as_they_are(monkeypatch):
    monkeypatch.delattr(module, "checkpoint")
    stack("connection", pairs(), "residual")(entering(), nn.Identity()).sum().backward()


def test_the_best_group_is_the_published_one():
    """√(nL / (n + 2)), of mHC: 6.3 of 60 sublayers with 4 streams."""
    assert best_group(60, 4) == 6
    for count, n in ((1, 4), (48, 4), (48, 8), (200, 4), (600, 2)):
        assert best_group(count, n) == pytest.approx((n * count / (n + 2)) ** 0.5, rel=0.23)


@pytest.mark.parametrize("group", GROUPS[1:])
def test_states_are_kept_at_the_start_of_each_group(group, monkeypatch):
    """Those that enter every `group`-th site, whatever the blocks."""
    kept, entered = [], []
    monkeypatch.setattr(module, "checkpoint", lambda f, X, f_=module.checkpoint, **k: kept.append(X) or f_(f, X, **k))
    made = stack("connection", pairs(), group=group)
    for site in sites(made).values():
        site.register_forward_pre_hook(lambda site, inputs: entered.append(inputs[0].detach()))
    made(entering(), nn.Identity())
    assert len(entered) == 4
    assert len(kept) == len(entered[::group])
    assert all(torch.equal(a, b) for a, b in zip(kept, entered[::group], strict=True))


@pytest.mark.parametrize(("how", "group"), WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_with_frozen_branches_and_streams_of_both_types(how, group, dtype):
    """A frozen branch behind a frozen entry has an output without gradient; and backward may come twice."""
    found = []
    for way in ("none", how):
        made = stack(way, pairs(), group=group).to(dtype)
        made.get_submodule("0").requires_grad_(False)
        made.get_submodule("1.b").branch.requires_grad_(False)
        loss = made(entering(dtype).detach(), nn.Identity()).float().square().sum()
        free = [parameter for parameter in made.parameters() if parameter.requires_grad]
        found.append([loss, *(g for _ in range(2) for g in torch.autograd.grad(loss, free, retain_graph=True))])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("how", HOW[1:])
def test_a_run_has_the_records_of_one_that_recomputes_nothing(small, tmp_path, monkeypatch, how):
    """With dropout, accumulation and maps on the way."""
    calls = []
    monkeypatch.setattr(module, "checkpoint", lambda *a, f=module.checkpoint, **k: calls.append(1) or f(*a, **k))
    fixed = {"model.dropout": 0.2, "model.layers": 2, "train.accumulation": 2, "log.maps_every": 2}
    records = []
    for way in ("none", how):
        assert not calls
        train(small(**fixed, **{"connection.name": "mhc", "train.recompute": way}), tmp_path / way)
        run = Run(tmp_path / way)
        lines = [line for kind in ("train", "eval", "maps") for line in run.results(kind)]
        records.append([{k: v for k, v in line.items() if k not in MEASURED} for line in lines])
    assert len(calls) == 6 * 2 * 2  # updates, micro-batches, blocks or, of four sites, groups
    assert {line["type"] for line in records[0]} == {"train", "eval", "maps"}
    assert records[0] == records[1]


def test_gradients_of_two_ranks(tmp_path):
    """Each rank checks its own: see `_rank`."""
    command = [sys.executable, __file__]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    options = dict(env=env, stderr=subprocess.PIPE, text=True)
    ranks = [subprocess.Popen([*command, str(rank), str(tmp_path / "store")], **options) for rank in range(2)]
    for rank in ranks:
        _, said = rank.communicate(timeout=120)
        assert rank.returncode == 0, said


def _rank(rank, store):
    """Under DDP, two micro-batches of which the last one synchronises: gradients equal to those of the plain way, and
    not just this rank's own."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    sizes = {"width": 16, "heads": 2, "layers": 2, "block_size": 8, "vocab_size": 64, "dropout": 0.2}
    overrides = {"connection.name": "mhc"} | {f"model.{name}": value for name, value in sizes.items()}
    config = load_config(Path(__file__).parents[2] / "params" / "gpt" / "tiny.yaml", overrides)
    plain = _gradients(nn.parallel.DistributedDataParallel(build_model(config)), rank)
    for how in HOW[1:]:
        model = build_model(config)
        recompute(model, how, 3)  # of four sites
        found = _gradients(nn.parallel.DistributedDataParallel(model), rank)
        assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True)), how
    assert not torch.equal(_gradients(build_model(config), rank)[0], plain[0])
    torch.distributed.destroy_process_group()


def _gradients(model, rank):
    torch.manual_seed(rank)
    for without_sync in (getattr(model, "no_sync", nullcontext), nullcontext):
        with without_sync():
            model({"inputs": torch.randint(64, (2, 8))}).logits.logsumexp(-1).mean().backward()
    return [parameter.grad for parameter in model.parameters()]


if __name__ == "__main__":
    _rank(int(sys.argv[1]), sys.argv[2])
