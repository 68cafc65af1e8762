"""Feed-forward branches."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mhcnb.layers.linear import linear, truncated
from mhcnb.layers.product import Product


class GELUMLP(nn.Module):
    """Linear, exact (erf) GELU, linear; inner width 4d."""

    def __init__(
        self, d: int, bias: bool, dropout: float, std: float, out_std: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.up = linear(d, 4 * d, bias, std, generator)
        self.down = linear(4 * d, d, bias, out_std, generator)

    def forward(self, u: Tensor, **_: object) -> Tensor:
        """u [*b, d] -> [*b, d]."""
        z = self.down(F.gelu(self.up(u)))
        return F.dropout(z, self.dropout, self.training) if self.dropout else z


class SwiGLU(nn.Module):
    """down(silu(gate(u)) · up(u)) without bias (Shazeer 2020, arXiv 2002.05202); inner width f."""

    def __init__(
        self,
        d: int,
        f: int,
        dropout: float,
        std: float,
        out_std: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.gate = linear(d, f, False, std, generator)
        self.up = linear(d, f, False, std, generator)
        self.down = linear(f, d, False, out_std, generator)

    def forward(self, u: Tensor, **_: object) -> Tensor:
        """u [*b, d] -> [*b, d]."""
        z = self.down(F.silu(self.gate(u)) * self.up(u))
        return F.dropout(z, self.dropout, self.training) if self.dropout else z


class FusedSwiGLU(nn.Module):
    """SwiGLU of which gate and up are one matrix, gate's rows first; truncated weights of deviation 1/√(inputs)."""

    def __init__(self, d: int, f: int, generator: torch.Generator) -> None:
        super().__init__()
        self.gate_up = linear(d, 2 * f, False, d**-0.5, generator, truncated, Product)
        self.down = linear(f, d, False, f**-0.5, generator, truncated, Product)

    def forward(self, u: Tensor, **_: object) -> Tensor:
        """u [*b, d] -> [*b, d]."""
        gate, up = self.gate_up(u).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)
