"""Whether the kernels can be taken."""

import functools
import importlib.util
import logging

import torch


@torch.compiler.assume_constant_result
def take(n: int, dtype: torch.dtype, kind: str, index: int | None) -> bool:
    """Whether there are kernels for n streams of this type on this device; a constant where it is compiled."""
    return why_not(n, dtype, kind, index) is None


@functools.cache
def why_not(n: int, dtype: torch.dtype, kind: str, index: int | None) -> str | None:
    """The reason why there are none, which the log tells once."""
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
