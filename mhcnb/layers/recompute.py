"""Activation recomputation: a block keeps less for backward, and computes the rest again when backward comes to it."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from mhcnb.layers.site import Site
from mhcnb.layers.stack import Block, Context, Stack, apply


def recompute(model: nn.Module, how: Literal["none", "connection", "block"]) -> None:
    """What the blocks of a model's stacks compute again in backward, from the state that entered them: nothing; the
    connections' part (maps, read, write), with each branch's output kept beside what the branch itself saves; or all,
    the branches included. Gradients are the same.

    It holds where a block trains and has gradients. A block with a probe is not recomputed, so that the probe is
    called once a pass.
    """
    for stack in model.modules():
        if isinstance(stack, Stack):
            stack.through = {"none": apply, "connection": _connections, "block": _all}[how]


def _all(block: Block, X: Tensor, context: Context) -> Tensor:
    if not _applies(block):
        return block(X, **context)
    return _checkpoint(lambda X: block(X, **context), X)


def _connections(block: Block, X: Tensor, context: Context) -> Tensor:
    """As `_all`, but each branch runs once, as mHC recomputes (arXiv 2512.24880, section 4.3): of the states, only the
    one at the entry of a group of sites is kept; the group is a block here. One stream has nothing to save: backward
    of X + f(X) needs neither.
    """
    if X.shape[-2] == 1 or not _applies(block):
        return block(X, **context)
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

        return block(X, call=call, **context)

    return _checkpoint(run, X)


def _checkpoint(run: Callable[[Tensor], Tensor], X: Tensor) -> Tensor:
    """run(X), of whose activations X alone is kept; the second time it draws the same random numbers."""
    return checkpoint(run, X, use_reentrant=False, preserve_rng_state=True)  # type: ignore[return-value]


def _applies(block: Block) -> bool:
    connections = [site.connection for site in block.values() if isinstance(site, Site)]
    return block.training and torch.is_grad_enabled() and all(c.probe is None for c in connections)


def _as_it_is(x: Tensor) -> Tensor:
    return x
