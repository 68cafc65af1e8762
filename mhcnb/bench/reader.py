"""How fast windows come off the disk's cache, beside numpy copying the same windows."""

import tempfile
from pathlib import Path

import numpy as np

from mhcnb.bench.measure import Timing, side_by_side
from mhcnb.config import build_config
from mhcnb.data.shardfile import ShardWriter
from mhcnb.data.shards import Shards
from mhcnb.objectives.base import Clock

WINDOWS, BLOCK, TOKENS = 128, 1024, 20_000_000


def reader(rounds: int = 51) -> list[Timing]:
    """A batch of 128 windows of 1025 tokens from a shard of 20 million, to int64; numpy copies them from a map."""
    with tempfile.TemporaryDirectory() as folder:
        tokens = np.random.default_rng(0).integers(0, 50_000, TOKENS, dtype=np.uint16)
        for split in ("train", "val"):
            with ShardWriter(Path(folder, f"{split}.bin")) as writer:
                writer.append(tokens if split == "train" else tokens[:100_000])
        model = {"name": "gpt", "block_size": BLOCK, "vocab_size": 50304}
        sections = {"connection": {"name": "residual"}, "objective": {"name": "lm"}, "train": {"steps": 1, "lr": 1.0}}
        config = build_config({"model": model, "data": {"name": "shards", "root": folder}, **sections}, "bench reader")
        source = Shards(config)
        mapped = np.memmap(Path(folder, "train.bin"), np.uint16, "r", offset=1024)
        places = np.random.default_rng(1).integers(0, TOKENS - BLOCK, WINDOWS)
        copy = np.empty((WINDOWS, BLOCK + 1), np.int64)

        def bare() -> None:
            for row, place in zip(copy, places, strict=True):
                row[:] = mapped[place : place + BLOCK + 1]

        return side_by_side(
            "reader", {"numpy": bare, "shards": lambda: source.train_batch(Clock(0, 1), 0, WINDOWS)}, rounds
        )
