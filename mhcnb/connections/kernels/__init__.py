"""Triton kernels of the shared operations, for 2 and 4 streams on CUDA: nothing but `fused` imports Triton's part, and
that where it is used.

streams: read, carry over and write. rounds: Sinkhorn–Knopp on chip. coefficients: norm and projection; mhc's maps and
the read in one pass. mixing and projecting make operators of them, launch says with what tiles, and operators is what
connections call.
"""

import functools
import importlib.util
import logging

import torch
from torch import Tensor

ON = {"cuda"}  # types of device; tests add the CPU, for Triton's interpreter


def fused(X: Tensor) -> bool:
    """Whether the kernels take streams X [*b, n, d]: n = 2 or 4, bfloat16 or float32, CUDA, Triton there. The log says
    once why not, on a GPU."""
    n = X.shape[-2]
    return X.device.type in ON and n > 1 and _take(n, X.dtype, X.device.type, X.device.index)


@torch.compiler.assume_constant_result
def _take(n: int, dtype: torch.dtype, kind: str, index: int | None) -> bool:
    return _why_not(n, dtype, kind, index) is None


@functools.cache
def _why_not(n: int, dtype: torch.dtype, kind: str, index: int | None) -> str | None:
    why = None
    if importlib.util.find_spec("triton") is None:
        why = "triton is not installed (pip install 'mhcnb[kernels]')"
    elif kind == "cuda" and (torch.version.hip or torch.cuda.get_device_capability(index) < (8, 0)):
        why = f"{torch.cuda.get_device_name(index)} is not of CUDA compute capability 8.0 or more"
    elif n not in (2, 4) or dtype not in (torch.bfloat16, torch.float32):
        why = f"they take 2 or 4 streams in bfloat16 or float32, not {n} in {str(dtype).removeprefix('torch.')}"
    if why:
        logging.getLogger(__name__).warning("no kernels: %s; connections take their plain form, which is slower", why)
    return why
