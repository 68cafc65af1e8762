"""A new run from the weights of another, `--from`: of the same connection, or upcycled from the residual model.

Upcycling takes the embeddings, branches, norms and head of a residual checkpoint; the connections keep the start of
their configuration. Where that is exact_residual, the model of n streams gives the residual model's logits at first.
"""

import logging
from pathlib import Path
from typing import Any

from mhcnb.config import RunConfig, as_dict, flatten
from mhcnb.connections.base import Connection
from mhcnb.errors import CheckpointError, ConfigError
from mhcnb.models.base import Model
from mhcnb.paths import find
from mhcnb.section import Section
from mhcnb.training.checkpoint import WEIGHTS, find_checkpoint, load_weights, read_config, read_tensors, require_match

log = logging.getLogger(__name__)
HARMLESS = ("block_size", "dropout")  # of a model: these change no logits, or the shapes tell


def start_from(model: Model, config: RunConfig) -> None:
    """The weights at config.train.weights, a run or a checkpoint folder, into a model of `config`; says what was taken.

    Raises CheckpointError where they are of another model, connection or number of streams, or of other shapes;
    ConfigError where a residual model is to become one with streams that would not start equal to it.
    """
    folder = find_checkpoint(find(config.train.weights or ""))
    old = read_config(folder)
    _require_model(old, config, folder)
    if old.connection.name == "residual" and config.connection.name != "residual":
        words = _upcycle(model, config.connection, folder)
    else:
        _require_connection(old, config, folder)
        load_weights(model, folder)
        told = _changes(old.connection, config.connection)
        words = f"; the connection changes: {', '.join(told)}" if told else ""
    log.info("weights of %s%s", folder, words)
    told = [text for text in _changes(old.model, config.model) if not text.startswith(HARMLESS)]
    if told:
        log.warning("the same weights compute something else now, for the model changes: %s", ", ".join(told))


def _upcycle(model: Model, connection: Any, folder: Path) -> str:
    """A residual checkpoint into a model with streams; in words."""
    init = getattr(connection, "init", "unset")
    if init != "exact_residual":
        raise ConfigError(
            f"{folder} holds weights of a residual model, and connection.init = {init} (dialect "
            f"{getattr(connection, 'dialect', 'unset')}) does not start equal to it; set connection.dialect=paper, or "
            "connection.init=exact_residual and connection.reduce=mean"
        )
    own = model.state_dict()
    new = {f"{name}.{key}" for name, part in _connections(model).items() for key in part.state_dict()}
    state = read_tensors(folder / WEIGHTS)
    require_match(state, {name: tensor for name, tensor in own.items() if name not in new}, folder)
    model.load_state_dict(state | {name: own[name] for name in new})
    return (
        f": a residual model, upcycled to {connection.name} with {connection.streams} streams; {len(state)} tensors "
        f"taken, {len(new)} of the connections start anew, so that the logits are the same at first"
    )


def _connections(model: Model) -> dict[str, Connection]:
    return {name: part for name, part in model.named_modules() if isinstance(part, Connection)}


def _require_model(old: RunConfig, new: RunConfig, folder: Path) -> None:
    if old.model.name != new.model.name:
        raise CheckpointError(
            f"{folder} holds weights of model.name = {old.model.name}, the configuration says {new.model.name}; start "
            "from parameters of that model, or give other weights"
        )


def _require_connection(old: RunConfig, new: RunConfig, folder: Path) -> None:
    theirs, ours = (flatten(as_dict(config.connection)) for config in (old, new))
    for key in ("name", "streams"):
        if theirs.get(key) != ours.get(key):
            raise CheckpointError(
                f"{folder} holds weights of connection.{key} = {theirs.get(key, 'unset')}, the configuration says "
                f"{ours.get(key, 'unset')}; only a residual model's can become those of another. Set "
                f"connection.{key}={theirs.get(key)}, or give other weights"
            )


def _changes(old: Section, new: Section) -> list[str]:
    theirs, ours = flatten(as_dict(old)), flatten(as_dict(new))
    return [f"{key} {theirs.get(key, 'unset')} -> {ours[key]}" for key in ours if theirs.get(key) != ours[key]]
