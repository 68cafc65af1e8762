"""Weights of nanoGPT, whose GPT is ours with residual connections; and what importers of its descendants share.

    load_gpt(torch.load(path, weights_only=True)["model"], heads=12)

Only its exact GELU is ours: checkpoints of its first months (tanh form) differ by 1e-3 in each MLP's activation.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mhcnb.connections.residual import ResidualConfig
from mhcnb.errors import CheckpointError
from mhcnb.interop.ckpt import Ckpt
from mhcnb.interop.names import Shape, Tensors, below, canonical, compare, matrix_shape, section
from mhcnb.models.gpt import GPT, GPTConfig

Branches = Mapping[str, str]  # module of their block -> ours, in the order of BRANCHES
BRANCHES: Branches = {
    "ln_1": "attn.pre_norm",
    "attn.c_attn": "attn.branch.qkv",
    "attn.c_proj": "attn.branch.out",
    "ln_2": "mlp.pre_norm",
    "mlp.c_fc": "mlp.branch.up",
    "mlp.c_proj": "mlp.branch.down",
}
MASK = ".attn.bias"  # the causal mask, which old versions of torch made it keep as a buffer
ARGS = {"n_layer", "n_head", "n_embd", "block_size", "bias", "vocab_size", "dropout"}


def load_gpt(state_dict: Tensors, *, heads: int) -> GPT:
    """The GPT of a state dict, in the types it is stored in. Only the number of heads is not written in the shapes.

    Raises CheckpointError where names or shapes are not those of nanoGPT, ConfigError where the sizes do not fit.
    """
    state = {name: t for name, t in canonical(state_dict, _one_name).items() if not name.endswith(MASK)}
    config = gpt_config(state, heads)
    compare(state, gpt_shapes(config, BRANCHES))
    return assembled(config, ResidualConfig(), gpt_tensors(state, BRANCHES))


def require_known(ckpt: Ckpt) -> None:
    """A fork's switches, as for another activation, are no more than a name here. Raises CheckpointError."""
    unknown = sorted(map(str, ckpt.args.keys() - ARGS))
    if unknown:
        raise CheckpointError(
            f"{ckpt.file}: model_args has {', '.join(unknown)}, which nanoGPT's has not: the model of a fork might be "
            "computed wrongly. If they change nothing, save the file again without them"
        )


# for all its descendants ----------------------------------------------------------------------------------------------


def gpt_config(state: Tensors, heads: int) -> GPTConfig:
    """The sizes that tensors show. Raises CheckpointError, ConfigError."""
    vocab_size, d = matrix_shape(state, "transformer.wte.weight")
    block_size, _ = matrix_shape(state, "transformer.wpe.weight")
    sizes = dict(width=d, layers=len(blocks(state)), heads=heads, block_size=block_size, vocab_size=vocab_size)
    return section(GPTConfig, sizes | {"bias": "transformer.ln_f.bias" in state})


def blocks(state: Tensors) -> list[str]:
    """The numbers of the blocks, as text."""
    return sorted({name.split(".")[0] for name in below(state, "transformer.h.")})


def gpt_shapes(config: GPTConfig, branches: Branches) -> dict[str, Shape]:
    """{name: shape} of embeddings, blocks and the final norm."""
    d, layers = config.width, config.layers
    sizes = [(d,), (3 * d, d), (d, d), (d,), (4 * d, d), (d, 4 * d)]
    names = [f"transformer.h.{i}.{module}" for i in range(layers) for module in branches]
    shapes: dict[str, Shape] = {f"{name}.weight": shape for name, shape in zip(names, sizes * layers, strict=True)}
    shapes["transformer.ln_f.weight"] = (d,)
    if config.bias:
        shapes |= {f"{name.removesuffix('.weight')}.bias": shape[:1] for name, shape in shapes.items()}
    ends: dict[str, Shape] = {"wte": (int(config.vocab_size), d), "wpe": (config.block_size, d)}
    return shapes | {f"transformer.{name}.weight": shape for name, shape in ends.items()}


def gpt_tensors(theirs: Tensors, branches: Branches) -> dict[str, Tensor]:
    """Embeddings, blocks and the final norm (or their gradients) under our names, copied."""
    ours = {f"{name}.weight": theirs[f"transformer.{name}.weight"].clone() for name in ("wte", "wpe")}
    ours |= {f"norm.{name}": tensor.clone() for name, tensor in below(theirs, "transformer.ln_f.").items()}
    for i in blocks(theirs):
        block = below(theirs, f"transformer.h.{i}.")
        for module, place in branches.items():
            ours |= {f"main.{i}.{place}.{name}": t.clone() for name, t in below(block, f"{module}.").items()}
    return ours


def assembled(config: GPTConfig, connection: Any, tensors: Tensors) -> GPT:
    """The GPT that has these tensors."""
    model = GPT(config, connection, torch.Generator())
    model.load_state_dict(tensors, assign=True)
    return model


def _one_name(name: str) -> str:
    """The tied head is stored twice."""
    return "transformer.wte.weight" if name == "lm_head.weight" else name
