"""The maps of a run's checkpoints, recorded when they are first asked for: what explorers look at."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from torch import Tensor

from mhcnb import registry
from mhcnb.analysis.record import Record, observing, record, run
from mhcnb.config import RunConfig
from mhcnb.connections.base import Maps
from mhcnb.connections.mhc import MHCConfig
from mhcnb.errors import NotebookError
from mhcnb.layers.site import sites
from mhcnb.models.base import Batch, Model
from mhcnb.run import Run, find_runs
from mhcnb.training.checkpoint import load_model


def steps(folder: Path) -> list[int]:
    """The steps of a run's checkpoints, in order."""
    return [int(path.name.removeprefix("step-")) for path in Run(folder).checkpoints()]


@lru_cache(maxsize=32)
def records(folder: Path, step: int) -> tuple[Record, ...]:
    """Every call of every site at a checkpoint, on the first window of the run's validation data."""
    model, config = load_model(folder / "checkpoints" / f"step-{step:08d}")
    return tuple(record(model, window(config)))


def matrices(found: tuple[Record, ...], first: int, last: int) -> np.ndarray:
    """res of call `last` · .. · res of call `first` [tokens, n_out, n_in], float64; calls counted from 1. Raises
    NotebookError where a stack ends in between: there the state is one copy."""
    chosen = found[first - 1 : last]
    spans = {(r.site.rsplit(".", 2)[0], r.call) for r in chosen}
    if len(spans) > 1:
        names = ", ".join(f"{stack} (call {call + 1})" for stack, call in sorted(spans))
        raise NotebookError(f"sites {first} to {last} lie in several stacks or calls: {names}; choose within one")
    P, *later = (r.maps.res.double().flatten(end_dim=-3) for r in chosen)
    for H in later:
        P = H @ P
    return P.numpy()


def matrix(found: tuple[Record, ...], first: int, last: int, token: int) -> np.ndarray:
    """The product of one token, counted from 1, or for token 0 its mean over tokens [n_out, n_in]."""
    P = matrices(found, first, last)
    return P.mean(0) if token == 0 else P[min(token, len(P)) - 1]


def sinkhorn_inputs(folder: Path) -> tuple[str, dict[str, Tensor]]:
    """(run, {site: logits of res [tokens, n, n]}) of the first run at or below a folder whose res comes from
    Sinkhorn-Knopp. Raises NotebookError where there is none."""
    found = find_runs(folder) if folder.is_dir() else []
    for one in found:
        if one.checkpoints() and isinstance(one.config.connection, MHCConfig):
            model, config = load_model(one.path)
            return one.name, _logits(model, window(config))
    raise NotebookError(
        f"{folder} has no run whose maps come from Sinkhorn; `mhcnb train params/gpt/tiny.yaml connection.name=mhc "
        f"--out {folder}/mhc` makes one. Or take a random or chosen input"
    )


def window(config: RunConfig) -> Batch:
    """The first window that a run was evaluated on: the same for every method and seed."""
    source = registry.load("data", config.data.name)(config)
    return source.evaluation_batch("val", 0, 1, config.train.micro_batch * config.train.eval_batches)


def _logits(model: Model, batch: Batch) -> dict[str, Tensor]:
    """What every connection computes its res from; of a site that recurs, the last call."""
    kept: dict[str, Tensor] = {}
    found = sites(model)

    def keep(site: str, X: Tensor, _: Maps) -> None:
        n = X.shape[-2]
        kept[site] = found[site].connection.logits(X).res.unflatten(-1, (n, n)).flatten(end_dim=-3)

    with observing(model, keep):
        run(model, batch)
    return kept
