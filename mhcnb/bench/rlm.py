"""What a token of training costs an RLM, beside the Llama of transformers of the same shape."""

import importlib.util
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mhcnb.bench.gpt import Loss
from mhcnb.bench.measure import Timing, side_by_side
from mhcnb.config import RunConfig, build_config
from mhcnb.training.optim import build_optimizer

log = logging.getLogger(__name__)
BATCH, TOKENS, VOCABULARY = 4, 256, 32000
WIDTH, LAYERS, HEADS = 256, 8, 4


def rlm(rounds: int = 15) -> list[Timing]:
    """Updates (forward, backward, fused AdamW) of 4 x 256 tokens: 8 layers of 256, vocabulary 32000, float32, all
    threads. The Llama is there where transformers is."""
    contenders = {}
    if importlib.util.find_spec("transformers"):
        contenders["llama of transformers"] = _llama()
    else:
        log.warning("bench rlm: no Llama to compare with, transformers is not installed (pip install transformers)")
    return side_by_side("rlm", contenders | {name: _rlm(name) for name in ("residual", "mhc")}, rounds)


def configuration(connection: str, block_size: int = TOKENS) -> RunConfig:
    """That shape with a connection."""
    model = {"name": "rlm", "width": WIDTH, "layers": LAYERS, "heads": HEADS}
    sizes = {"block_size": block_size, "vocab_size": VOCABULARY}
    rest = {"data": {"name": "shards"}, "objective": {"name": "lm"}, "train": {"steps": 1, "lr": 1e-4}}
    return build_config({"connection": {"name": connection}, "model": model | sizes, **rest}, "bench rlm")


def _rlm(connection: str) -> Callable[[], None]:
    config, batch = configuration(connection), _batch()
    loss = Loss(config)
    return _update(build_optimizer(loss.model, config.train), lambda: loss(*batch))


def _llama() -> Callable[[], None]:
    from transformers import LlamaConfig, LlamaForCausalLM

    config: Any = configuration("residual").model
    model: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=config.sizes.ffn_dim,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            max_position_embeddings=TOKENS,
        )
    )
    inputs, targets = _batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    return _update(optimizer, lambda: model(inputs, labels=targets, shift_labels=targets, use_cache=False).loss)


def _update(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> Callable[[], None]:
    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return run


def _batch() -> tuple[Tensor, Tensor]:
    tokens = torch.randint(VOCABULARY, (BATCH, TOKENS + 1), generator=torch.Generator().manual_seed(0))
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
