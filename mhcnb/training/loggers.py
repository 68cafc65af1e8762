"""Copies of results.jsonl for TensorBoard and Weights & Biases, where the configuration asks for them.

Nothing that happens to a copy stops a run: the first failure is told once, and nothing is sent after it.
"""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from mhcnb import yamlfile
from mhcnb.analysis.healthy import amax_of
from mhcnb.config import RunConfig, as_dict, flatten
from mhcnb.durable import write_json
from mhcnb.records import Record
from mhcnb.run import Run

log = logging.getLogger(__name__)
SWEEP = "cells.json"  # what makes the folder above a run's the folder of a sweep
START_S = 20.0  # that a run waits for the server of W&B before it goes on offline
FINISH_S = 30.0  # that it waits at its end; what is not sent by then stays in logs/wandb, for `wandb sync`
QUIET = {
    "WANDB_SILENT": "true",  # else it asks for a key, where there is a terminal, and waits
    "WANDB_ERROR_REPORTING": "false",  # else its reports of errors hold up the exit, where the server does not answer
}
TRUTH = "results.jsonl has all of it"
KNOWN_AS = {"train/grad_norm": "grad_norm"}
FINAL = ("eval/val_loss", "eval/train_loss", "train/tokens_per_s")  # beside the hyperparameters, in TensorBoard


class Sink(Protocol):
    """Where a copy goes. All may raise anything."""

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """The numbers of one record."""

    def finish(self, state: str) -> None:
        """The end of the run, in one of run.STATES."""


class Logger:
    """A sink that cannot stop a run."""

    def __init__(self, name: str, sink: Sink) -> None:
        self.name, self.sink = name, sink
        self.failed = self.closed = False

    def follow(self, record: Record) -> None:
        """Sends a record of results.jsonl."""
        if self.failed or self.closed:
            return
        try:
            self.sink.write(record["step"], scalars_of(record))
        except Exception as error:
            self._fail(error)

    def close(self, state: str) -> None:
        """The run has ended, in one of run.STATES. A second time does nothing."""
        if self.closed:
            return
        self.closed = True
        try:
            self.sink.finish(state)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if not self.failed:
            log.warning("%s failed and is off from here: %s. The run goes on; %s", self.name, _said(error), TRUTH)
        self.failed = True


def open_loggers(config: RunConfig, run: Run, step: int) -> list[Logger]:
    """The loggers that `config.log` asks for and that can be had. `step` is that of the checkpoint which the run goes
    on from, 0 for a new run: what an earlier attempt sent of later steps is void."""
    wanted: list[tuple[str, type]] = []
    if config.log.tensorboard:
        wanted.append(("TensorBoard (log.tensorboard)", TensorBoard))
    if config.log.wandb:
        wanted.append(("Weights & Biases (log.wandb)", WeightsAndBiases))
    loggers = []
    for name, kind in wanted:
        try:
            loggers.append(Logger(name, kind(config, run, step)))
        except ImportError as error:
            log.warning("%s is off: %s. `pip install 'mhcnb[log]'` brings it; %s", name, _said(error), TRUTH)
        except Exception as error:
            log.warning("%s is off: %s. The run goes on; %s", name, _said(error), TRUTH)
    return loggers


def scalars_of(record: Record) -> dict[str, float]:
    """{"train/loss": 2.5}, {"maps/gains/main.0.attn/forward": 1.0}: the numbers of a record but its step; under the
    names by which people know them grad_norm, mhc/amax_pre and mhc/amax_post."""
    rest = {name: value for name, value in record.items() if name not in ("type", "step")}
    found = dict(_numbers(rest, str(record["type"])))
    return {KNOWN_AS.get(name, name): value for name, value in found.items()} | amax_of(record)


def _numbers(values: Mapping[str, Any], prefix: str) -> list[tuple[str, float]]:
    found = []
    for name, value in values.items():
        path = f"{prefix}/{name}".replace(" ×", "_x")  # the second call of a site: TensorBoard takes neither sign
        if isinstance(value, Mapping):
            found += _numbers(value, path)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((path, float(value)))
    return found


def _said(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(".: ")


def _plain(value: Any) -> Any:
    """A hyperparameter as TensorBoard takes it."""
    return value if isinstance(value, int | float | str) else str(value)


class TensorBoard:
    """Event files in logs/tensorboard. Raises ImportError where the package is missing."""

    def __init__(self, config: RunConfig, run: Run, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        first = step + 1 if step else 0  # readers forget what earlier attempts wrote at this step and after
        self.writer = SummaryWriter(str(run.path / "logs" / "tensorboard"), purge_step=first)
        self.writer.add_text("config", f"```yaml\n{yamlfile.dump(as_dict(config))}```", first)
        settings = {key: _plain(value) for key, value in flatten(as_dict(config)).items()}
        for summary in hparams(settings, dict.fromkeys(FINAL, 0.0)):  # names the figures; the last point is the value
            self._add(summary, first)
        self.writer.flush()

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """One event, on the disk when this returns, as a line of results.jsonl is."""
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]
        from torch.utils.tensorboard.summary import scalar

        event = Summary()
        for name, value in scalars.items():
            event.MergeFrom(scalar(name, value))
        self._add(event, step)
        self.writer.flush()

    def _add(self, summary: Any, step: int) -> None:
        self.writer.file_writer.add_summary(summary, step)  # type: ignore[union-attr]

    def finish(self, state: str) -> None:
        """Closes the file."""
        self.writer.close()


class WeightsAndBiases:
    """A run of the project `log.wandb`, its files in logs/wandb. Mode, server and key come from W&B's own environment
    variables; offline where there is no key or no answer. Raises ImportError where the package is missing."""

    def __init__(self, config: RunConfig, run: Run, step: int) -> None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        import wandb

        settings = wandb.Settings(
            console="off",
            init_timeout=START_S,
            finish_timeout=FINISH_S,
            reinit="create_new",  # a run of the caller's own stays as it is
            stop_fn=lambda: run.request("stop"),  # the stop button of its page; it would send SIGINT
        )
        folder, name = run.path / "logs", _identity(run, step)
        options: dict[str, Any] = dict(project=config.log.wandb, name=run.name, group=sweep_of(run), resume="allow")
        options |= dict(entity=config.log.wandb_entity, config=as_dict(config), dir=folder, settings=settings)
        try:
            self.run = wandb.init(id=name, **options)
        except Exception as error:
            self.run = wandb.init(id=_new_id(), mode="offline", **options)  # its process does not free the id above
            send = f"wandb sync --id {name} {Path(self.run.dir).parent}"
            log.warning("Weights & Biases (log.wandb) is offline: %s. `%s` sends it", _said(error), send)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Handed to W&B's own process, which writes and sends it. It takes no step before its last."""
        self.run.log(scalars, step=step)

    def finish(self, state: str) -> None:
        """Waits FINISH_S at most."""
        self.run.finish(exit_code=0 if state in ("done", "stopped") else 1)


def sweep_of(run: Run) -> str | None:
    """The name of the sweep that has this run as a cell."""
    folder = run.path.resolve().parent
    return folder.name if (folder / SWEEP).is_file() else None


def _identity(run: Run, step: int) -> str:
    """The run's id at W&B, kept in logs/wandb.json. A run that starts over takes another: to the steps of the earlier
    attempt W&B would not go back."""
    path = run.path / "logs" / "wandb.json"
    if step and path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))["id"]
    path.parent.mkdir(exist_ok=True)
    write_json(path, {"id": (name := _new_id())})
    return name


def _new_id() -> str:
    return uuid4().hex[:12]
