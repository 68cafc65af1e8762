"""Real papermill runs, and a folder of real runs that took a second to train."""

from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest

from mhcnb import load_config
from mhcnb.data.shardfile import ShardWriter
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
