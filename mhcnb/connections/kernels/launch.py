"""How the kernels are launched: tiles, precision, device."""

from typing import Any

import torch
from torch import Tensor

SPAN = 2**17  # values that a program passes over twice: one a multiprocessor, an H100's L2 cache holds them in bfloat16


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """On the device of the first argument."""
    if 0 not in grid:
        with torch.accelerator.device_index(arguments[0].device.index):
            kernel[grid](*arguments, **constants)


def block(width: int, largest: int) -> int:
    """Columns at a time; tensor cores take no fewer than 16."""
    return max(16, min(largest, 1 << (width - 1).bit_length()))


def tokens_each(width: int) -> int:
    """How many tokens, of this many values, a program takes that passes over them twice."""
    return min(64, max(16, 1 << (SPAN // width).bit_length() - 1))


def precision(X: Tensor) -> str:
    """Of products with the weights: exact in float32; where X is bfloat16, ten bits of the other factor."""
    return "ieee" if X.dtype == torch.float32 else "tf32"


def columns(W: Tensor) -> dict[str, int]:
    """As many columns as W [D, k] has, and as the kernels work with."""
    return {"width": W.shape[1], "padded": max(16, 1 << (W.shape[1] - 1).bit_length())}


def stand_in(X: Tensor) -> Tensor:
    """Of X's shape, and one value of memory."""
    return X.new_empty(()).expand(X.shape)
