"""Metrics over fixed batches, the same for every method, shared out over the ranks."""

import logging
from pathlib import Path
from typing import Any

import torch

from mhcnb import registry, renames
from mhcnb.config import RunConfig, as_dict, build_config
from mhcnb.data.base import Source, Split
from mhcnb.dotted import assign, flatten
from mhcnb.errors import ConfigError
from mhcnb.models.base import Model
from mhcnb.objectives.base import Objective
from mhcnb.training.distributed import ONE, World, sum_over_ranks

log = logging.getLogger(__name__)


@torch.no_grad()
def evaluate(
    model: Model,
    objective: Objective,
    source: Source,
    split: Split,
    config: RunConfig,
    device: torch.device,
    world: World = ONE,
    dtype: torch.dtype = torch.float32,
) -> dict[str, float]:
    """{metric: mean} over eval_batches x micro_batch fixed rows of a split."""
    size = config.train.micro_batch
    total, sums = size * config.train.eval_batches, {}
    was_training = model.training
    model.eval()
    for first in range(world.rank * size, total, world.size * size):
        batch = {k: v.to(device) for k, v in source.evaluation_batch(split, first, size, total).items()}
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            found = objective.evaluate(model, batch)
        for name, pair in found.items():
            both = torch.stack([value.cpu().double() for value in pair])
            sums[name] = sums.get(name, 0) + both
    model.train(was_training)
    # a rank may have had no batch at all, so the names come from the objective
    table = torch.stack([sums.get(name, torch.zeros(2, dtype=torch.float64)) for name in objective.metrics])
    return {name: float(s / c) for name, (s, c) in zip(objective.metrics, sum_over_ranks(table), strict=True)}


def evaluate_run(path: str | Path, overrides: dict[str, Any]) -> dict[str, Any]:
    """Metrics of a run's last checkpoint on its validation data, or on other data (`data.root` in overrides). Logs them
    in words."""
    from mhcnb.training.checkpoint import load_model
    from mhcnb.training.launch import choose_device

    model, trained = load_model(path)
    values = as_dict(trained)
    given, spelled = renames.replace(values, {}, flatten(overrides), str(path))
    foreign = [
        spelled.get(key, key)
        for key in given
        if not key.startswith(("data.", "train.eval_batches", "train.micro_batch"))
    ]
    if foreign:
        raise ConfigError(
            f"evaluate takes data.*, train.eval_batches and train.micro_batch, not {', '.join(foreign)}: "
            "the model is the run's own"
        )
    for key, value in given.items():
        assign(values, key, value)
    config = build_config(values, str(path), given=given, spelled=spelled)
    source = registry.load("data", config.data.name)(config)
    source.check(config)
    device = choose_device(config, ONE)
    objective = registry.load("objectives", config.objective.name)(config.objective)
    found = evaluate(model.to(device), objective, source, "val", config, device)
    found |= objective.derived(found)
    log.info("%s: %s", path, objective.say(found))
    return found
