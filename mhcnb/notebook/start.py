"""Training from a notebook: `run = mhcnb.start("params/gpt/tiny.yaml", {"connection.name": "mhc"})`."""

import itertools
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhcnb.config import RunConfig, load_config, run_name
from mhcnb.errors import ConfigError
from mhcnb.notebook.parameters import checked
from mhcnb.paths import find, outputs
from mhcnb.run import Run

if TYPE_CHECKING:
    from pandas import DataFrame


def headless() -> bool:
    """Whether nobody watches: papermill and scripts. JupyterLab names its sessions to the kernels that it starts."""
    said = os.environ.get("MHCNB_HEADLESS")
    return said not in ("0", "") if said is not None else "JPY_SESSION_NAME" not in os.environ


class Training:
    """A started run: `monitor()`, `stop()`, `wait()`. `run` is its folder, `summary` its final figures."""

    def __init__(self, config: RunConfig, out: Path, processes: int) -> None:
        self.config, self.run, self.processes = config, Run(out), processes
        self._ended, self._error = threading.Event(), None

    def _train(self) -> None:
        from mhcnb.training import launch, loop

        if self.processes == 1 and threading.current_thread() is threading.main_thread():
            loop.train(self.config, self.run.path)
        else:
            launch.run_ranks(self.config, self.run.path, self.processes)

    def _in_background(self) -> None:
        try:
            self._train()
        except BaseException as error:  # handed to whoever waits
            self._error = error
            print(f"{self.run.path}: {type(error).__name__}: {error}")
        finally:
            self._ended.set()

    @property
    def ended(self) -> bool:
        """Whether the training is over, however it went."""
        return self._ended.is_set()

    @property
    def summary(self) -> dict[str, Any]:
        """The figures of summary.json; {} before the end."""
        return self.run.summary()

    def stop(self) -> None:
        """Asks for a stop after the current step; a checkpoint is left."""
        self.run.request("stop")

    def wait(self) -> dict[str, Any]:
        """Blocks until the end and returns the summary. Raises what the training raised."""
        while not self._ended.wait(0.2):
            pass
        if self._error is not None:
            raise self._error
        return self.summary

    def result(self) -> "DataFrame":
        """The state and, once it has ended, the final figures, as a table."""
        import pandas

        status = {key: self.run.status().get(key) for key in ("state", "step", "reason")}
        if not self.ended:
            print(f"{self.run.name} is still training; run this cell again later")
        return pandas.Series(status | self.summary, name=self.run.name).to_frame()

    def monitor(self) -> None:
        """Losses as they come, with a Stop button; a still picture where nobody watches."""
        from mhcnb.notebook.monitor import monitor

        monitor(self)


@checked
def start(
    params: str | Path | RunConfig,
    overrides: Mapping[str, Any] | None = None,
    *,
    out: str | Path | None = None,
    processes: int = 1,
    background: bool | None = None,
) -> Training:
    """Trains `params` (a YAML file or a RunConfig) in the folder `out`, on `processes` ranks of this machine.
    Without `out` it is outputs/<method>-<preset>-s<seed>, or the next free name after it.

    Blocks until the end under papermill and in scripts; in JupyterLab returns at once, and the notebook stays live.
    `background` decides otherwise. Raises NotebookError, ConfigError and DataError before anything is started.
    """
    if isinstance(params, RunConfig):
        if overrides:
            raise ConfigError("overrides go with a params file; change a RunConfig with model_copy")
        config = params
    else:
        config = load_config(find(str(params)), overrides)
    named = outputs("outputs") / run_name(config)
    path = outputs(out) if out else named if config.train.resume == "auto" else _free(named)
    return _started(Training(config, path, processes), background)


@checked
def resume(
    run: str | Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    processes: int = 1,
    background: bool | None = None,
) -> Training:
    """Goes on with a run from its newest sound checkpoint, as `start` does with a new one. `overrides` may ask for more
    steps or other intervals; what would make it another run is refused. A run that is done is left as it is."""
    folder = Run.open(find(str(run)))
    config = load_config(folder.path / "config.yaml", {**(overrides or {}), "train.resume": "auto"})
    return _started(Training(config, folder.path, processes), background)


def _started(training: Training, background: bool | None) -> Training:
    if training.processes < 1:
        raise ConfigError(f"processes = {training.processes}; expected 1 or more")
    _refuse_early(training)
    if background if background is not None else not headless():
        threading.Thread(target=training._in_background, name="mhcnb-training", daemon=True).start()
        return training
    try:
        training._train()
    finally:
        training._ended.set()
    return training


def _free(path: Path) -> Path:
    """`path`, or the first of path-2, path-3, ... without a checkpoint."""
    names = (path if k == 1 else path.with_name(f"{path.name}-{k}") for k in itertools.count(1))
    return next(name for name in names if not Run(name).checkpoints())


def _refuse_early(training: Training) -> None:
    """What ranks would find out only after they have started."""
    from mhcnb.training.distributed import World, share
    from mhcnb.training.setup import open_source

    share(training.config, World(size=training.processes))
    if training.config.train.resume == "never":
        training.run.require_new()
    if training.processes > 1:
        open_source(training.config)
