"""Causal self-attention."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mhcnb.layers.linear import linear


class CausalAttention(nn.Module):
    """Multi-head attention as in GPT-2: one projection to q, k, v; scale 1/√(head width)."""

    def __init__(
        self, d: int, heads: int, bias: bool, dropout: float, std: float, out_std: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = linear(d, 3 * d, bias, std, generator)
        self.out = linear(d, d, bias, out_std, generator)

    def forward(self, u: Tensor, mask: Tensor | None = None) -> Tensor:
        """u [b, t, d] -> [b, t, d]. `mask` [b, 1, t, t] (True: may look) replaces the causal one."""
        q, k, v = (z.unflatten(-1, (self.heads, -1)).transpose(1, 2) for z in self.qkv(u).chunk(3, dim=-1))
        dropout = self.dropout if self.training else 0.0
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None)
        z = self.out(z.transpose(1, 2).flatten(2))
        return F.dropout(z, dropout) if dropout else z


def documents_mask(documents: Tensor) -> Tensor:
    """documents [b, t] to a mask [b, 1, t, t]: causal, and within one document."""
    t = documents.shape[-1]
    same = documents.unsqueeze(-1) == documents.unsqueeze(-2)
    return (same & torch.ones(t, t, dtype=torch.bool, device=documents.device).tril()).unsqueeze(1)


def positions_within(documents: Tensor) -> Tensor:
    """documents [b, t] to positions [b, t] that begin at 0 in each document."""
    t = torch.arange(documents.shape[-1], device=documents.device).expand_as(documents)
    starts = torch.ones_like(documents, dtype=torch.bool)
    starts[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return t - torch.where(starts, t, 0).cummax(-1).values
