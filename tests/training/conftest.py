"""A model and data so small that a run takes a second."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mhcnb.config import as_dict, load_config
from mhcnb.data.shardfile import ShardWriter
from mhcnb.yamlfile import dump

TINY = Path(__file__).parents[2] / "params" / "gpt" / "tiny.yaml"


@pytest.fixture
def shards(tmp_path):
    """A folder of token shards of a vocabulary of 64, each token likely to follow from the one before."""
    folder, rng = tmp_path / "data", np.random.default_rng(0)
    folder.mkdir()
    for split, count in (("train", 4000), ("val", 1000)):
        tokens = np.cumsum(rng.integers(1, 4, count)) % 64
        with ShardWriter(folder / f"{split}.bin") as writer:
            writer.append(tokens.astype(np.uint16))
    return folder


@pytest.fixture
def small(shards):
    """small(**{"train.steps": 3}): a configuration on those shards."""
    base = {
        "model.width": 16, "model.heads": 2, "model.layers": 1, "model.block_size": 8, "model.vocab_size": 64,
        "data.root": str(shards), "train.steps": 6, "train.micro_batch": 4, "train.warmup": 2, "train.eval_every": 4,
        "train.eval_batches": 2, "log.every": 1,
    }  # fmt: skip
    return lambda **overrides: load_config(TINY, base | overrides)


@pytest.fixture
def params(small, tmp_path):
    """params(**overrides): the same as a YAML file, for processes of their own."""

    def write(**overrides):
        path = tmp_path / "small.yaml"
        path.write_text(dump(as_dict(small(**overrides))))
        return path

    return write


@pytest.fixture
def mhcnb(tmp_path):
    """mhcnb("train", ..., ranks=2): the command line in a process, or under torchrun; a finished process."""

    def run(*args, ranks=0, env=(), **options):
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks else []
        command = [sys.executable, *torchrun, "-m", "mhcnb", *map(str, args)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | dict(env)
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, **options)

    return run
