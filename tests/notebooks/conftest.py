"""Real papermill runs, and a folder of real runs that took a second to train."""

import json
import shutil
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
from safetensors.torch import load_file, save_file

from mhcnb import load_config
from mhcnb.data.shardfile import ShardWriter
from mhcnb.durable import MANIFEST, write_manifest
from mhcnb.run import Run
from mhcnb.training.loop import train

ROOT = Path(__file__).parents[2]
SIZES = {"model.width": 32, "model.layers": 2, "model.heads": 2, "model.block_size": 16, "model.vocab_size": 64}
BRIEF = {"train.steps": 4, "train.warmup": 1, "train.eval_every": 2, "train.eval_batches": 1, "train.micro_batch": 4}


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Path:
    """residual, hc and mhc trained, and one run that only began."""
    folder = tmp_path_factory.mktemp("runs")
    for split, seed in (("train", 0), ("val", 1)):
        with ShardWriter(folder / f"{split}.bin") as writer:
            writer.append(np.random.default_rng(seed).integers(0, 64, 3000))
    given = SIZES | BRIEF | {"data.root": str(folder), "log.every": 1}
    for method in ("residual", "hc", "mhc"):
        train(
            load_config(ROOT / "params/gpt/tiny.yaml", given | {"connection.name": method}), folder / "sweep" / method
        )
    begun = Run.create(folder / "sweep" / "begun", load_config(ROOT / "params/gpt/tiny.yaml", given))
    begun.release()
    return folder / "sweep"


@pytest.fixture(scope="session")
def recorded(runs) -> Path:
    """One run of hc that recorded its maps while it trained."""
    given = SIZES | BRIEF | {"data.root": str(runs.parent), "connection.name": "hc", "log.maps_every": 2}
    train(load_config(ROOT / "params/gpt/tiny.yaml", given), runs.parent / "recorded")
    return runs.parent / "recorded"


@pytest.fixture
def bad_runs(runs, tmp_path) -> Path:
    """A good run, one of a single step and another width, and one for each way in which a folder may be damaged."""
    folder = tmp_path / "bad"
    for name in ("good", "bare", "newer", "nan", "cut", "torn", "half"):
        shutil.copytree(runs / "hc", folder / name, ignore=shutil.ignore_patterns("figures"))
    given = SIZES | BRIEF | {"data.root": str(runs.parent), "train.steps": 1, "model.width": 16}
    train(load_config(ROOT / "params/gpt/tiny.yaml", given), folder / "brief")
    shutil.rmtree(folder / "bare" / "checkpoints")
    newer, nan, cut = (Run(folder / name).last_checkpoint() for name in ("newer", "nan", "cut"))
    (newer / "state.json").write_text(json.dumps({"format": 99, "step": 4}))
    weights = nan / "model.safetensors"
    save_file({name: value * float("nan") for name, value in load_file(weights).items()}, weights)
    for checkpoint in (newer, nan):  # written like that, not damaged since
        (checkpoint / MANIFEST).unlink()
        write_manifest(checkpoint)
    with (folder / "nan" / "results.jsonl").open("a") as file:
        file.write('{"type": "eval", "step": 5, "time_s": 1.0, "train_loss": NaN, "val_loss": NaN}\n')
    Run(folder / "nan").set_status("diverged", 5, "loss nan at step 5")
    for earlier in Run(folder / "cut").checkpoints()[:-1]:  # it would be used instead
        shutil.rmtree(earlier)
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:1000])
    (folder / "torn" / "results.jsonl").write_text('{"type"\n{"type": "eval"}\n')
    config = folder / "half" / "config.yaml"
    config.write_text(config.read_text()[:120])
    return folder


@pytest.fixture
def execute(tmp_path):
    """execute(name, in_folder, **parameters) -> (words under the pictures that it shows, all that it prints)."""

    def run(name: str, in_folder: str, **parameters) -> tuple[list[str], str]:
        out = tmp_path / f"{name}.ipynb"
        papermill.execute_notebook(
            str(ROOT / "notebooks" / f"{name}.ipynb"),
            str(out),
            parameters,
            cwd=str(ROOT / in_folder),
            progress_bar=False,
            extra_arguments=["--IPKernelApp.log_level=40"],
        )
        outputs = [output for cell in nbformat.read(out, 4).cells for output in cell.get("outputs", [])]
        shown = [output["data"] for output in outputs if output["output_type"] == "display_data"]
        printed = [output["text"] for output in outputs if output["output_type"] == "stream"]
        return [data["text/plain"] for data in shown if "image/png" in data], "".join(printed)

    return run
