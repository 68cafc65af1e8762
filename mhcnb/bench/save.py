"""What saving costs a training: the demo's model with and without checkpoints."""

import itertools
import tempfile
import time
from pathlib import Path

from mhcnb.bench.measure import Timing, side_by_side, timing
from mhcnb.config import RunConfig, build_config
from mhcnb.training.loop import train_steps

STEPS, EVERY = 200, 10
# the sizes of params/gpt/tiny.yaml, so that the figure does not depend on where one stands
MODEL = {"name": "gpt", "width": 128, "layers": 4, "heads": 4, "block_size": 64}
SECTIONS = {
    "connection": {"name": "mhc"},
    "model": MODEL,
    "data": {"name": "shards", "root": "embedded"},
    "objective": {"name": "lm"},
}
TRAIN = {"steps": STEPS, "micro_batch": 16, "lr": 2e-3, "warmup": 20, "eval_every": STEPS, "device": "cpu"}


def save(rounds: int = 3) -> list[Timing]:
    """200 updates with a checkpoint every 10 beside the same with the last one alone, whole runs from the first update
    to the end; then the longest single update of each run."""
    longest: dict[str, list[float]] = {"last one alone": [], f"save_every={EVERY}": []}
    configs = dict(zip(longest, (_config(0), _config(EVERY)), strict=True))
    contenders = {name: lambda name=name: longest[name].append(_longest_step(configs[name])) for name in configs}
    whole = side_by_side("save", contenders, rounds)
    base = longest["last one alone"][1:]  # the first round warms up
    return whole + [timing("save", f"{name}: longest", own[1:], base) for name, own in longest.items()]


def _config(save_every: int) -> RunConfig:
    train = TRAIN | {"save_every": save_every, "save_minutes": 0.0}
    return build_config(SECTIONS | {"train": train, "log": {"every": 10}}, "bench save")


def _longest_step(config: RunConfig) -> float:
    """Seconds of the longest update of a run but its first and its last, which warm up and finish."""
    with tempfile.TemporaryDirectory() as folder:
        times = [time.perf_counter() for _ in train_steps(config, Path(folder, "run"))]
    return max(b - a for a, b in itertools.pairwise(times[1:-1]))
