"""Whether a token late in a text costs what an early one does."""

import time

import torch

from mhcnb.bench.measure import Timing, timing
from mhcnb.bench.rlm import configuration
from mhcnb.models.base import Model, build_model
from mhcnb.models.generation import Sampling, stream

TOKENS, WINDOW = 1024, 128


def generate(rounds: int = 3) -> list[Timing]:
    """Seconds a token of one row, mean over each eighth of a text of 1024 tokens, beside the first eighth: the RLM of
    `bench rlm`, greedy, with the cache."""
    found: list[Timing] = []
    for connection in ("residual", "mhc"):
        model = build_model(configuration(connection, TOKENS + 1))
        texts = [_seconds(model) for _ in range(rounds + 1)][1:]
        for first in range(0, TOKENS, WINDOW):
            own, base = ([sum(text[i : i + WINDOW]) / WINDOW for text in texts] for i in (first, 0))
            found.append(timing("generate", f"{connection}: to token {first + WINDOW}", own, base))
    return found


def _seconds(model: Model) -> list[float]:
    """Of each token of a text."""
    seconds, began = [], time.perf_counter()
    for _ in stream(model, torch.zeros(1, 1, dtype=torch.long), TOKENS, Sampling(temperature=0.0)):
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    return seconds
