"""A model that carries its state, with two optimizers: whatever the world, and however often it is interrupted."""

import multiprocessing
import os
import socket
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mhcnb.config import load_config
from mhcnb.models.base import build_model
from mhcnb.run import Run
from mhcnb.training.checkpoint import CARRY, save
from mhcnb.training.loop import train
from mhcnb.training.optim import build_optimizer, set_rate
from mhcnb.training.setup import open_source

from ..faults.oracle import judge
from .killed import EVERY_STEP, killed_after

PRESET = Path(__file__).parents[2] / "params" / "hrm" / "tiny4x4.yaml"


@pytest.fixture
def tiny(tmp_path):
    """tiny(**{"train.steps": 3}): rows that halt early, at the limit, and not where exploration forbids it."""
    base = {
        "model.width": 16, "model.halt_max_steps": 5, "model.halt_exploration": 0.5, "data.train": 40, "data.test": 8,
        "data.cache": str(tmp_path / "cache"), "train.micro_batch": 4, "train.lr": 1e-3, "train.puzzle_lr": 1e-2,
        "train.warmup": 0, "train.eval_batches": 1, "log.every": 1,
    }  # fmt: skip
    return lambda **overrides: load_config(PRESET, base | overrides)


@pytest.mark.parametrize("given", [{}, {"connection.name": "mhc", "train.accumulation": 2}], ids=["residual", "mhc"])
def test_resume_is_bit_equal_with_carry_both_optimizers_and_position(tiny, tmp_path, given):
    config = tiny(**EVERY_STEP, **given, **{"log.every": 2})  # metrics of two updates: one before the kill, one after
    train(config, tmp_path / "whole")
    for step in (3, 6):
        left = killed_after(tmp_path / "whole", step, tmp_path / f"after-{step}")
        torch.manual_seed(torch.seed())
        train(config.model_copy(update={"train": config.train.model_copy(update={"resume": "auto"})}), left)
        assert judge(left, tmp_path / "whole").wrong == ()
        assert same_carry(left, tmp_path / "whole")
    assert set(load_file(Run(left).last_checkpoint() / CARRY)) == {
        "z_H", "z_L", "steps", "halted", "data.inputs", "data.labels", "data.puzzle_identifiers",
    }  # fmt: skip


def same_carry(run, whole):
    ours, theirs = (load_file(Run(path).last_checkpoint() / CARRY) for path in (run, whole))
    return ours.keys() == theirs.keys() and all(torch.equal(x, theirs[name]) for name, x in ours.items())


def restless(config, out):
    """A run with weights of which some rows halt at once, others when they may, others never by their own will. They
    are small: opinions on going on grow with them, and so does the rounding in what they are worth."""
    model = build_model(open_source(config)[1])
    with torch.no_grad():
        model.q_head.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
        model.q_head.bias.zero_()
    run = Run(out)
    run.make(config)
    save(run, 0, model, open_source(config)[1])


def two_ranks(work):
    """work() on two ranks, forked from this process, which has torch loaded already."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def rank(number):
        torch.set_num_threads(1)
        place = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": 2, "MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
        os.environ |= {name: str(value) for name, value in place.items()}
        work()
        os._exit(0)

    ranks = [multiprocessing.get_context("fork").Process(target=rank, args=(number,)) for number in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
        process.kill()
    assert [process.exitcode for process in ranks] == [0, 0]


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
@pytest.mark.parametrize("given", [{}, {"train.accumulation": 2, "train.micro_batch": 2}], ids=["slices", "in turn"])
def test_two_ranks_are_one_process(tiny, tmp_path, given):
    """Over 20 updates from a start with opinions on halting: losses, steps of halted rows, weights and the table."""
    restless(tiny(), tmp_path / "start")
    config = tiny(**given, **{"train.steps": 20, "train.eval_every": 20, "train.weights": str(tmp_path / "start")})
    train(config, tmp_path / "one")
    two_ranks(lambda: train(config, tmp_path / "two"))
    one, two = Run(tmp_path / "one"), Run(tmp_path / "two")
    assert two.summary()["world_size"] == 2
    for a, b in zip(one.results("train"), two.results("train"), strict=True):
        for name in ("loss", "lm_loss", "q_halt_loss", "q_continue_loss"):
            assert b[name] == pytest.approx(a[name], abs=1e-5)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-4)
        assert b.get("steps") == a.get("steps")
    halted = {record["steps"] for record in one.results("train") if "steps" in record}
    assert min(halted) < 5
    assert len(halted) > 3
    weights = [load_file(run.last_checkpoint() / "model.safetensors") for run in (one, two)]
    assert weights[0]["puzzles.rows"].abs().max() > 0.05
    for name, x in weights[0].items():
        torch.testing.assert_close(weights[1][name], x, rtol=0, atol=1e-4, msg=name)


def test_an_own_rate_and_decay_of_the_table(tiny):
    config = tiny(**{"train.weight_decay": 0.5, "train.puzzle_weight_decay": 0.25})
    optimizer = build_optimizer(build_model(config), config.train)
    set_rate(optimizer, 5e-4)
    rates = {group["name"]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert rates == {"matrices": (5e-4, 0.5), "puzzles": (pytest.approx(5e-3), 0.25)}
