"""What a checkpoint says of itself is read before its weights."""

import errno
import json
import random
import subprocess
import sys

import pytest

from mhcnb import durable
from mhcnb.config import as_dict
from mhcnb.durable import MANIFEST, verify
from mhcnb.errors import CheckpointError, RunError
from mhcnb.models.base import build_model
from mhcnb.run import Run
from mhcnb.training import checkpoint
from mhcnb.training.checkpoint import load_model, save
from mhcnb.training.loop import train
from mhcnb.yamlfile import dump


@pytest.fixture
def saved(small, tmp_path):
    run = Run.create(tmp_path / "run", small())
    folder = save(run, 3, build_model(small()), small())
    run.release()
    return folder


def test_a_newer_format_is_refused_by_its_name(saved):
    (saved / "state.json").write_text(json.dumps({"format": 99, "step": 3}))
    with pytest.raises(CheckpointError, match=r"state.json: checkpoint format 99; .* up to 2: .*newer"):
        load_model(saved)


@pytest.mark.parametrize("text", ["", '{"format": 1', "[]", '{"step": 3}', "\ufffd"])
def test_a_torn_state_is_an_error_with_its_path(saved, text):
    (saved / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"state.json cannot be read .*not written to its end"):
        load_model(saved)


def test_weights_and_configuration_alone_load_as_they_are(saved):
    for name in ("state.json", "manifest.json"):
        (saved / name).unlink()
    assert load_model(saved)[1].model.name == "gpt"
    (saved / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"model.safetensors cannot be read"):
        load_model(saved)


@pytest.mark.parametrize("name", ["model.safetensors", "config.yaml", "state.json", "manifest.json"])
def test_a_missing_file_is_an_error_with_its_name(saved, name):
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name} (is missing|cannot be read)|is not a run folder"):
        load_model(saved if name != "model.safetensors" else saved.parents[1])


@pytest.mark.parametrize("keep", [0, 7, 1000])
def test_truncated_weights_are_an_error_with_their_path(saved, keep):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=rf"model.safetensors: {keep:,} bytes, [\d,]+ were written"):
        load_model(saved)


def test_every_flipped_bit_is_found(small, tmp_path):
    """One in each of many places of every file: all but the manifest's own spaces and digits decide something."""
    train(small(**{"train.steps": 2}), tmp_path / "run")
    folder = Run(tmp_path / "run").last_checkpoint()
    rng = random.Random(0)
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for _ in range(40):
            place, bit = rng.randrange(len(whole)), rng.randrange(8)
            path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :])
            if path.name == MANIFEST and whole[place : place + 1].isspace():
                continue
            with pytest.raises(CheckpointError):
                verify(folder)
        path.write_bytes(whole)
    verify(folder)


def test_what_is_there_is_never_written_again(small, saved):
    run, before = Run(saved.parents[1]), {path: path.read_bytes() for path in saved.iterdir()}
    assert save(run, 3, build_model(small(seed=5)), small()) == saved
    assert {path: path.read_bytes() for path in saved.iterdir()} == before


@pytest.mark.parametrize("stage", ["_fill", "write_manifest", "publish"])
def test_a_save_that_fails_leaves_nothing_and_harms_nothing(small, saved, monkeypatch, stage):
    """The disk is full at each stage."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint if stage == "_fill" else durable, stage, full)
    with pytest.raises(RunError, match=r"cannot save .*step-00000004: .*No space left.*MB are free there"):
        save(Run(saved.parents[1]), 4, build_model(small()), small())
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    verify(saved)


def test_a_full_disk_is_named_though_torch_calls_it_something_else(small, tmp_path):
    """A limit on the size of files stands for it; in a process of its own, for it cannot be raised again."""
    code = (
        "import resource, signal, sys; from mhcnb.config import load_config; from mhcnb.training.loop import train\n"
        "from pathlib import Path\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try: train(load_config(sys.argv[1]), Path(sys.argv[2]))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    (tmp_path / "small.yaml").write_text(dump(as_dict(small(**{"train.save_every": 1}))))
    arguments = [str(tmp_path / "small.yaml"), str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert "RunError cannot save" in done.stdout
    assert "File too large" in done.stdout
    assert done.stderr.count("training goes on, the next save is tried in its turn") == 2
    run = Run(tmp_path / "run")
    assert run.checkpoints() == []
    assert run.status()["state"] == "failed"
    assert run.status()["step"] in (3, 4)  # the third failure is known when its turn comes
    assert [r["step"] for r in run.results("train")] == [1, 2, 3, 4][: len(run.results("train"))]
