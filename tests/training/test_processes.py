"""Real processes: the command line, ranks under torchrun, signals."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from mhcnb.run import Run
from mhcnb.training.checkpoint import load_model
from mhcnb.training.loop import train


def losses(run):
    return [record["loss"] for record in run.results("train")]


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


def test_a_bad_start_is_a_message_and_changes_nothing(mhcnb, params, tmp_path):
    path = params()
    before = sorted(tmp_path.rglob("*"))
    done = mhcnb("train", path, "train.learning_rat=1", "--out", "run")
    assert done.returncode == 2
    assert "unknown key train.learning_rat" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_two_ranks_give_the_losses_of_one(mhcnb, small, params, tmp_path):
    """Sliced micro-batch and shared accumulation, 20 steps."""
    for name, batch in {"sliced": (4, 1), "shared": (2, 2)}.items():
        given = {"train.steps": 20, "train.micro_batch": batch[0], "train.accumulation": batch[1]}
        one, two = Run(tmp_path / f"{name}1"), Run(tmp_path / f"{name}2")
        train(small(**given), one.path)
        done = mhcnb("train", params(**given), "--out", two.path, ranks=2)
        assert done.returncode == 0, done.stderr
        assert len(losses(two)) == 20
        assert losses(two) == pytest.approx(losses(one), abs=1e-5)
        assert two.summary()["final_val_loss"] == pytest.approx(one.summary()["final_val_loss"], abs=1e-5)
        assert two.summary()["world_size"] == 2


def test_a_refusal_reaches_all_ranks(mhcnb, params, tmp_path):
    begun = time.monotonic()
    done = mhcnb("train", params(**{"train.micro_batch": 3}), "--out", "run", ranks=2, timeout=60)
    assert done.returncode != 0
    assert "nearest train.micro_batch: 2 or 4" in done.stderr
    assert time.monotonic() - begun < 30
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
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


@pytest.mark.skipif(sys.platform != "linux", reason="a rank's number is looked up as Linux has it")
def test_a_signal_to_one_rank_stops_all_for_good(params, tmp_path):
    """The reason is known where the run folder is written, and the launcher does not take it for a failure."""
    run = Run(tmp_path / "run")
    with _started(params(**{"train.steps": 100_000}), run, "--max-restarts=1", ranks=2) as process:
        _wait_for_step(run, 3)
        (other,) = _children(process.pid) - {run.status()["pid"]}
        os.kill(other, signal.SIGUSR1)
        assert process.wait(60) == 0
    assert run.status()["state"] == "stopped"
    assert run.status()["reason"] == "asked on another rank"
    load_model(run.path)


def test_a_rank_that_hangs_is_a_failure_in_words_with_the_stacks_of_who_waited(params, tmp_path):
    run = Run(tmp_path / "run")
    path = params(**{"train.steps": 100_000, "train.timeout_s": 6})
    with _pair(path, run) as (waiting, hanging):
        _wait_for_step(run, 3)
        hanging.send_signal(signal.SIGSTOP)
        since = time.monotonic()
        _, said = waiting.communicate(timeout=60)
        assert time.monotonic() - since < 6 + 10
    assert waiting.returncode == 2
    assert run.status()["state"] == "failed"
    for text in (said, run.status()["reason"]):
        assert "rank 0 of 2 has lost another one, or waited for it longer than train.timeout_s: " in text
        assert "Timed out waiting 6000ms" in text
    stacks = (run.path / "logs" / "rank0.log").read_text()
    assert "rank 0: nothing has ended for" in stacks
    assert "training/loop.py" in stacks  # whichever exchange of an update it was that waited


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


def _started(path, run, *options, ranks=0):
    """The training in a process, or under torchrun with `options`."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}", *options] if ranks else []
    command = [sys.executable, *torchrun, "-m", "mhcnb", "train", str(path), "--out", str(run.path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


@contextmanager
def _pair(path, run, *overrides):
    """Two ranks without a launcher, as a scheduler may start them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "OMP_NUM_THREADS": "1"}
    ranks = []
    for rank, more in enumerate(overrides or ([], [])):
        command = [sys.executable, "-m", "mhcnb", "train", str(path), *more, "--out", str(run.path)]
        env = os.environ | place | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        ranks.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
    try:
        yield ranks
    finally:
        for process in ranks:
            process.kill()
            process.communicate()


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return set(map(int, file.read().split()))


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
