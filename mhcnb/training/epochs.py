"""Updates of a run whose length, or the distance of its evaluations, is said in passes over the data."""

from mhcnb import registry
from mhcnb.config import RunConfig
from mhcnb.errors import ConfigError


def with_known_updates(config: RunConfig) -> RunConfig:
    """`with_updates` where the section `data` alone says how long an epoch is, else as it is. Raises ConfigError."""
    rows = registry.load("data", config.data.name).known_epoch_rows(config.data)
    return config if rows is None else with_updates(config, rows)


def with_updates(config: RunConfig, rows: int | None) -> RunConfig:
    """train.steps where train.epochs says them, and train.eval_every where that is 0, as numbers.

    An epoch visits each of the data's `rows` once: of R rows, E epochs are ⌊E R / B⌋ updates of a global batch of B.
    `rows` is None where the data have no epochs. Raises ConfigError where they must, or where train.steps says
    something else.
    """
    train, found = config.train, {}
    if train.epochs:
        found["steps"] = _steps(config, rows)
    if train.eval_every == 0:
        found["eval_every"] = _iteration(config, rows)
    return config.model_copy(update={"train": train.model_copy(update=found)}) if found else config


def _iteration(config: RunConfig, rows: int | None) -> int:
    epochs = getattr(config.data, "epochs_per_iteration", None)
    if rows is None or epochs is None:
        raise ConfigError(
            f"train.eval_every = 0 is after each iteration of the data, and data {config.data.name} have none; give a "
            "number of updates, 1 or more"
        )
    return max(1, epochs * rows // (config.train.micro_batch * config.train.accumulation))


def _steps(config: RunConfig, rows: int | None) -> int:
    train = config.train
    batch = train.micro_batch * train.accumulation
    if rows is None:
        raise ConfigError(
            f"train.epochs = {train.epochs}: data {config.data.name} have no epochs; give train.steps, a number of "
            "updates, in its place"
        )
    steps = train.epochs * rows // batch
    if steps == 0:
        raise ConfigError(
            f"train.epochs = {train.epochs} of {rows} rows is less than one update of {batch} rows (train.micro_batch "
            f"x train.accumulation); give {-(-batch // rows)} epochs or more"
        )
    if train.steps not in (0, steps):
        raise ConfigError(
            f"train.steps = {train.steps} and train.epochs = {train.epochs}, which is {steps} updates of {batch} rows "
            f"with these data ({rows} rows an epoch), say different lengths; give one of them"
        )
    return steps
