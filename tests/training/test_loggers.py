"""TensorBoard and Weights & Biases get what results.jsonl gets, and nothing that befalls them reaches the run."""

import json
import logging
import math
import os
import shutil
import signal
import socket
import struct
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mhcnb.config import as_dict
from mhcnb.run import Run
from mhcnb.sweep import folder
from mhcnb.training import loggers
from mhcnb.training.loggers import Logger, open_loggers, scalars_of
from mhcnb.yamlfile import dump


def records(first, last, scale=1.0):
    """A train record a step, and at even steps an eval and a maps record; `scale` tells attempts apart."""
    for step in range(first, last + 1):
        train = {"time_s": 0.5 * step, "loss": scale / (step + 3), "lr": 1e-3, "grad_norm": 2.0}
        yield {"type": "train", "step": step} | train
        if step % 2 == 0:
            yield {"type": "eval", "step": step, "train_loss": scale * step / 7, "val_loss": 2.0, "accuracy": 0.1}
            gains = {f"main.{i}.attn": {"forward": 1 + step / 9, "backward": scale} for i in range(2)}
            amax = {"main.0.attn": 1 + step / 9, "main.0.mlp": 1.5}
            maps = {"tokens": 64, "gains": gains, "amax": amax, "lambda2": {"main.0.attn": 0.3}}
            yield {"type": "maps", "step": step} | maps


def points(of):
    """{name: {step: value}} of records, and at no step twice."""
    found = {}
    for record in of:
        for name, value in scalars_of(record).items():
            assert record["step"] not in found.setdefault(name, {})
            found[name][record["step"]] = value
    return found


def test_numbers_are_named_by_their_path():
    record = {"type": "maps", "step": 3, "tokens": 64, "gains": {"main.0.attn": {"forward": 1.5, "backward": 2}}}
    record |= {"cosine": {"main.0.attn ×2": 0.5}, "why": "asked", "on_stop": True, "none": None}
    assert scalars_of(record) == {
        "maps/tokens": 64.0,
        "maps/gains/main.0.attn/forward": 1.5,
        "maps/gains/main.0.attn/backward": 2.0,
        "maps/cosine/main.0.attn_x2": 0.5,
    }
    train = {"type": "train", "step": 1, "time_s": 2.0, "loss": 2.0, "lr": 0.1, "grad_norm": 3.0}
    assert scalars_of(train) == {"train/time_s": 2.0, "train/loss": 2.0, "train/lr": 0.1, "grad_norm": 3.0}


def test_the_gains_that_people_watch_are_the_largest_of_attention_and_of_mlp():
    amax = {"main.0.attn": 1.0, "main.0.mlp": 1.5, "main.1.attn": 1.25, "main.1.mlp": 1.0, "main.1.attn ×2": 2.5}
    found = scalars_of({"type": "maps", "step": 0, "amax": amax})
    assert (found["mhc/amax_pre"], found["mhc/amax_post"]) == (2.5, 1.5)
    assert found["maps/amax/main.0.mlp"] == 1.5
    assert math.isnan(scalars_of({"type": "maps", "step": 0, "amax": amax | {"main.0.mlp": math.nan}})["mhc/amax_post"])
    assert "mhc/amax_post" not in scalars_of({"type": "maps", "step": 0, "amax": {"main.0.attn": 1.0}})


def test_nothing_is_made_where_nothing_is_asked_for(small, tmp_path):
    run = Run.create(tmp_path / "run", small())
    assert open_loggers(run.config, run, 0) == []
    assert not (run.path / "logs").exists()


# TensorBoard -----------------------------------------------------------------------------------------------------


@pytest.fixture
def board(small, tmp_path):
    """(configuration, run) with TensorBoard on."""
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed: pip install 'mhcnb[log]'")
    config = small(**{"log.tensorboard": True})
    return config, Run.create(tmp_path / "run", config)


def attempt(config, run, step, of, close=True):
    """One process's share of a run."""
    (logger,) = open_loggers(config, run, step)
    for record in of:
        logger.follow(record)
    if close:
        logger.close("done")
    for number, file in enumerate(sorted((run.path / "logs" / "tensorboard").glob("events*"))):
        file.rename(file.with_name(f"events.out.tfevents.{number:010}"))  # readers go by the second they began
    return logger


def reread(run):
    """What a reader finds: its accumulator, and {name: {step: value}}."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "logs" / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    found = {}
    for name in events.Tags()["scalars"]:
        points = events.Scalars(name)
        assert len({point.step for point in points}) == len(points), f"{name}: a step twice"
        found[name] = {point.step: point.value for point in points}
    return events, found


def in_float32(of):
    return {name: {step: float(np.float32(v)) for step, v in values.items()} for name, values in of.items()}


def test_a_resumed_run_reads_as_if_it_had_never_stopped(board):
    config, run = board
    attempt(config, run, 0, records(0, 7), close=False)  # killed after step 7; its checkpoint is of step 4
    assert reread(run)[1] == in_float32(points(records(0, 7)))  # though it was never closed
    attempt(config, run, 4, records(5, 5, scale=2.0), close=False)  # killed once more, before its own checkpoint
    attempt(config, run, 4, records(5, 10, scale=3.0))
    events, found = reread(run)
    assert found == in_float32(points([*records(0, 4), *records(5, 10, scale=3.0)]))
    assert {"train/loss", "train/lr", "grad_norm", "mhc/amax_pre", "mhc/amax_post"} <= found.keys()
    texts = [e.tensor_proto.string_val[0].decode() for e in events.Tensors("config/text_summary")]
    assert set(texts) == {f"```yaml\n{dump(as_dict(config))}```"}


def test_hyperparameters_stand_beside_figures_that_are_logged(board):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    config, run = board
    attempt(config, run, 0, records(0, 2))
    data = HParamsPluginData()
    events, _ = reread(run)
    data.ParseFromString(events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content)
    values = data.session_start_info.hparams
    assert values["connection.name"].string_value == config.connection.name
    assert values["train.lr"].number_value == config.train.lr
    assert values["train.betas"].string_value == "[0.9, 0.95]"
    data.ParseFromString(events.SummaryMetadata("_hparams_/experiment").plugin_data.content)
    assert [info.name.tag for info in data.experiment.metric_infos] == list(loggers.FINAL)
    assert set(loggers.FINAL) - {"train/tokens_per_s"} <= set(points(records(0, 2)))


def test_a_run_that_starts_over_leaves_no_point_of_the_one_before(board):
    config, run = board
    attempt(config, run, 0, records(0, 7), close=False)
    attempt(config, run, 0, records(0, 3, scale=2.0))
    assert reread(run)[1] == in_float32(points(records(0, 3, scale=2.0)))


# failures ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def warned(caplog):
    """The warnings so far, as texts."""
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records if record.name == loggers.__name__]


def test_a_failure_is_told_once_and_ends_the_copy_alone(warned):
    sent = []

    def write(step, scalars):
        sent.append(step)
        if step == 2:
            raise OSError("no space\nleft")

    ends = []
    logger = Logger("Copy", SimpleNamespace(write=write, finish=ends.append))
    for record in records(1, 4):
        logger.follow(record)
    assert sent == [1, 2]
    logger.close("done")
    logger.close("done")
    logger.follow({"type": "train", "step": 9, "loss": 1.0})
    assert (sent, ends) == ([1, 2], ["done"])
    assert warned() == [
        "Copy failed and is off from here: OSError: no space left. The run goes on; results.jsonl has all of it"
    ]


def test_a_close_that_fails_is_told(warned):
    def finish(state):
        raise TimeoutError(state)

    Logger("Copy", SimpleNamespace(write=None, finish=finish)).close("stopped")
    assert len(warned()) == 1
    assert "TimeoutError: stopped" in warned()[0]


def test_event_files_that_are_taken_away_stop_nothing(board, warned, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda args: None)  # TensorBoard's writing thread ends with it, too
    config, run = board
    (logger,) = open_loggers(config, run, 0)
    shutil.rmtree(run.path / "logs")
    for record in records(0, 4):
        logger.follow(record)
    logger.close("done")
    assert len(warned()) == 1
    assert "FileNotFoundError" in warned()[0]


@pytest.mark.parametrize("missing", ["torch.utils.tensorboard", "wandb"])
def test_a_package_that_is_not_installed_is_named_with_the_remedy(missing, small, tmp_path, monkeypatch, warned):
    on = {"log.tensorboard": True} if "tensorboard" in missing else {"log.wandb": "project"}
    run = Run.create(tmp_path / "run", config := small(**on))
    monkeypatch.setitem(sys.modules, missing, None)
    assert open_loggers(config, run, 0) == []
    (text,) = warned()
    assert f"(log.{missing.split('.')[-1]}) is off" in text
    assert "`pip install 'mhcnb[log]'`" in text


def test_a_logger_that_cannot_open_leaves_the_other(board, warned, monkeypatch):
    class Broken:
        def __init__(self, *_):
            raise ValueError("broken")

    config, run = board
    monkeypatch.setattr(loggers, "WeightsAndBiases", Broken)
    config = config.model_copy(update={"log": config.log.model_copy(update={"wandb": "project"})})
    (logger,) = open_loggers(config, run, 0)
    assert logger.name == "TensorBoard (log.tensorboard)"
    logger.close("done")
    (text,) = warned()
    assert "Weights & Biases (log.wandb) is off: ValueError: broken" in text


# Weights & Biases --------------------------------------------------------------------------------------------------


@pytest.fixture
def wandb(monkeypatch, tmp_path):
    """W&B offline, with no key, as a process finds it that has not used it yet."""
    package = pytest.importorskip("wandb", reason="wandb is not installed: pip install 'mhcnb[log]'")
    for name in [*loggers.QUIET, *(name for name in os.environ if name.startswith("WANDB_"))]:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path))  # no .netrc of whoever runs this
    package.teardown()
    yield package
    with suppress(ConnectionError):  # of a test that killed its process
        package.teardown()


@pytest.fixture
def cell(small, tmp_path):
    """(configuration, run) with W&B on, the run one of a sweep."""
    (tmp_path / "gains").mkdir()
    (tmp_path / "gains" / folder.RECORD).write_text("{}")
    config = small(**{"log.wandb": "streams", "log.wandb_entity": "team"})
    return config, Run.create(tmp_path / "gains" / "hc-s0", config)


def kept(run):
    """The file that W&B kept of a run offline."""
    (file,) = (run.path / "logs" / "wandb").glob("offline-run-*/*.wandb")
    return file


def parsed(path):
    """The records of such a file: a LevelDB log, of blocks of 32 KiB, behind a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        whole, at = whole + data[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):  # a record in one piece, or the last piece of one
            yield Record.FromString(whole)
            whole = b""


def sent(path):
    """{name: {step: value}} of such a file, without W&B's own names."""
    found = {}
    for record in parsed(path):
        for item in record.history.item:
            name = item.key or "/".join(item.nested_key)
            if not name.startswith("_"):
                assert record.history.step.num not in found.setdefault(name, {})
                found[name][record.history.step.num] = json.loads(item.value_json)
    return found


def its_process():
    """The process that W&B started beside this one."""
    stats = [path.read_text().split() for path in Path("/proc").glob("[0-9]*/stat")]
    (pid,) = [int(stat[0]) for stat in stats if stat[1] == "(wandb-core)" and int(stat[3]) == os.getpid()]
    return pid


def test_wandb_gets_every_record_keeps_its_id_over_a_resume_and_may_die(wandb, cell, warned):
    config, run = cell
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.stdout, sys.stderr
    (logger,) = open_loggers(config, run, 0)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.stdout, sys.stderr) == before
    for record in records(0, 6):
        logger.follow(record)
    logger.sink.run.settings.stop_fn()
    assert run.requested("stop")
    logger.close("done")
    logger.close("done")
    wandb.teardown()  # as at the exit of a process: its own one ends when the file is whole
    file = kept(run)
    assert sent(file) == points(records(0, 6))
    assert {"train/loss", "train/lr", "grad_norm", "mhc/amax_pre", "mhc/amax_post"} <= sent(file).keys()
    (begun,) = [record.run for record in parsed(file) if record.WhichOneof("record_type") == "run"]
    assert (begun.entity, begun.project, begun.run_group, begun.display_name) == ("team", "streams", "gains", "hc-s0")
    config_sent = {update.key: json.loads(update.value_json) for update in begun.config.update}
    assert {key: config_sent[key] for key in as_dict(config)} == json.loads(json.dumps(as_dict(config)))
    assert wandb.run is None  # the caller's own run, if any, is another

    (logger,) = open_loggers(config, run, 4)
    assert logger.sink.run.id == begun.run_id
    os.kill(its_process(), signal.SIGKILL)
    assert not warned()
    for record in records(5, 300):
        logger.follow(record)
    logger.close("done")
    assert len(warned()) == 1
    assert "(log.wandb) failed and is off" in warned()[0]


@pytest.mark.parametrize("why", ["no key", "no server"])
def test_wandb_goes_on_offline_where_it_is_not_let_in(why, wandb, cell, warned, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr(loggers, "START_S", 1.0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        if why == "no server":
            monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        config, run = cell
        (logger,) = open_loggers(config, run, 0)
        for record in records(0, 2):
            logger.follow(record)
        logger.close("failed")
        wandb.teardown()
    assert sent(kept(run)) == points(records(0, 2))
    (text,) = warned()
    assert "(log.wandb) is offline" in text
    assert {"no key": "No API key configured", "no server": "connection refused"}[why] in text
    name = json.loads((run.path / "logs" / "wandb.json").read_text())["id"]
    assert f"`wandb sync --id {name} {kept(run).parent}` sends it" in text
    assert [r.exit.exit_code for r in parsed(kept(run)) if r.WhichOneof("record_type") == "exit"] == [1]


def test_an_id_is_kept_over_a_resume_and_new_for_a_run_that_starts_over(cell):
    _, run = cell
    first = loggers._identity(run, 0)
    assert loggers._identity(run, 4) == first
    assert loggers._identity(run, 0) != first


def test_the_sweep_of_a_run_is_the_folder_with_a_record_of_cells(cell, tmp_path):
    assert loggers.SWEEP == folder.RECORD
    config, run = cell
    assert loggers.sweep_of(run) == "gains"
    assert loggers.sweep_of(Run.create(tmp_path / "alone", config)) is None
