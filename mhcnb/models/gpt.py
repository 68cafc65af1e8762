"""GPT-2 as in nanoGPT: learned positions, pre-norm, exact GELU, tied head; every branch behind a connection."""

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import nn

from mhcnb.layers.attention import CausalAttention, places
from mhcnb.layers.cache import Cache
from mhcnb.layers.linear import embedding
from mhcnb.layers.mlp import GELUMLP
from mhcnb.layers.stack import Stack
from mhcnb.models.base import Batch, Head, Model, Output
from mhcnb.section import Named, Positive

STD = 0.02


class GPTConfig(Named):
    """Sizes of a GPT. `vocab_size: auto` is the vocabulary of the data, rounded up to 64."""

    name: str = "gpt"
    width: Positive = 768
    layers: Positive = 12
    heads: Positive = 12
    block_size: Positive = 1024
    vocab_size: Positive | Literal["auto"] = "auto"
    bias: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _divides(self) -> "GPTConfig":
        if self.width % self.heads:
            below = self.width // self.heads * self.heads
            raise ValueError(
                f"width {self.width} is not divisible by heads {self.heads}; "
                f"nearest widths: {below or self.heads} and {below + self.heads}"
            )
        return self


class GPT(Model):
    """tokens -> embeddings -> `layers` blocks of attention and MLP -> norm -> logits by the embedding matrix."""

    Config = GPTConfig
    decodes = True

    def __init__(self, config: GPTConfig, connection: Any, generator: torch.Generator) -> None:
        super().__init__()
        self.config, d = config, config.width
        self.wte = embedding(int(config.vocab_size), d, STD, generator)
        self.wpe = embedding(config.block_size, d, STD, generator)
        self.main = Stack(connection, d, [self._block(generator) for _ in range(config.layers)], generator)
        self.norm = nn.LayerNorm(d, bias=config.bias)

    def _block(self, generator: torch.Generator) -> dict[str, tuple[nn.Module, nn.Module]]:
        c, out_std = self.config, STD / (2 * self.config.layers) ** 0.5
        d, rest = c.width, (c.bias, c.dropout, STD, out_std, generator)
        return {
            "attn": (CausalAttention(d, c.heads, *rest), nn.LayerNorm(d, bias=c.bias)),
            "mlp": (GELUMLP(d, *rest), nn.LayerNorm(d, bias=c.bias)),
        }

    def forward(
        self, batch: Batch, carry: Any = None, *, cache: Cache | None = None, loops: int | None = None
    ) -> Output:
        """inputs [b, t], and documents [b, t] where several are packed in a row, each then as if it were alone; with a
        cache they follow the tokens that it has seen. Raises DataError for more than block_size."""
        inputs = batch["inputs"]
        positions, mask = places(inputs, batch.get("documents"), cache, self.config.block_size)
        x = F.dropout(self.wte(inputs) + self.wpe(positions), self.config.dropout, self.training)
        hidden = self.main(x, self.norm, mask=mask, cache=cache)
        if cache is not None:
            cache.advance(inputs.shape[-1])
        return Output(hidden, Head(self.wte.weight), {}, None)

    def flops_per_token(self) -> float:
        """6 a weight (2 forward, 4 backward), positions apart, and attention's scores and sums at full block size."""
        weights = sum(p.numel() for p in self.parameters()) - self.wpe.weight.numel()
        return 6.0 * weights + 12.0 * self.config.layers * self.config.width * self.config.block_size
