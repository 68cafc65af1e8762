"""torch.compile of the parts that recur: many layers then take no longer than one, and what lies between the parts,
recomputation and DDP among it, is ordinary code."""

from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from mhcnb.layers.stack import Block, Stack


def compile_parts(model: nn.Module, recompute: str = "none") -> None:
    """Every block of the model's stacks trains compiled; where recomputation goes by groups of sites, which are not
    blocks, every branch. Parts of one shape have one code.

    Evaluation and decoding, whose shapes vary, and a block with a probe run as they are. Names of weights stay.
    """
    own = FunctionType(_through.__code__.replace(), globals())  # torch counts what it compiles by the code it is of
    compiled = torch.compile(own, dynamic=False)
    for part in _parts(model, recompute):
        part.forward = partial(_forward, part, compiled)


def _parts(model: nn.Module, recompute: str) -> list[nn.Module]:
    blocks = [block for stack in model.modules() if isinstance(stack, Stack) for block in stack.blocks]
    return [site.branch for block in blocks for site in block.sites] if recompute == "connection" else [*blocks]


def _through(part: nn.Module, x: Tensor, context: dict[str, Any]) -> Tensor:
    return type(part).forward(part, x, **context)


def _forward(part: nn.Module, compiled: Callable[..., Tensor], x: Tensor, **context: Any) -> Tensor:
    trains = part.training and torch.is_grad_enabled()
    watched = isinstance(part, Block) and any(site.connection.probe is not None for site in part.sites)
    return (compiled if trains and not watched else _through)(part, x, context)
