"""What a connection costs in a whole training step: forward and backward of the small GPT."""

from collections.abc import Callable

import torch

from mhcnb import registry
from mhcnb.bench.measure import Timing, side_by_side
from mhcnb.config import build_config
from mhcnb.models.base import build_model
from mhcnb.objectives.lm import cross_entropy

BATCH, TOKENS, VOCABULARY = 4, 256, 8192
# the sizes of params/gpt/small.yaml, so that the figure does not depend on where one stands
MODEL = {"name": "gpt", "width": 512, "layers": 6, "heads": 8, "block_size": TOKENS, "vocab_size": VOCABULARY}


def step(rounds: int = 9) -> list[Timing]:
    """Every connection against residual: float32, one CPU thread, batch 4 x 256, vocabulary 8192."""
    names = sorted(registry.entries("connections"), key=lambda name: name != "residual")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return side_by_side("step", {name: _contender(name) for name in names}, rounds)
    finally:
        torch.set_num_threads(threads)


def _contender(connection: str) -> Callable[[], None]:
    rest = {"data": {"name": "shards"}, "objective": {"name": "lm"}, "train": {"steps": 1, "lr": 1.0}}
    model = build_model(build_config({"connection": {"name": connection}, "model": MODEL, **rest}, "bench step"))
    tokens = torch.randint(VOCABULARY, (BATCH, TOKENS + 1), generator=torch.Generator().manual_seed(0))
    batch = {"inputs": tokens[:, :-1].contiguous(), "targets": tokens[:, 1:].contiguous()}

    def run() -> None:
        model.zero_grad(set_to_none=True)
        loss, count = cross_entropy(model(batch).logits, batch["targets"])
        (loss / count).backward()

    return run
