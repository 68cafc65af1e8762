"""Folders of a sweep as its driver and its runs leave them, without either."""

import functools
import json
import os
import socket
import time
from pathlib import Path

from mhcnb.config import as_dict, load_config
from mhcnb.yamlfile import dump

TINY = Path(__file__).parents[2] / "params" / "gpt" / "tiny.yaml"
HERE = {"pid": os.getpid(), "host": socket.gethostname()}
GONE = {"pid": 2**22 + 1, "host": socket.gethostname()}  # above the largest that Linux gives


@functools.cache
def configuration(method: str = "mhc") -> str:
    """config.yaml; train.steps is 300."""
    return dump(as_dict(load_config(TINY, {"connection.name": method})))


def record(folder: Path, cells: dict[str, dict], driver: dict = HERE) -> Path:
    """cells.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cells.json").write_text(json.dumps({"driver": driver, "cells": cells, "then": {}}))
    return folder


def run(
    path: Path, state: str, step: int, *, owner: dict = HERE, age: float = 0.0, loss: float = 4.5, **summary
) -> Path:
    """A run folder that says `state`, with its last train record and, given one, a summary."""
    path.mkdir(parents=True)
    method, preset, seed = path.name.split("-")[:3]
    (path / "config.yaml").write_text(configuration(method))
    (path / "notebook.ipynb").write_text("{}")
    beat = time.time() - age
    (path / "status.json").write_text(json.dumps({"state": state, "step": step, "heartbeat": beat, **owner}))
    train = {"type": "train", "step": step, "time_s": step / 10, "loss": loss, "tokens_per_s": 1e4}
    (path / "results.jsonl").write_text(json.dumps(train) + "\n" if step else "")
    if summary:
        told = dict(connection=method, model="gpt", preset=preset, seed=int(seed[1:]), steps=step, tokens_per_s=1e4)
        (path / "summary.json").write_text(json.dumps(told | summary))
    return path


def eight(folder: Path) -> Path:
    """One cell in each state."""
    names = [f"{method}-tiny-s{seed}" for seed in (1, 2) for method in ("residual", "hc", "mhc", "mhc_lite")]
    states = ("done", "running", "failed", "died", "timeout", "interrupted", "planned", "skipped")
    cells = {name: {"state": state} for name, state in zip(names, states, strict=True)}
    cells[names[4]]["error"] = "killed after 1 min 00 s"
    run(folder / names[0], "done", 300, final_val_loss=3.25, total_time_s=30.0)
    run(folder / names[1], "running", 150, loss=4.125)
    run(folder / names[2], "diverged", 9)
    for name in names[3:5]:
        run(folder / name, "running", 30, owner=GONE)
    run(folder / names[5], "stopped", 60, owner=GONE)
    return record(folder, cells)
