"""What looking at the connections costs: `measure` against a plain forward pass, and a `maps` record while training."""

from collections.abc import Callable

import torch

from mhcnb.analysis.measure import measure
from mhcnb.bench.measure import Timing, side_by_side
from mhcnb.config import build_config
from mhcnb.layers.site import sites
from mhcnb.models.base import Batch, Model, build_model
from mhcnb.objectives.lm import cross_entropy

SEQUENCES, TOKENS, VOCABULARY = 64, 1024, 50304
# the sizes of params/gpt/small.yaml, and its global batch, so that the figures do not depend on where one stands
MODEL = {"name": "gpt", "width": 512, "layers": 6, "heads": 8, "block_size": TOKENS, "vocab_size": VOCABULARY}
WINDOWS_A_STEP = 16 * 8
STEPS = 50


def record(sequences: int = SEQUENCES) -> list[Timing]:
    """Float32 on the CPU, all its threads, mhc. A round is one sequence of 1024 tokens: each is passed forward (to the
    state before the head, which `measure` does not need, and to the logits), and measured with all quantities.

    Then a training step on one window beside the record that `log.maps_every` writes; the last line is that record as
    a share of 50 steps of the small preset, which take 128 windows each (forward and backward only, so rather less).
    """
    model = _model()
    windows = [_window(seed) for seed in range(sequences + 1)]
    forward = side_by_side(
        "record",
        {
            "forward": _each(windows, lambda batch: _plain(model, batch)),
            "forward to logits": _each(windows, lambda batch: _plain(model, batch).logits),
            "measure": _each(windows, lambda batch: measure(model, [batch])),
        },
        sequences,
    )
    rounds = max(3, sequences // 8)
    online = side_by_side(
        "record",
        {
            "training, one window": _each(windows, lambda batch: _train(model, batch)),
            "maps record": _each(windows, lambda batch: measure(model, [batch])),
        },
        rounds,
    )
    share = online[1]._replace(name="record / 50 steps", ratio=online[1].ratio / (STEPS * WINDOWS_A_STEP))
    return [*forward, *online, share]


def _model() -> Model:
    """Away from its start, where all tokens have one map and eigenvalues are found at once."""
    rest = {"data": {"name": "shards"}, "objective": {"name": "lm"}, "train": {"steps": 1, "lr": 1.0}}
    model = build_model(build_config({"connection": {"name": "mhc"}, "model": MODEL, **rest}, "bench record")).eval()
    generator = torch.Generator().manual_seed(0)
    for site in sites(model).values():
        for parameter in site.connection.parameters():
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def _window(seed: int) -> Batch:
    tokens = torch.randint(VOCABULARY, (1, TOKENS + 1), generator=torch.Generator().manual_seed(seed))
    return {"inputs": tokens[:, :-1].contiguous(), "targets": tokens[:, 1:].contiguous()}


def _each(windows: list[Batch], of: Callable[[Batch], object]) -> Callable[[], object]:
    """of(the next window), round after round."""
    rest = iter(windows * 2)
    return lambda: of(next(rest))


@torch.no_grad()
def _plain(model: Model, batch: Batch):
    return model(batch)


def _train(model: Model, batch: Batch) -> None:
    model.zero_grad(set_to_none=True)
    loss, count = cross_entropy(model(batch).logits, batch["targets"])
    (loss / count).backward()
