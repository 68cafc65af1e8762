"""Self-attention, causal or not, and where tokens stand for it."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mhcnb.errors import DataError
from mhcnb.layers.cache import Cache
from mhcnb.layers.linear import linear, truncated
from mhcnb.layers.rope import Rotation, rotate


class Attention(nn.Module):
    """What the forms below share: softmax(q kᵀ / √k) v over what each token may look at, and the way out."""

    dropout: float
    out: nn.Linear
    causal = True  # where no mask says it

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, cache: Cache | None) -> Tensor:
        """q [b, t, h, k]; k, v [b, t, h', k], each for h/h' of the heads of q; -> [b, t, d].

        `mask` [b, 1, t, keys] (True: may look) is causal where None. The tokens of a cache come before k and v.
        """
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if cache is not None:
            k, v = cache.extend(self, k, v)
        # with a cache and no mask it is one token, which looks at all before it
        causal = self.causal and mask is None and q.shape[2] == k.shape[2]
        dropout = self.dropout if self.training else 0.0
        z = F.scaled_dot_product_attention(q, k, v, mask, dropout, causal, enable_gqa=q.shape[1] != k.shape[1])
        z = self.out(z.transpose(1, 2).flatten(2))
        return F.dropout(z, dropout) if dropout else z


class CausalAttention(Attention):
    """Multi-head attention as in GPT-2: one projection to q, k, v."""

    def __init__(
        self, d: int, heads: int, bias: bool, dropout: float, std: float, out_std: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = linear(d, 3 * d, bias, std, generator)
        self.out = linear(d, d, bias, out_std, generator)

    def forward(self, u: Tensor, mask: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """u [b, t, d] -> [b, t, d]; mask and cache as `attend` has them."""
        q, k, v = (z.unflatten(-1, (self.heads, -1)) for z in self.qkv(u).chunk(3, dim=-1))
        return self.attend(q, k, v, mask, cache)


class GroupedAttention(Attention):
    """As in Llama: rotary positions, and kv_heads heads of keys and values, each for heads/kv_heads heads of queries
    (Ainslie et al. 2023, arXiv 2305.13245)."""

    def __init__(
        self,
        d: int,
        *,
        heads: int,
        kv_heads: int,
        head_dim: int,
        dropout: float,
        std: float,
        out_std: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.head_dim, self.dropout = head_dim, dropout
        self.q = linear(d, heads * head_dim, False, std, generator)
        self.k = linear(d, kv_heads * head_dim, False, std, generator)
        self.v = linear(d, kv_heads * head_dim, False, std, generator)
        self.out = linear(heads * head_dim, d, False, out_std, generator)

    def forward(self, u: Tensor, rope: Rotation, mask: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """u [b, t, d] -> [b, t, d]; mask and cache as `attend` has them."""
        q, k, v = (project(u).unflatten(-1, (-1, self.head_dim)) for project in (self.q, self.k, self.v))
        return self.attend(rotate(q, rope), rotate(k, rope), v, mask, cache)


class FullAttention(Attention):
    """Every token looks at all: no mask, no bias, one projection to q, k, v, rotary positions where given."""

    causal = False

    def __init__(self, d: int, heads: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads, self.dropout, std = heads, 0.0, d**-0.5
        self.qkv = linear(d, 3 * d, False, std, generator, truncated)
        self.out = linear(d, d, False, std, generator, truncated)

    def forward(self, u: Tensor, rope: Rotation | None = None) -> Tensor:
        """u [b, t, d] -> [b, t, d]."""
        b, t, d = u.shape
        h = self.heads
        qk, v = self.qkv(u).view(b, t, 3 * h, d // h).split_with_sizes([2 * h, h], dim=2)
        q, k = (qk if rope is None else rotate(qk, rope)).chunk(2, dim=2)  # turned together: half the operations
        return self.attend(q, k, v, None, None)


class Places(NamedTuple):
    """Where tokens stand: positions [t] or [b, t], and the mask of `Attention.attend`."""

    positions: Tensor
    mask: Tensor | None


def places(inputs: Tensor, documents: Tensor | None, cache: Cache | None, most: int) -> Places:
    """Of inputs [b, t] after those of a cache, each document as if it were alone. Raises DataError where more than
    `most` tokens are in a row, and for documents with a cache."""
    t, before = inputs.shape[-1], cache.length if cache is not None else 0
    if before + t > most:
        raise DataError(f"{before + t} tokens in a row; model.block_size is {most}")
    if cache is not None and documents is not None:
        raise DataError("several documents in a row have no cache: decode them as rows of their own")
    if documents is not None:
        return Places(positions_within(documents), documents_mask(documents))
    if cache is not None:
        return Places(cache.positions(t, inputs.device), cache.mask(t, inputs.device))
    return Places(torch.arange(t, device=inputs.device), None)


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
