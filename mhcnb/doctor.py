"""`mhcnb doctor`: is this installation fit to work, in words."""

import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mhcnb.errors import MhcnbError

TESTED_TORCH = "2.13.0"
EXTRAS = {"huggingface_hub": "hub", "distributed": "sweep", "tensorboard": "log", "wandb": "log", "pytest": "dev"}


class Finding(NamedTuple):
    """state is OK, WARN or FAIL; text says what was found and, where it is not OK, what to do."""

    state: str
    text: str


def examine() -> list[Finding]:
    """All findings. A check that itself breaks is a FAIL with its reason, never a traceback."""
    findings = []
    for check in (_python, _torch, _devices, _kernels, _packages, _notebooks, _data, _folders):
        try:
            findings += list(check())
        except Exception as error:  # a broken installation is what this command is for
            findings.append(Finding("FAIL", f"{check.__name__.strip('_')}: {type(error).__name__}: {error}"))
    return findings


def _python() -> Iterator[Finding]:
    in_venv = sys.prefix != sys.base_prefix or "CONDA_PREFIX" in os.environ
    yield Finding("OK", f"python {sys.version.split()[0]} at {sys.executable}")
    if not in_venv:
        yield Finding("WARN", "python: no environment is active; `make setup` makes one in .venv")


def _torch() -> Iterator[Finding]:
    import torch

    found = torch.__version__
    same = found.split("+")[0] == TESTED_TORCH
    yield Finding("OK" if same else "WARN", f"torch {found}" + ("" if same else f"; tested with {TESTED_TORCH}"))
    a = torch.randn(64, 64, dtype=torch.float64)
    error = float((torch.linalg.inv(a) @ a - torch.eye(64)).abs().max())
    yield Finding("OK" if error < 1e-6 else "FAIL", f"torch computes: inverse of a random matrix to {error:.0e}")


def _devices() -> Iterator[Finding]:
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    threads = torch.get_num_threads()
    if found is None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        reason = f" (CUDA_VISIBLE_DEVICES is {visible!r})" if visible is not None else ""
        yield Finding("OK", f"devices: the CPU, {os.cpu_count()} cores, {threads} threads; no accelerator{reason}")
        return
    yield Finding("OK", f"devices: {torch.accelerator.device_count()} x {found.type}; {threads} CPU threads")


def _kernels() -> Iterator[Finding]:
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler:
        yield Finding("OK", f"kernels: torch.compile has a C++ compiler ({compiler})")
    else:
        yield Finding("WARN", "kernels: no C++ compiler, so train.compile=true cannot work on a CPU; install g++")


def _packages() -> Iterator[Finding]:
    for name in ("papermill", "jupyterlab", "ipywidgets", "matplotlib", "seaborn", "tokenizers", "modelscope"):
        try:
            yield Finding("OK", f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            yield Finding("FAIL", f"{name} is missing; `pip install -e .` installs it")
    for module, extra in EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            yield Finding("WARN", f"{module} (optional) is missing; `pip install -e '.[{extra}]'` installs it")


def _notebooks() -> Iterator[Finding]:
    from jupyter_client.kernelspec import KernelSpecManager

    command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    same = Path(command).resolve() == Path(sys.executable).resolve() or not os.path.isabs(command)
    yield Finding("OK" if same else "WARN", f"notebooks: the kernel python3 runs {command}")


def _data() -> Iterator[Finding]:
    from mhcnb.data.layout import folder_of, open_layout

    name = next((name for name in ("DATA_ROOT", "DATA_PATH") if os.environ.get(name)), None)
    if name is None:
        yield Finding("OK", "data: DATA_ROOT is not set: data.root decides; data.root=embedded needs no download")
        return
    try:
        found = open_layout(Path(str(folder_of(None))), {"train": None, "val": None})
        counts = ", ".join(f"{len(shards)} {split}" for split, shards in found.shards.items())
        yield Finding("OK", f"data: {name}={os.environ[name]}: {counts} shards, {found.format}")
    except MhcnbError as error:
        yield Finding("FAIL", f"data: {name}={os.environ[name]}: {error}")


def _folders() -> Iterator[Finding]:
    outputs = Path("outputs")
    place = outputs if outputs.is_dir() else Path()
    _writable(place)
    free = shutil.disk_usage(place).free / 1e9
    state = "OK" if free > 2 else "WARN"
    yield Finding(state, f"folders: {place.resolve()} is writable, {free:.0f} GB free")


def _writable(place: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=place) as probe:
        probe.write(b"probe")
