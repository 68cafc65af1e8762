"""A ckpt.pt as mhc-lite's train.py writes it becomes a run; a file that holds code is refused and not run."""

import argparse
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mhcnb.analysis.record import record
from mhcnb.cli import main
from mhcnb.errors import CheckpointError, ConfigError, DataError, RunError
from mhcnb.interop.ckpt import read_ckpt
from mhcnb.interop.run_folder import import_mhc_lite
from mhcnb.layers.site import sites
from mhcnb.training.checkpoint import load_model
from mhcnb.training.evaluate import evaluate_run

GOLDEN = Path(__file__).parents[1] / "golden"
METHODS = ["residual", "hc", "mhc", "mhc_lite"]


def golden(method):
    with np.load(GOLDEN / f"gpt_{method}_seed7.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def contents(method="mhc", prefix=""):
    """What train.py saves, the optimizer's state included: config has plain values only."""
    state = {f"{prefix}{k.removeprefix('param.')}": v for k, v in golden(method).items() if k.startswith("param.")}
    args = dict(n_layer=2, n_head=2, n_embd=16, block_size=16, bias=False, vocab_size=61, dropout=0.0)
    parameter = next(iter(state.values())).clone().requires_grad_()
    optimizer = torch.optim.AdamW([parameter], lr=6e-4)
    parameter.sum().backward()
    optimizer.step()
    config = dict(learning_rate=6e-4, min_lr=6e-5, warmup_iters=200, batch_size=12, gradient_accumulation_steps=40)
    config |= dict(weight_decay=0.1, beta1=0.9, beta2=0.95, grad_clip=1.0, eval_interval=2000, eval_iters=200)
    config |= dict(seed=1337, dataset="openwebtext", out_dir="out", compile=False, dtype="bfloat16", max_iters=600000)
    return {
        "model": state,
        "optimizer": optimizer.state_dict(),
        "model_args": args | dict(hyper_conn_n=4, hyper_conn_type=method),
        "iter_num": 4000,
        "best_val_loss": torch.tensor(3.25),
        "config": config,
    }


@pytest.fixture
def ckpt(tmp_path):
    """ckpt(contents) -> the path of the file."""

    def write(what):
        torch.save(what, tmp_path / "ckpt.pt")
        return tmp_path / "ckpt.pt"

    return write


@pytest.mark.parametrize("method", METHODS)
def test_an_imported_run_gives_their_logits(ckpt, tmp_path, method):
    run = import_mhc_lite(ckpt(contents(method, "_orig_mod.")), tmp_path / "run")
    model, config = load_model(run.path)
    g = golden(method)
    logits = model({"inputs": g["idx"]}).logits
    torch.testing.assert_close(logits.double(), g["logits"], rtol=1e-4, atol=1e-5)  # float32, theirs float64
    assert config == run.config
    assert (config.connection.name, config.seed, config.train.steps) == (method, 1337, 4000)
    assert (config.train.lr, config.train.accumulation, config.train.betas) == (6e-4, 40, (0.9, 0.95))


def test_it_is_a_finished_run(ckpt, tmp_path):
    run = import_mhc_lite(ckpt(contents()), tmp_path / "run")
    assert (run.status()["state"], run.status()["step"]) == ("done", 4000)
    assert [path.name for path in run.checkpoints()] == ["step-00004000"]
    assert run.summary()["final_val_loss"] == 3.25
    assert run.env()["imported"]["config"]["dataset"] == "openwebtext"
    assert run.env()["imported"]["model_args"]["n_head"] == 2
    shown = CliRunner().invoke(main, ["show", str(run.path)])
    assert "3.250" in shown.output
    assert "done" in shown.output


def test_its_maps_can_be_recorded_and_its_loss_measured(ckpt, tmp_path, shards):
    what = contents()  # the shards have 64 ids, the model 61: as a padded embedding
    wte = what["model"]["transformer.wte.weight"]
    what["model"]["transformer.wte.weight"] = torch.cat([wte, wte[:3]])
    what["model_args"]["vocab_size"] = 64
    run = import_mhc_lite(ckpt(what), tmp_path / "run", data=str(shards))
    model, _ = load_model(run.path)
    assert [r.site for r in record(model, {"inputs": torch.zeros(1, 4, dtype=torch.long)})] == list(sites(model))
    assert evaluate_run(run.path, {"train.eval_batches": 1})["loss"] > 0


def test_the_command(ckpt, tmp_path):
    out = tmp_path / "run"
    done = CliRunner().invoke(main, ["import", "mhc-lite", str(ckpt(contents())), str(out)])
    assert done.exit_code == 0, done.output
    assert "mhc" in done.output
    assert "DATA_ROOT" in done.output
    assert json.loads((out / "status.json").read_text())["state"] == "done"


def test_a_run_is_not_overwritten(ckpt, tmp_path):
    file = ckpt(contents())
    import_mhc_lite(file, tmp_path / "run")
    with pytest.raises(RunError, match="holds a run with checkpoints"):
        import_mhc_lite(file, tmp_path / "run")


# refusals -------------------------------------------------------------------------------------------------------------


class Evil:
    """Unpickled in the ordinary way, it makes a file."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return os.mkdir, (str(self.proof),)


@pytest.mark.parametrize("place", ["top", "model", "config", "optimizer"])
def test_code_in_a_file_is_named_and_not_run(ckpt, tmp_path, place):
    what, evil = contents(), Evil(tmp_path / "proof")
    (what if place == "top" else what[place])["x"] = evil
    file = ckpt(what)
    with pytest.raises(CheckpointError, match=r"holds (posix|nt)\.mkdir, which is neither"):
        import_mhc_lite(file, tmp_path / "run")
    assert not (tmp_path / "proof").exists()
    assert not (tmp_path / "run").exists()
    torch.load(file, weights_only=False)  # what the test guards against
    assert (tmp_path / "proof").exists()


@pytest.mark.parametrize(
    ("value", "name"), [(argparse.Namespace(a=1), r"argparse\.Namespace"), (np.float64(3), "numpy.*scalar")]
)
def test_harmless_objects_are_refused_by_name_too(ckpt, tmp_path, value, name):
    with pytest.raises(CheckpointError, match=f"holds {name}"):
        import_mhc_lite(ckpt(contents() | {"best_val_loss": value}), tmp_path / "run")


@pytest.mark.parametrize("kind", ["text", "empty", "cut", "plain pickle"])
def test_what_is_no_checkpoint(ckpt, tmp_path, kind):
    whole = ckpt(contents()).read_bytes()
    data = {"text": b"hello", "empty": b"", "cut": whole[: len(whole) // 2], "plain pickle": pickle.dumps({"a": 1})}
    (tmp_path / "ckpt.pt").write_bytes(data[kind])
    with pytest.raises(CheckpointError, match=r"ckpt\.pt"):
        read_ckpt(tmp_path / "ckpt.pt", "mhc-lite")


def changed(**values):
    what = contents()
    for key, value in values.items():
        what[key] = value
    return {key: value for key, value in what.items() if value is not None}


WRONG = {
    "no model": (changed(model=None), {}, CheckpointError, "has no model: .* its keys: optimizer"),
    "state dict alone": (contents()["model"], {}, CheckpointError, "has no model"),
    "a list": ([1, 2], {}, CheckpointError, "has no model"),
    "no model_args": (changed(model_args=None), {}, CheckpointError, "has no model_args"),
    "no heads": (changed(model_args={}), {}, CheckpointError, "give --heads"),
    "other heads": (changed(), {"heads": 4}, ConfigError, "n_head 2, --heads says 4"),
    "other sizes": (changed(model_args={"n_head": 2, "n_layer": 12}), {}, CheckpointError, "n_layer 12, tensors 2"),
    "a wrong step": (changed(iter_num="many"), {}, CheckpointError, "iter_num = 'many'"),
    "a wrong rate": (changed(config={"learning_rate": -1.0}), {}, ConfigError, "train.lr = -1.0"),
    "other data": (changed(), {"data": "embedded"}, DataError, "a vocabulary of 2048, the model has 61"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_said_before_anything_is_written(ckpt, tmp_path, case):
    what, options, error, words = WRONG[case]
    with pytest.raises(error, match=words):
        import_mhc_lite(ckpt(what), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_heads_may_be_given_where_the_file_does_not_say_them(ckpt, tmp_path):
    run = import_mhc_lite(ckpt(changed(model_args={})), tmp_path / "run", heads=2)
    assert run.config.model.heads == 2


def test_a_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        import_mhc_lite(tmp_path / "none.pt", tmp_path / "run")
