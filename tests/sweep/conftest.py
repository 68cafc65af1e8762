"""A small project with notebooks that write run folders as a training does, without one."""

from pathlib import Path

import nbformat
import pytest

TINY = """
preset: tiny
connection: {name: mhc}
model: {name: gpt, width: 32, layers: 1, heads: 2, block_size: 16, vocab_size: 64}
data: {name: shards, root: embedded}
objective: {name: lm}
train: {steps: 5, micro_batch: 4, lr: 1e-3}
"""

PARAMETERS = """params: str = ""
overrides: dict = {}  # dotted keys, as in {"train.steps": 20} = 20 steps
out: str = ""
processes: int = 1"""

TRAIN = """
import os, pathlib, time
from mhcnb.config import load_config
from mhcnb.durable import write_json
from mhcnb.run import Run

config = load_config(params, overrides)
run = Run.create(out, config)
env = {"threads": os.environ.get("OMP_NUM_THREADS"), "devices": os.environ.get("CUDA_VISIBLE_DEVICES")}
write_json(run.path / "env.json", env | {"config_digest": config.digest()})
with (run.path.parent / "began.txt").open("a") as file:
    file.write(f"{run.name} {time.time()} {os.getpid()}\\n")
for step in range(1, config.train.steps + 1):
    run.append({"type": "train", "step": step, "time_s": 0.0, "loss": 5 - step / 100})
    run.set_status("running", step)
    time.sleep(float(os.environ.get("STEP_S", "0.05")) if run.name in os.environ.get("SLOW", run.name) else 0)
    if os.environ.get("FAIL") == run.name and step == 2:
        run.set_status("failed", step, "ValueError: as asked")
        raise ValueError("as asked")
    if run.requested("stop"):
        run.set_status("stopped", step, "asked by control/stop")
        break
else:
    summary = dict(connection=config.connection.name, model="gpt", preset=config.preset, seed=config.seed, steps=step)
    run.write_summary(summary | dict(final_val_loss=4.5, final_train_loss=4.4, tokens_per_s=1e4, params=1000))
    run.set_status("done", step)
"""

OVERVIEW = """
from mhcnb.run import find_runs
print(sorted(run.name for run in find_runs(runs)))
"""


def write_book(path: Path, *cells: str, tags: tuple[str, ...] = ("parameters",), kernel: str = "python3") -> Path:
    """A notebook whose first cells have these tags."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    for cell, tag in zip(book.cells, tags, strict=False):
        cell.metadata["tags"] = [tag]
    if kernel:
        book.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, path)
    return path


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with params/, notebooks/ and a sweep of residual and hc, and it is the working directory."""
    (tmp_path / "params" / "sweeps").mkdir(parents=True)
    (tmp_path / "params" / "tiny.yaml").write_text(TINY)
    write_book(tmp_path / "notebooks" / "02-train.ipynb", PARAMETERS, TRAIN)
    write_book(tmp_path / "notebooks" / "03-overview.ipynb", 'runs: str = ""', OVERVIEW)
    write_sweep(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_sweep(folder: Path, text: str = "", grid: str = "{connection.name: [residual, hc]}") -> Path:
    """params/sweeps/pair.yaml: a base, a grid, and further lines."""
    path = folder / "params" / "sweeps" / "pair.yaml"
    path.write_text(f"base: params/tiny.yaml\ngrid: {grid}\n{text}")
    return path


@pytest.fixture
def sweep_file(project):
    """Writes the project's sweep file; see write_sweep."""
    return lambda text="", **more: write_sweep(project, text, **more)


@pytest.fixture
def book():
    """Writes a notebook; see write_book."""
    return write_book
