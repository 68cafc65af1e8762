"""Weights of the public mhc-lite code (arXiv 2601.05732): its nanoGPT with residual, hc, mhc or mhc_lite connections.

    load_gpt(torch.load(path, weights_only=True)["model"], heads=8)

What it stores as [from, to] is res[to, from] here. Everything is a re-indexing, so the same functions carry gradients.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mhcnb import registry
from mhcnb.connections.base import Connection
from mhcnb.connections.birkhoff import permutation_matrices
from mhcnb.errors import CheckpointError
from mhcnb.interop import nanogpt
from mhcnb.interop.names import Shape, Tensors, below, canonical, compare, matrix_shape, needed, section
from mhcnb.models.gpt import GPT, GPTConfig

LABELS = ("attn", "mlp")
BRANCHES = {  # module of their block -> ours
    "branch_attn.0": "attn.pre_norm",
    "branch_attn.1.c_attn": "attn.branch.qkv",
    "branch_attn.1.c_proj": "attn.branch.out",
    "branch_mlp.0": "mlp.pre_norm",
    "branch_mlp.1.c_fc": "mlp.branch.up",
    "branch_mlp.1.c_proj": "mlp.branch.down",
}


def load_gpt(state_dict: Tensors, *, heads: int) -> GPT:
    """The GPT of a state dict, in the types it is stored in. Only the number of heads is not written in the shapes.

    Raises CheckpointError where names or shapes are not those of mhc-lite, ConfigError where the sizes do not fit.
    """
    state = canonical(state_dict, _one_name)
    config = nanogpt.gpt_config(state, heads)
    method, n = _read_off(below(state, "transformer.h.0.hc_attn."))
    compare(state, gpt_shapes(config, method, n))
    return nanogpt.assembled(config, _connection_config(method, n), gpt_tensors(state, method))


def load_connection(state_dict: Tensors, *, layer_index: int) -> Connection:
    """One connection from its own names (static_alpha, ...); keys of its branch, `branch.*`, are not read.

    Raises CheckpointError where names or shapes are not those of mhc-lite.
    """
    state = canonical({k: v for k, v in state_dict.items() if not k.startswith("branch.")}, str)
    method, n = _read_off(state)
    if method == "residual":
        raise CheckpointError("the state dict has no connection: residual has no parameters to load")
    rows, _ = matrix_shape(state, "dynamic_alpha_fn")
    d = rows if method == "hc" else rows // n
    config = _connection_config(method, n)
    compare(state, connection_shapes(method, n, d))
    connection = registry.load("connections", method)(config, n, d, layer_index)
    connection.load_state_dict(connection_tensors(state, method), assign=True)
    return connection


# theirs -> ours ------------------------------------------------------------------------------------------------------


def gpt_tensors(theirs: Tensors, method: str) -> dict[str, Tensor]:
    """A GPT's tensors (or gradients) under our names, copied."""
    ours = nanogpt.gpt_tensors(theirs, BRANCHES)
    for i, label in itertools.product(nanogpt.blocks(theirs), LABELS):
        part = connection_tensors(below(theirs, f"transformer.h.{i}.hc_{label}."), method)
        ours |= {f"main.{i}.{label}.connection.{name}": tensor for name, tensor in part.items()}
    return ours


def connection_tensors(theirs: Tensors, method: str) -> dict[str, Tensor]:
    """One connection's tensors (or gradients) under our names, copied: each entry of theirs goes to one of ours."""
    return {name: convert(theirs).clone() for name, convert in CONVERSIONS[method].items()}


def _gates(*names: str) -> Callable[[Tensors], Tensor]:
    return lambda t: torch.cat([t[name].reshape(1) for name in names])


def _weight(parts: Callable[[Tensors, str], tuple[Tensor, Tensor]]) -> Callable[[Tensors], Tensor]:
    """Columns pre, post, res; `parts` finds pre and res in their alpha."""

    def convert(t: Tensors) -> Tensor:
        pre, res = parts(t, "dynamic_alpha_fn")
        return torch.cat([pre, t["dynamic_beta_fn"].reshape(len(pre), -1), res], dim=1)

    return convert


def _hc_parts(t: Tensors, name: str) -> tuple[Tensor, Tensor]:
    """[.., 1 + n]: of one source stream, pre and then what it gives to each stream; ours is by source too."""
    return t[name][..., :1], t[name][..., 1:]


def _mhc_parts(t: Tensors, name: str) -> tuple[Tensor, Tensor]:
    """[n, 1 + n], or [D, n·(1 + n)]: as for hc, for every source; our res logits are by destination."""
    n = len(t["static_beta"])
    by_source = t[name].reshape(-1, n, n + 1)
    return by_source[..., 0], by_source[..., 1:].mT.flatten(1)


def _lite_parts(t: Tensors, name: str) -> tuple[Tensor, Tensor]:
    """[.., n + n!]: pre, then a share for each permutation."""
    n = len(t["static_beta"])
    return t[name][..., :n], t[name][..., n:][..., inverse_permutations(n)]


def inverse_permutations(n: int) -> Tensor:
    """[n!]: which of their P_k, 1 at [from, p_k(from)] in the order of itertools.permutations, is the transpose of each
    of ours. Found by comparing the matrices, so that it holds whatever our order is."""
    theirs = torch.stack([torch.eye(n)[list(p)] for p in itertools.permutations(range(n))])
    return (permutation_matrices(n).unsqueeze(1) == theirs.mT).all(dim=(-2, -1)).int().argmax(1)


def _table(parts: Callable[[Tensors, str], tuple[Tensor, Tensor]], *gates: str) -> dict[str, Callable]:
    return {
        "weight": _weight(parts),
        "gate": _gates(*gates),
        "gamma": lambda t: t["norm.gamma"],
        "bias.pre": lambda t: parts(t, "static_alpha")[0].flatten(),
        "bias.post": lambda t: t["static_beta"],
        "bias.res": lambda t: parts(t, "static_alpha")[1].flatten(),
    }


CONVERSIONS: dict[str, dict[str, Callable[[Tensors], Tensor]]] = {
    "residual": {},
    "hc": _table(_hc_parts, "dynamic_alpha_scale", "dynamic_beta_scale"),
    "mhc": _table(_mhc_parts, "pre_branch_scale", "h_post_scale", "residual_scale"),
    "mhc_lite": _table(_lite_parts, "pre_branch_scale", "h_post_scale", "residual_scale"),
}

# what a state dict must hold -----------------------------------------------------------------------------------------


def connection_shapes(method: str, n: int, d: int) -> dict[str, Shape]:
    """{name: shape} of one connection."""
    if method == "residual":
        return {}
    if method == "hc":
        shapes: dict[str, Shape] = dict(static_alpha=(n, n + 1), dynamic_alpha_fn=(d, n + 1), dynamic_beta_fn=(d,))
        return shapes | {"static_beta": (n,), "dynamic_alpha_scale": (), "dynamic_beta_scale": (), "norm.gamma": (d,)}
    alpha = (n, n + 1) if method == "mhc" else (n + math.factorial(n),)
    shapes = dict(static_alpha=alpha, dynamic_alpha_fn=(n * d, math.prod(alpha)), dynamic_beta_fn=(n * d, n))
    shapes |= dict(static_beta=(n,), pre_branch_scale=(), residual_scale=(), h_post_scale=())
    return shapes | {"norm.gamma": (n * d,)}


def gpt_shapes(config: GPTConfig, method: str, n: int) -> dict[str, Shape]:
    """{name: shape} of a whole model."""
    shapes, part = nanogpt.gpt_shapes(config, BRANCHES), connection_shapes(method, n, config.width)
    for i, label in itertools.product(range(config.layers), LABELS):
        shapes |= {f"transformer.h.{i}.hc_{label}.{name}": shape for name, shape in part.items()}
    return shapes


def _one_name(name: str) -> str:
    """Checkpoints hold the tied head, and each connection's branch, twice; a file without duplicates keeps either."""
    for label in LABELS:
        name = name.replace(f".hc_{label}.branch.", f".branch_{label}.")
    return "transformer.wte.weight" if name == "lm_head.weight" else name


def _read_off(connection: Tensors) -> tuple[str, int]:
    """(method, streams)."""
    if not connection:
        return "residual", 1
    n = needed(connection, "static_beta").numel()
    if "dynamic_alpha_scale" in connection:
        return "hc", n
    return ("mhc_lite" if needed(connection, "static_alpha").ndim == 1 else "mhc"), n


def _connection_config(method: str, n: int) -> Any:
    fields = {} if method == "residual" else dict(dialect="mhc_lite", streams=n)
    return section(registry.load("connections", method).Config, {"name": method} | fields)
