"""Feed-forward branches."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mhcnb.layers.linear import linear


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

    def __init__(self, d: int, f: int, dropout: float, std: float, out_std: float, generator: torch.Generator) -> None:
        super().__init__()
        self.dropout = dropout
        self.gate = linear(d, f, False, std, generator)
        self.up = linear(d, f, False, std, generator)
        self.down = linear(f, d, False, out_std, generator)

    def forward(self, u: Tensor, **_: object) -> Tensor:
        """u [*b, d] -> [*b, d]."""
        z = self.down(F.silu(self.gate(u)) * self.up(u))
        return F.dropout(z, self.dropout, self.training) if self.dropout else z
