"""What a model is made of and what a token costs it, from shapes alone: nothing is allocated or run."""

from typing import Any

import torch
from torch import nn

from mhcnb.config import RunConfig
from mhcnb.connections.base import Connection
from mhcnb.connections.ends import Ends
from mhcnb.layers.site import Site, sites
from mhcnb.models.base import Model, build_model

PARTS: tuple[str, ...] = ("embeddings", "attention", "mlp", "connections", "norms", "head", "other")
BRANCHES = {"attn": "attention"}  # labels of sites whose part has another name


def build_meta(config: RunConfig) -> Model:
    """The model as shapes without values. Raises ConfigError where only the data know the vocabulary."""
    with torch.device("meta"):
        return build_model(config)


def parameters(model: nn.Module) -> dict[str, int]:
    """{part: number of parameters}, the parts of PARTS first; a branch of another label is a part of that name.

    A tensor that two modules share counts once, where it comes first: a head tied to the embedding has none.
    """
    modules = dict(model.named_modules())
    found = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        path = name.split(".")
        part = _part([(modules[".".join(path[:k])], path[k - 1]) for k in range(1, len(path))])
        found[part] = found.get(part, 0) + parameter.numel()
    return {part: count for part, count in found.items() if count or part in PARTS[:-1]}


def _part(owners: list[tuple[nn.Module, str]]) -> str:
    """The part that a parameter belongs to, from the modules that hold it, outermost first, each with its own name."""
    inside = False
    label = ""
    for module, name in owners:
        if isinstance(module, Connection | Ends):
            return "connections"
        if isinstance(module, nn.Embedding):
            return "embeddings"
        if "Norm" in type(module).__name__:
            return "norms"
        inside |= isinstance(module, Site)
        label = name if isinstance(module, Site) else label
    if inside:
        return BRANCHES.get(label, label)
    return "head" if owners and "head" in owners[0][1] else "other"


def connection_flops(model: nn.Module) -> float:
    """Forward and backward FLOPs of one token in all connections, those of the matrix products.

    A site with n streams of width d and k coefficients: 2nd·k for their projection, 2(n² + 2n)d for read, mixing and
    write; backward takes twice that. Finding res from its logits costs about a thousand and is left out.
    """
    return 3.0 * sum(_forward(site.connection) for site in sites(model).values())


def _forward(connection: Any) -> float:
    n, d = connection.n, connection.d
    if not hasattr(connection, "weight"):
        return 0.0  # residual: an addition
    rows = n if connection.norm == "stream" else 1  # one weight for each stream in turn
    return 2.0 * rows * connection.weight.numel() + 2.0 * (n * n + 2 * n) * d
