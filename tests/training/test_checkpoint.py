"""What a checkpoint says of itself is read before its weights."""

import json

import pytest

from mhcnb.errors import CheckpointError
from mhcnb.models.base import build_model
from mhcnb.run import Run
from mhcnb.training.checkpoint import load_model, save


@pytest.fixture
def saved(small, tmp_path):
    run = Run.create(tmp_path / "run", small())
    folder = save(run, 3, build_model(small()), small())
    run.release()
    return folder


def test_a_newer_format_is_refused_by_its_name(saved):
    (saved / "state.json").write_text(json.dumps({"format": 99, "step": 3}))
    with pytest.raises(CheckpointError, match=r"state.json: checkpoint format 99; .* up to 1: .*newer"):
        load_model(saved)


@pytest.mark.parametrize("text", ["", '{"format": 1', "[]", '{"step": 3}', "\ufffd"])
def test_a_torn_state_is_an_error_with_its_path(saved, text):
    (saved / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"state.json cannot be read .*not written to its end"):
        load_model(saved)


def test_weights_alone_load(saved):
    (saved / "state.json").unlink()
    assert load_model(saved)[1].model.name == "gpt"


@pytest.mark.parametrize("keep", [0, 7, 1000])
def test_truncated_weights_are_an_error_with_their_path(saved, keep):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model.safetensors cannot be read"):
        load_model(saved)
