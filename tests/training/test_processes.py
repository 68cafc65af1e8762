"""Real processes: the command line, ranks under torchrun, signals."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from mhcnb.run import Run
from mhcnb.training.checkpoint import load_model


def losses(run):
    return [record["loss"] for record in Run(run).results("train")]


def test_train_evaluate_show_from_the_command_line(mhcnb, params, tmp_path):
    done = mhcnb("train", params(), "connection.name=hc", "train.steps=3", "--out", "run")
    assert done.returncode == 0, done.stderr
    found = mhcnb("evaluate", "run")
    assert json.loads(found.stdout)["loss"] == pytest.approx(
        Run(tmp_path / "run").summary()["final_val_loss"], abs=1e-6
    )
    assert "nats a token (perplexity" in found.stderr
    shown = mhcnb("show", "run").stdout
    assert "hc" in shown
    assert "val loss" in shown


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["train.learning_rat=1"], "unknown key train.learning_rat"),
        (["train.lr=fast"], "train.lr = 'fast'"),
        (["connection.name=mch"], "did you mean mhc?"),
        (["data.root=nowhere"], "nowhere"),
        (["train.steps"], "expected key=value"),
        (["train.device=cuda"], "train.device is cuda"),
    ],
)
def test_a_bad_start_is_a_message_and_changes_nothing(mhcnb, params, tmp_path, args, words):
    path = params()
    before = sorted(tmp_path.rglob("*"))
    done = mhcnb("train", path, *args, "--out", "run")
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_two_ranks_give_the_losses_of_one(mhcnb, params, tmp_path):
    """Sliced micro-batch and shared accumulation, 20 steps."""
    for name, batch in {"sliced": (4, 1), "shared": (2, 2)}.items():
        path = params(**{"train.steps": 20, "train.micro_batch": batch[0], "train.accumulation": batch[1]})
        for ranks in (0, 2):
            done = mhcnb("train", path, "--out", f"{name}{ranks}", ranks=ranks)
            assert done.returncode == 0, done.stderr
        one, two = (losses(tmp_path / f"{name}{ranks}") for ranks in (0, 2))
        assert len(two) == 20
        assert two == pytest.approx(one, abs=1e-5)
        summaries = [Run(tmp_path / f"{name}{ranks}").summary() for ranks in (0, 2)]
        assert summaries[0]["final_val_loss"] == pytest.approx(summaries[1]["final_val_loss"], abs=1e-5)
        assert summaries[1]["world_size"] == 2


def test_a_refusal_reaches_all_ranks(mhcnb, params, tmp_path):
    begun = time.monotonic()
    done = mhcnb("train", params(**{"train.micro_batch": 3}), "--out", "run", ranks=2, timeout=60)
    assert done.returncode != 0
    assert "nearest train.micro_batch: 2 or 4" in done.stderr
    assert time.monotonic() - begun < 30
    assert not (tmp_path / "run").exists()


def test_a_taken_port_is_named(mhcnb, params):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        env = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        done = mhcnb("train", params(), "--out", "run", env=env, timeout=60)
    assert done.returncode == 2
    assert f"rank 0 of 2 cannot join the others at 127.0.0.1:{port}" in done.stderr


def test_ranks_with_different_configurations_are_refused_on_all(params, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    processes = []
    for rank in range(2):
        env = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, "-m", "mhcnb", "train", str(params()), f"train.lr=1e-{rank + 2}", "--out", "run"]
        environment = os.environ | {name: str(value) for name, value in env.items()}
        processes.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True))
    for process in processes:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 2
        assert "the processes were started with different configurations (rank 0: " in said
        assert "train.lr" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_at_a_step_boundary(params, tmp_path, number):
    run = Run(tmp_path / "run")
    with _started(params(**{"train.steps": 100_000}), run) as process:
        _wait_for_step(run, 3)
        process.send_signal(number)
        assert process.wait(60) == 130
    status = run.status()
    assert status["state"] == "stopped"
    assert status["reason"] == f"asked by {number.name}"
    assert run.last_checkpoint().name == f"step-{status['step']:08d}"
    load_model(run.path)


def test_a_signal_to_the_whole_group_of_ranks_stops_them_alike(params, tmp_path):
    """As a terminal sends Ctrl-C: to the launcher and to every rank, and the launcher passes it on once more."""
    run = Run(tmp_path / "run")
    with _started(params(**{"train.steps": 100_000}), run, ranks=2) as process:
        _wait_for_step(run, 3)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)
    assert run.status()["state"] == "stopped"
    load_model(run.path)


@pytest.mark.skipif(sys.platform != "linux", reason="the parent's death is signalled by Linux")
def test_ranks_do_not_outlive_a_killed_launcher(params, tmp_path):
    run = Run(tmp_path / "run")
    with _started(params(**{"train.steps": 100_000}), run, ranks=2) as process:
        _wait_for_step(run, 3)
        rank = run.status()["pid"]
        process.kill()
        process.wait(10)
    deadline = time.monotonic() + 10
    while _alive(rank) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive(rank)


def _started(path, run, ranks=0):
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks else []
    command = [sys.executable, *torchrun, "-m", "mhcnb", "train", str(path), "--out", str(run.path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def _wait_for_step(run, step):
    deadline = time.monotonic() + 60
    while not any(record["step"] >= step for record in run.results("train")):
        assert time.monotonic() < deadline, "the training did not come so far"
        time.sleep(0.1)


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
