"""Activation recomputation: a stack keeps less for backward, and computes the rest again when backward comes to it."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from mhcnb.layers.site import Site
from mhcnb.layers.stack import Block, Context, Stack, apply


def recompute(
    model: nn.Module, how: Literal["none", "connection", "block"], group: int | Literal["auto"] = "auto"
) -> None:
    """What a model's stacks compute again in backward: nothing; the connections' part (maps, read, the branch's norm,
    write) of `group` sites at a time, from the state that entered them and the branches' outputs, with what the
    branches save for themselves kept; or whole blocks, the branches included. Gradients are the same.

    It holds where all of a group or block trains and has gradients. With a probe inside nothing is computed again, so
    that the probe is called once a pass.
    """
    ways = {"none": apply, "connection": partial(_connections, group=group), "block": _blocks}
    for stack in model.modules():
        if isinstance(stack, Stack):
            stack.through = ways[how]


def best_group(sites: int, n: int) -> int:
    """L_r, of how many of a stack's L sites the states are kept at once in the least memory: n·⌈L / L_r⌉ widths a token
    until backward, (n + 2)·L_r while it is in a group. About √(nL / (n + 2)); mHC (arXiv 2512.24880) section 4.3.2."""
    return min(range(1, sites + 1), key=lambda group: n * math.ceil(sites / group) + (n + 2) * group)


def _blocks(blocks: Sequence[Block], X: Tensor, context: Context) -> Tensor:
    for block in blocks:
        run = partial(block, **context)
        X = _checkpoint(run, X) if _applies(block.sites) else run(X)
    return X


def _connections(blocks: Sequence[Block], X: Tensor, context: Context, group: int | Literal["auto"]) -> Tensor:
    """Groups may span blocks. One stream has nothing to save: backward of X + f(X) needs neither."""
    n, sites = X.shape[-2], [site for block in blocks for site in block.sites]
    if n == 1:
        return apply(blocks, X, context)
    size = best_group(len(sites), n) if group == "auto" else group
    for i in range(0, len(sites), size):
        part = sites[i : i + size]
        X = _group(part, X, context) if _applies(part) else _through(part, X, **context)
    return X


def _group(sites: Sequence[Site], X: Tensor, context: Context) -> Tensor:
    """Of the states, only X is kept until backward. Each branch runs once."""
    outputs: list[Tensor] = []

    def run(X: Tensor) -> Tensor:
        kept = iter(tuple(outputs))  # none in forward; in backward one a site, in order

        def call(branch: Callable[..., Tensor], u: Tensor, **c: Any) -> Tensor:
            if (y := next(kept, None)) is not None:
                return y
            with saved_tensors_hooks(_as_it_is, _as_it_is):  # in place of the checkpoint's, which keep nothing
                y = branch(u, **c)
            outputs.append(y.detach().requires_grad_(y.requires_grad))
            return y

        return _through(sites, X, call=call, **context)

    return _checkpoint(run, X)


def _through(sites: Sequence[Site], X: Tensor, **context: Any) -> Tensor:
    for site in sites:
        X = site(X, **context)
    return X


def _checkpoint(run: Callable[[Tensor], Tensor], X: Tensor) -> Tensor:
    """run(X), of whose activations X alone is kept; the second time it draws the same random numbers."""
    return checkpoint(run, X, use_reentrant=False, preserve_rng_state=True)  # type: ignore[return-value]


def _applies(sites: Sequence[Site]) -> bool:
    return torch.is_grad_enabled() and all(site.training and site.connection.probe is None for site in sites)


def _as_it_is(x: Tensor) -> Tensor:
    return x
