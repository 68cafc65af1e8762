"""Devices, and ranks from a notebook: with connections.ops the only place that may name CUDA."""

import logging
import os
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mhcnb.config import RunConfig, as_dict, build_config
from mhcnb.errors import ConfigError, MhcnbError, RunError
from mhcnb.run import Run
from mhcnb.training.distributed import World
from mhcnb.training.rank import die_with_parent
from mhcnb.training.stopping import SIGNALS

log = logging.getLogger(__name__)
# dense bf16 matrix FLOP/s by a part of the device's name, as the makers state them
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12, "3090": 71e12, "V100": 125e12}
# by the launcher to its ranks
PASSED_ON = (*SIGNALS, *(number for number in signal.Signals if number.name in ("SIGHUP", "SIGQUIT")))


def choose_device(config: RunConfig, world: World) -> torch.device:
    """The device of this process. Raises ConfigError where the configured one, or one for each rank, is not there."""
    found = torch.accelerator.current_accelerator(check_available=True)
    name = config.train.device if config.train.device != "auto" else found.type if found else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
    count = torch.accelerator.device_count() if found and found.type == name else 0
    if count == 0:
        raise ConfigError(
            f"train.device is {name}, but this process sees no such device (devices: "
            f"{found.type if found else 'cpu'}; CUDA_VISIBLE_DEVICES {visible}); use train.device=auto"
        )
    if world.local >= count:
        raise ConfigError(
            f"local rank {world.local} has no device: {count} {name} device(s) are visible (CUDA_VISIBLE_DEVICES "
            f"{visible}); start at most {count} processes on this machine"
        )
    torch.accelerator.set_device_index(world.local)
    return torch.device(name, world.local)


def heeding_environment(config: RunConfig) -> RunConfig:
    """Without train.compile where the environment has DISABLE_COMPILE, whatever its value: guides of HRM set it."""
    if not config.train.compile or "DISABLE_COMPILE" not in os.environ:
        return config
    log.info("DISABLE_COMPILE is set: train.compile is off")
    return config.model_copy(update={"train": config.train.model_copy(update={"compile": False})})


def autocast_dtype(config: RunConfig, device: torch.device) -> torch.dtype:
    """The type of autocast: auto is float32 on a CPU, else bfloat16 where there is one, else float16."""
    has_bf16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    name = config.train.dtype
    if name == "auto":
        name = "float32" if device.type == "cpu" else "bfloat16" if has_bf16 else "float16"
    if name == "float16" and device.type == "cpu":
        raise ConfigError("train.dtype float16 needs CUDA; on a CPU use float32 or bfloat16")
    if name == "bfloat16" and not has_bf16:
        raise ConfigError("train.dtype bfloat16: this GPU has none; use float16 or float32")
    return getattr(torch, name)


def peak_flops(device: torch.device) -> float | None:
    """The device's bf16 peak in FLOP/s, where it is known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def peak_memory_gb(device: torch.device) -> float:
    """The most memory this process held: allocated on an accelerator, resident on a CPU. In 10⁹ bytes."""
    if device.type == "cpu":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB on Linux, bytes on macOS
        return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9
    return torch.accelerator.max_memory_allocated(device) / 1e9


def out_of_memory(error: BaseException, config: RunConfig, device: torch.device, step: int) -> RunError | None:
    """In words, what to do where the device had no memory left for this step; None for any other error."""
    if not isinstance(error, torch.OutOfMemoryError):
        return None
    micro, accumulation = config.train.micro_batch, config.train.accumulation
    smaller = f"train.micro_batch={micro // 2} train.accumulation={accumulation * 2}, which keeps the global batch"
    remedies = [smaller] if micro % 2 == 0 else []
    left = ("connection", "block")[("none", "connection", "block").index(config.train.recompute) :]
    several = getattr(config.connection, "streams", 1) > 1
    remedies += [f"train.recompute={kind}" for kind in left if several or kind == "block"]
    said = str(error).split(". GPU")[0].splitlines()[0]
    return RunError(
        f"out of memory at step {step}: {said}; this process held {peak_memory_gb(device):.1f} GB at most. Try "
        f"{' or '.join([*remedies, 'fewer connection.streams'])}"
    )


def run_ranks(config: RunConfig, out: Path, processes: int) -> None:
    """Trains on `processes` ranks of this machine, started from here, and waits. Raises RunError with the reason.

    For notebooks: the ranks are spawned (CUDA does not survive a fork) and die with the process that started them.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
        signals_to_handle=",".join(number.name for number in PASSED_ON),
        start_method="spawn",
    )
    try:
        with _own_handlers():
            elastic_launch(launch, _rank)(as_dict(config), str(out))
    except SignalException as error:
        raise KeyboardInterrupt(str(error)) from error
    except ChildFailedError as error:
        reason = Run(out).status().get("reason") or str(error)
        raise RunError(f"a rank of {out} failed: {reason}; see {out}/logs") from error


@contextmanager
def _own_handlers() -> Iterator[None]:
    """The launcher leaves its signal handlers behind: put back the caller's."""
    if threading.current_thread() is not threading.main_thread():
        # it warns that it cannot handle signals here; the ranks end with this process all the same
        logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.ERROR)
        yield
        return
    before = {number: signal.getsignal(number) for number in PASSED_ON}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _rank(config: dict[str, Any], out: str) -> None:
    """One spawned rank."""
    from mhcnb.training.loop import train

    die_with_parent()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ["LOCAL_WORLD_SIZE"])))
    try:
        train(build_config(config, "the notebook"), Path(out))
    except MhcnbError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None


def job() -> str | None:
    """The name of the torchrun job that this process belongs to, the same after each of its restarts; None without."""
    given = os.environ.get("TORCHELASTIC_RUN_ID")
    if given != "none":
        return given
    parent = os.getppid()  # without a rendezvous of its own the job is its launcher
    stat = Path(f"/proc/{parent}/stat")
    since = stat.read_text().rsplit(")", 1)[1].split()[19] if stat.exists() else "?"  # numbers of processes come again
    return f"{socket.gethostname()}:{parent}:{since}"
