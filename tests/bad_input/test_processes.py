"""Rows 34, 35 and 37-40: batches, number types, devices and processes that do not fit together."""

import os
import socket
import subprocess
import sys

import pytest
import torch

from mhcnb.errors import ConfigError, RunError


@pytest.fixture
def rank(monkeypatch):
    """rank(RANK=0, WORLD_SIZE=2, ...): this process's environment as a launcher makes it."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)

    def environment(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, str(value))

    return environment


@pytest.fixture
def two_gpus(monkeypatch):
    """As on a machine with two CUDA devices, as far as it can be asked."""
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")


SHARES = {  # micro-batch, accumulation, processes -> what is said
    "row34 5 rows for 2": (5, 1, 2, "by 2 processes: 5 is not divisible by 2; nearest train.micro_batch: 4 or 6"),
    "row34 2 rows for 3": (2, 1, 3, "by 3 processes: 2 is not divisible by 3; nearest train.micro_batch: 3"),
    "row35 3 for 2": (4, 3, 2, "by 2 processes: 3 is not divisible by 2; nearest train.accumulation: 2 or 4"),
    "row35 2 for 4": (4, 2, 4, "by 4 processes: 2 is not divisible by 4; nearest train.accumulation: 4"),
}


@pytest.mark.parametrize(("micro", "accumulation", "world", "says"), SHARES.values(), ids=SHARES)
def test_a_batch_that_cannot_be_shared(refused, params, rank, micro, accumulation, world, says):
    rank(RANK=1, WORLD_SIZE=world, LOCAL_RANK=1)
    batch = [f"train.micro_batch={micro}", f"train.accumulation={accumulation}"]
    says = f"a global batch of train.micro_batch {micro} x train.accumulation {accumulation} cannot be shared {says}"
    refused(ConfigError, "train", params(), *batch, "--out", "run", says=[says])


@pytest.mark.skipif(torch.accelerator.is_available(), reason="on a machine with an accelerator it is chosen")
def test_row37_float16_on_a_cpu(refused, params, rank):
    says = ["train.dtype float16 needs CUDA; on a CPU use float32 or bfloat16"]
    refused(ConfigError, "train", params(), "train.dtype=float16", "--out", "run", says=says)


def test_row37_bfloat16_on_a_gpu_without(mhcnb, unchanged, params, rank, two_gpus, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "set_device_index", lambda index: None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    path = params(**{"train.dtype": "bfloat16"})
    with unchanged():
        done = mhcnb("train", path, "--out", "run")
    assert done.exit_code == 2
    assert done.stderr == "ConfigError: train.dtype bfloat16: this GPU has none; use float16 or float32\n"


@pytest.mark.skipif(torch.accelerator.is_available(), reason="needs a machine without an accelerator")
def test_row38_no_such_device(refused, params, rank, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    says = ["train.device is cuda, but this process sees no such device (devices: cpu; CUDA_VISIBLE_DEVICES 7)"]
    refused(ConfigError, "train", params(), "train.device=cuda", "--out", "run", says=[*says, "use train.device=auto"])


def test_row38_more_processes_than_devices(refused, params, rank, two_gpus):
    rank(RANK=2, WORLD_SIZE=4, LOCAL_RANK=2)
    says = [
        "local rank 2 has no device: 2 cuda device(s) are visible (CUDA_VISIBLE_DEVICES 3,5); start at most 2 processes"
    ]
    refused(ConfigError, "train", params(), "--out", "run", says=says)


def test_row39_half_a_rank(refused, params, rank):
    rank(RANK=0)
    says = ["RANK=0 is set but WORLD_SIZE, LOCAL_RANK is not; start several processes with `torchrun --standalone"]
    refused(ConfigError, "train", params(), "--out", "run", says=says)


def test_row39_a_taken_port(mhcnb, unchanged, params, rank):
    path = params()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        rank(RANK=0, WORLD_SIZE=2, LOCAL_RANK=0, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        with unchanged():
            done = mhcnb("train", path, "--out", "run")
    assert done.exit_code == 2, done.stderr
    assert f"RunError: rank 0 of 2 cannot join the others at 127.0.0.1:{port}" in done.stderr


def test_row40_processes_with_different_configurations(unchanged, params, tmp_path):
    """Two processes, started by hand: both say which key differs and how."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = params()
    with unchanged():
        processes = [_start(path, rank, port, tmp_path) for rank in range(2)]
        said = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], said
    says = f"{RunError.__name__}: the processes were started with different configurations (rank 0: 0.01, rank 1: 0.001"
    assert all(says in text and "train.lr" in text for text in said), said


def _start(path, rank, port, folder):
    values = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return subprocess.Popen(
        [sys.executable, "-m", "mhcnb", "train", str(path), f"train.lr=1e-{rank + 2}", "--out", "run"],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | {name: str(value) for name, value in values.items()},
        stderr=subprocess.PIPE,
        text=True,
    )
