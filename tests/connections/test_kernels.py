"""The kernels, tested on a GPU where there is one, and otherwise under Triton's interpreter, on a CPU.

Triton has to know of the interpreter when it is first imported, so those tests, in kernel_cases.py, have a process.
"""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mhcnb.connections import kernels
from mhcnb.connections.kernels import choice

WITHOUT = "triton is not installed: pip install 'mhcnb[kernels]'"
NAMES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", int: "i32", float: "fp32"}


def run_cases(**environment):
    command = [sys.executable, "-m", "pytest", "-n0", "-q", str(Path(__file__).with_name("kernel_cases.py"))]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


@pytest.mark.slow
def test_under_the_interpreter():
    pytest.importorskip("triton", reason=WITHOUT)
    run_cases(TRITON_INTERPRET="1")


@pytest.mark.gpu
def test_on_a_gpu():
    pytest.importorskip("triton", reason=WITHOUT)
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    run_cases()


def launched(n, d, dtype, monkeypatch):
    """{name: (kernel, its arguments by name)} of all kernels, as the operators would launch them."""
    from mhcnb.connections.kernels import mixing, operators, projecting

    found = {}

    def launch(kernel, grid, *arguments, **constants):
        named = dict(zip(kernel.arg_names, arguments, strict=False))
        found[kernel.fn.__name__] = kernel, named | constants

    for module in (mixing, projecting):
        monkeypatch.setattr(module, "launch", launch)
    X, W = torch.zeros(5, n, d, dtype=dtype, requires_grad=True), torch.zeros(d * n, n * n + 2 * n)
    settings = operators.Settings(False, 1e-6, 0.0, 2, 1, 0.0, False)
    u, entered = operators.enter(X, W, torch.zeros(n * n + 2 * n), settings)
    operators.write(entered, u).sum().backward()
    raw, on = operators.project(X, W, False, 1e-6)
    pre, post, res = raw.split([n, n, n * n], dim=-1)
    u, entered = operators.read(X, on, pre, post, res.unflatten(-1, (n, n)))
    operators.write(entered, u).sum().backward()
    return found


CARDS = [(80, 2, 3, torch.float32), (90, 4, 300, torch.bfloat16)]


@pytest.mark.slow
@pytest.mark.parametrize(("capability", "n", "d", "dtype"), CARDS, ids=str)
def test_compile_for_gpus_that_are_not_here(capability, n, d, dtype, monkeypatch, tmp_path):
    """To machine code, as launched: the interpreter takes much that the compiler does not."""
    triton = pytest.importorskip("triton", reason=WITHOUT)
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    found = launched(n, d, dtype, monkeypatch)
    assert len(found) == 9
    for kernel, arguments in found.values():
        options = {"num_warps": arguments.pop("num_warps", 4)}
        constants = {p.name: arguments[p.name] for p in kernel.params if p.is_constexpr}
        types = {
            name: "constexpr" if name in constants else NAMES[getattr(value, "dtype", type(value))]
            for name, value in arguments.items()
        }
        made = triton.compile(ASTSource(kernel, types, constants), GPUTarget("cuda", capability, 32), options)
        assert made.asm["cubin"]


def test_without_triton_the_plain_form_is_used_and_said_once(monkeypatch, caplog):
    monkeypatch.setattr(kernels, "ON", {"cpu"})
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: None)
    choice.why_not.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert not any(kernels.fused(torch.zeros(3, 4, 5)) for _ in range(3))
    choice.why_not.cache_clear()
    (record,) = caplog.records
    assert "pip install 'mhcnb[kernels]'" in record.message
