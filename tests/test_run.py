"""The run folder: one writer, nothing lost, and what a reader sees while it grows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mhcnb import load_config
from mhcnb.durable import write_json
from mhcnb.errors import CheckpointError, RunError
from mhcnb.records import read_jsonl
from mhcnb.run import STATES, Run, find_runs

TINY = Path(__file__).parents[1] / "params" / "gpt" / "tiny.yaml"


@pytest.fixture
def config():
    return load_config(TINY)


def elsewhere(code, path):
    """Runs `code` in another process, with a config at hand; its last line of output."""
    start = (
        "import os, sys; from mhcnb import load_config; from mhcnb.run import Run; config = load_config(sys.argv[2])\n"
    )
    command = [sys.executable, "-c", start + code, str(path), str(TINY)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr


SECOND_WRITER = """
from mhcnb.errors import RunError
try:
    Run.create(sys.argv[1], config)
except RunError as error:
    print("refused:", error)
else:
    print("created")
"""


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# writing -------------------------------------------------------------------------------------------------------------


def test_create_and_open(tmp_path, config):
    run = Run.create(tmp_path / "a", config)
    assert run.name == "a"
    assert Run.open(tmp_path / "a").config == config
    status = run.status()
    assert set(status) == {"state", "step", "reason", "heartbeat", "pid", "host", "words"}
    assert (status["state"], status["step"]) == ("starting", 0)
    for state in STATES:
        run.set_status(state, 3, "why")
        assert (run.status()["state"], run.status()["step"], run.status()["reason"]) == (state, 3, "why")
    with pytest.raises(AssertionError):
        run.set_status("finished", 3)


def test_what_is_not_a_run(tmp_path):
    with pytest.raises(RunError, match=r"is not a run folder: it has no config.yaml; `mhcnb train PARAMS --out"):
        Run.open(tmp_path)


def test_a_second_writer_is_refused_with_the_first_ones_pid(tmp_path, config):
    run = Run.create(tmp_path / "a", config)
    run.append({"type": "train", "step": 1})
    before = files(tmp_path)
    said = elsewhere(SECOND_WRITER, tmp_path / "a")
    status = run.status()
    assert said.startswith("refused:")
    assert f"is being written by process {status['pid']} on {status['host']} (state starting)" in said
    assert files(tmp_path) == before
    with pytest.raises(RunError, match="is being written by"):
        Run.create(tmp_path / "a", config)


def test_the_lock_dies_with_its_process(tmp_path, config):
    assert elsewhere(SECOND_WRITER, tmp_path / "a") == "created"
    killed = "held = Run.create(sys.argv[1], config); print('made', flush=True); os.kill(os.getpid(), 9)"
    assert elsewhere(killed, tmp_path / "b") == "made"
    for name in ("a", "b"):
        assert Run.create(tmp_path / name, config).status()["state"] == "starting"


def test_a_run_without_checkpoint_is_started_over_and_its_lines_kept(tmp_path, config):
    path = tmp_path / "a"
    for attempt in range(3):
        run = Run.create(path, config)
        assert run.results() == []
        assert run.summary() == {}
        assert not run.requested("stop")
        run.append({"type": "train", "step": attempt})
        run.write_summary({"attempt": attempt})
        run.request("stop")
        assert run.requested("stop")
        run._held.release()
    kept = {p.name: read_jsonl(p)[0]["step"] for p in path.glob("results*.jsonl")}
    assert kept == {"results.1.jsonl": 0, "results.2.jsonl": 1, "results.jsonl": 2}
    assert json.loads((path / "summary.2.json").read_text())["attempt"] == 1


def test_a_run_with_checkpoints_is_refused_and_untouched(tmp_path, config):
    run = Run.create(tmp_path / "a", config)
    run.set_status("done", 200)
    (run.path / "checkpoints" / "step-00000200").mkdir(parents=True)
    run.append({"type": "train", "step": 200})
    run._held.release()
    before = files(tmp_path)
    with pytest.raises(RunError, match=r"holds a run with checkpoints \(state: done, step 200\); nothing was changed"):
        Run.create(tmp_path / "a", config)
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", ["a", "A-b_c.d", "lr=0.001,seed=2", "x" * 100, "_a", "-a"])
def test_names(tmp_path, config, name):
    assert Run.create(tmp_path / name, config).name == name


@pytest.mark.parametrize("name", [".a", "a b", "a\n", "ä", "x" * 101, "a;rm", "a'b", "$HOME", "*"])
def test_names_that_are_refused(tmp_path, config, name):
    with pytest.raises(RunError, match="is no name for a run"):
        Run.create(tmp_path / name, config)
    assert not list(tmp_path.iterdir())


def test_where_no_folder_can_be_made(tmp_path, config):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunError, match=r"cannot write to .*errno \d+\); give another --out"):
            Run.create(path, config)
    assert (tmp_path / "file").read_text() == "mine"


def test_write_json_leaves_no_part_behind(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1, "p": tmp_path})
    write_json(path, {"x": 2})
    assert json.loads(path.read_text()) == {"x": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    with pytest.raises(ValueError, match="Circular"):
        write_json(path, (loop := []) or loop.append(loop) or loop)
    assert json.loads(path.read_text()) == {"x": 2}


# reading -------------------------------------------------------------------------------------------------------------


def test_results_by_type(tmp_path, config):
    run = Run.create(tmp_path / "a", config)
    records = [{"type": kind, "step": step} for step in range(3) for kind in ("train", "eval")]
    for record in records:
        run.append(record)
    assert run.results() == records
    assert [r["step"] for r in run.results("eval")] == [0, 1, 2]
    assert run.results("maps") == []


def test_a_file_cut_anywhere_gives_the_whole_lines_before_the_cut(tmp_path):
    """Every byte at which a writer may have been killed."""
    path, records = tmp_path / "r.jsonl", [{"type": "train", "step": i, "loss": 1 / 3} for i in range(3)]
    lines = [json.dumps(record) + "\n" for record in records]
    text = "".join(lines)
    for cut in range(len(text) + 1):
        path.write_text(text[:cut])
        whole = sum(len("".join(lines[: i + 1])) - 1 <= cut for i in range(3))
        assert read_jsonl(path) == records[:whole]


def test_a_bad_line_in_the_middle_is_an_error(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"a": 1}\n{"a": \n\n{"a": 3}\n')
    with pytest.raises(RunError, match=r"r.jsonl:2: not a record"):
        read_jsonl(path)
    path.write_text('{"a": 1}\n\n{"a": 3}\n{"a"\n\n')
    assert read_jsonl(path) == [{"a": 1}, {"a": 3}]
    assert read_jsonl(tmp_path / "none.jsonl") == []


def test_status_that_is_not_json(tmp_path, config):
    run = Run.create(tmp_path / "a", config)
    (run.path / "status.json").write_text("{")
    with pytest.raises(RunError, match=r"status.json:1: not valid JSON"):
        run.status()


def test_checkpoints_are_in_order(tmp_path, config):
    run = Run.create(tmp_path / "a", config)
    with pytest.raises(CheckpointError, match=r"has no checkpoint \(state: starting\)"):
        run.last_checkpoint()
    for step in (1000, 5, 20):
        (run.path / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    (run.path / "checkpoints" / ".step-00002000.part").mkdir()
    assert [p.name for p in run.checkpoints()] == ["step-00000005", "step-00000020", "step-00001000"]
    assert run.last_checkpoint().name == "step-00001000"


def test_find_runs(tmp_path, config):
    for name in ("sweep/b", "sweep/a", "single"):
        run = Run.create(tmp_path / name, config)
        checkpoint = run.path / "checkpoints" / "step-00000001"
        checkpoint.mkdir(parents=True)
        (checkpoint / "config.yaml").write_text("")
    assert [str(run.path.relative_to(tmp_path)) for run in find_runs(tmp_path)] == ["single", "sweep/a", "sweep/b"]
    assert [run.name for run in find_runs(tmp_path / "single")] == ["single"]
    assert find_runs(tmp_path / "nowhere") == []


def test_env_holds_no_environment(tmp_path, config, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    run = Run.create(tmp_path / "a", config)
    run.write_env({"device": "cpu"})
    assert {"mhcnb", "torch", "python", "platform", "host", "cpus", "pid", "device"} <= set(run.env())
    assert "hf_secret" not in (run.path / "env.json").read_text()
