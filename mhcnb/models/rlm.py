"""A language model as Llama is built: RMSNorm, rotary positions, SwiGLU; every branch behind a connection."""

from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import nn

from mhcnb.layers.attention import GroupedAttention, places
from mhcnb.layers.cache import Cache
from mhcnb.layers.linear import embedding, linear
from mhcnb.layers.mlp import SwiGLU
from mhcnb.layers.rope import rotation
from mhcnb.layers.stack import Stack
from mhcnb.models.base import Batch, Head, Model, Output
from mhcnb.models.rlm_names import RENAMES
from mhcnb.section import Named, Positive

STD = 0.02


class Sizes(NamedTuple):
    """What follows from the width where it is not given."""

    kv_heads: int
    head_dim: int
    ffn_dim: int


class RLMConfig(Named):
    """Sizes of an RLM. `vocab_size: auto` is the vocabulary of the data, rounded up to 64."""

    renames: ClassVar = RENAMES
    name: str = "rlm"
    width: Positive = 768
    layers: Positive = 12
    heads: Positive = 12
    kv_heads: Positive | None = None  # of keys and values; None: heads
    head_dim: Positive | None = None  # None: width / heads
    ffn_dim: Positive | None = None  # None: 8/3 width, rounded
    vocab_size: Positive | Literal["auto"] = 32000
    block_size: Positive = 8192
    rope_theta: Annotated[float, Field(gt=0)] = 10000.0
    norm_eps: Annotated[float, Field(gt=0)] = 1e-6
    tied: bool = False  # the head is the embedding
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def sizes(self) -> Sizes:
        """Given or derived."""
        return Sizes(
            self.kv_heads or self.heads,
            self.head_dim or self.width // self.heads,
            self.ffn_dim or round(8 * self.width / 3),
        )

    @model_validator(mode="after")
    def _divides(self) -> "RLMConfig":
        if self.head_dim is None and self.width % self.heads:
            below = self.width // self.heads * self.heads
            raise ValueError(
                f"width {self.width} is not divisible by heads {self.heads}; nearest widths: {below or self.heads} and "
                f"{below + self.heads}, or give head_dim"
            )
        if self.heads % self.sizes.kv_heads:
            shares = [k for k in range(1, self.heads + 1) if self.heads % k == 0]
            raise ValueError(f"heads {self.heads} is not divisible by kv_heads {self.kv_heads}; it is by {shares}")
        if self.sizes.head_dim % 2:
            raise ValueError(
                f"a head is {self.sizes.head_dim} wide; rotary positions turn pairs, so give an even head_dim"
            )
        return self


class RLM(Model):
    """tokens -> embeddings -> `layers` blocks of attention and SwiGLU -> norm -> logits."""

    Config = RLMConfig
    decodes = True

    def __init__(self, config: RLMConfig, connection: Any, generator: torch.Generator) -> None:
        super().__init__()
        self.config, d, v = config, config.width, int(config.vocab_size)
        self.wte = embedding(v, d, STD, generator)
        self.head = None if config.tied else linear(d, v, False, STD, generator)
        self.main = Stack(connection, d, [self._block(generator) for _ in range(config.layers)], generator)
        self.norm = nn.RMSNorm(d, config.norm_eps)

    def _block(self, generator: torch.Generator) -> dict[str, tuple[nn.Module, nn.Module]]:
        c, s, out_std = self.config, self.config.sizes, STD / (2 * self.config.layers) ** 0.5
        attention = GroupedAttention(
            c.width,
            heads=c.heads,
            kv_heads=s.kv_heads,
            head_dim=s.head_dim,
            dropout=c.dropout,
            std=STD,
            out_std=out_std,
            generator=generator,
        )
        mlp = SwiGLU(c.width, s.ffn_dim, c.dropout, STD, out_std, generator)
        return {
            "attn": (attention, nn.RMSNorm(c.width, c.norm_eps)),
            "mlp": (mlp, nn.RMSNorm(c.width, c.norm_eps)),
        }

    def forward(
        self, batch: Batch, carry: Any = None, *, cache: Cache | None = None, loops: int | None = None
    ) -> Output:
        """inputs [b, t], and documents [b, t] where several are packed in a row, each then as if it were alone; with a
        cache they follow the tokens that it has seen. Raises DataError for more than block_size."""
        inputs, c = batch["inputs"], self.config
        positions, mask = places(inputs, batch.get("documents"), cache, c.block_size)
        x = F.dropout(self.wte(inputs), c.dropout, self.training)
        rope = rotation(positions, c.sizes.head_dim, c.rope_theta, x.dtype)
        hidden = self.main(x, self.norm, rope=rope, mask=mask, cache=cache)
        if cache is not None:
            cache.advance(inputs.shape[-1])
        return Output(hidden, Head((self.head or self.wte).weight), {}, None)

    def flops_per_token(self) -> float:
        """6 a weight (2 forward, 4 backward), the embedding apart where it is not the head, and attention's scores and
        sums at full block size."""
        c = self.config
        looked_up = 0 if c.tied else self.wte.weight.numel()
        weights = sum(p.numel() for p in self.parameters()) - looked_up
        return 6.0 * weights + 12.0 * c.layers * c.heads * c.sizes.head_dim * c.block_size
