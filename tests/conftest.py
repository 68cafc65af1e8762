"""Fixtures that several folders use."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from mhcnb.config import as_dict, load_config
from mhcnb.data.shardfile import ShardWriter
from mhcnb.yamlfile import dump

# one thread a process: the tests themselves run side by side, and so do the ranks that they start
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

settings.register_profile("shared-machine", deadline=None)  # how long an example takes says nothing here
settings.load_profile("shared-machine")


def pytest_configure(config):
    """Slow tests run where -m names them, and not beside any other choice."""
    chosen = config.option.markexpr
    if "slow" not in chosen:
        config.option.markexpr = f"({chosen}) and not slow" if chosen else "not slow"


# folders of tests that start processes: few in a file and long, so that a worker that comes to one last ends long after
# the others
LONG = ("sweep", "faults", "browser", "notebooks", "training", "bad_input")


def pytest_collection_modifyitems(items):
    """The long ones first, whatever their number."""
    items.sort(key=lambda item: item.path.parent.name not in LONG)


TINY = Path(__file__).parents[1] / "params" / "gpt" / "tiny.yaml"


@pytest.fixture
def float64():
    """float64 as torch's default type: what is built inside is exact to 1e-16."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


# a model and data so small that a run takes a second -------------------------------------------------------------


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
