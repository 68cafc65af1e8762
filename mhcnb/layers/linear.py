"""Linear maps that are drawn from a given generator, never from torch's global one."""

from typing import Any

import torch
from torch import nn
from torch.nn.utils import skip_init


def linear(d_in: int, d_out: int, bias: bool, std: float, generator: torch.Generator) -> nn.Linear:
    """A Linear with weights N(0, std) and zero bias."""
    layer: Any = skip_init(nn.Linear, d_in, d_out, bias=bias, device=torch.get_default_device())
    nn.init.normal_(layer.weight, std=std, generator=generator)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def embedding(size: int, d: int, std: float, generator: torch.Generator) -> nn.Embedding:
    """An Embedding with weights N(0, std)."""
    layer: Any = skip_init(nn.Embedding, size, d, device=torch.get_default_device())
    nn.init.normal_(layer.weight, std=std, generator=generator)
    return layer
