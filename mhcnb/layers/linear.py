"""Linear maps that are drawn from a given generator, never from torch's global one."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

CUT = 2.0  # standard deviations of the normal that `truncated` cuts
_KEPT = math.erf(CUT / math.sqrt(2))  # of its mass
# what is left has a smaller deviation: √(1 - 2·CUT·φ(CUT) / kept) of it; the inverse makes up for that
WIDENED = 1 / math.sqrt(1 - 2 * CUT * math.exp(-(CUT**2) / 2) / math.sqrt(2 * math.pi) / _KEPT)

Draw = Callable[..., Any]  # draw(x, std=, generator=) fills x


def normal(x: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """x filled from N(0, std)."""
    return nn.init.normal_(x, std=std, generator=generator)


@torch.no_grad()
def truncated(x: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """x filled from a normal that is cut off at two of its standard deviations, and so wide that its own is `std`;
    torch's trunc_normal_ has a smaller one."""
    edge = WIDENED * CUT * std
    x.uniform_(-_KEPT, _KEPT, generator=generator).erfinv_()
    return x.mul_(math.sqrt(2) * WIDENED * std).clamp_(-edge, edge)


def linear(
    d_in: int,
    d_out: int,
    bias: bool,
    std: float,
    generator: torch.Generator,
    draw: Draw = normal,
    kind: type[nn.Linear] = nn.Linear,
) -> nn.Linear:
    """A Linear with weights of mean 0 and this deviation, and zero bias."""
    layer: Any = skip_init(kind, d_in, d_out, bias=bias, device=torch.get_default_device())
    draw(layer.weight, std=std, generator=generator)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def embedding(size: int, d: int, std: float, generator: torch.Generator, draw: Draw = normal) -> nn.Embedding:
    """An Embedding with weights of mean 0 and this deviation."""
    layer: Any = skip_init(nn.Embedding, size, d, device=torch.get_default_device())
    draw(layer.weight, std=std, generator=generator)
    return layer
