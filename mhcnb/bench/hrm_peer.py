"""The original HRM (sapientinc/HRM) from a checkout, made to run on a CPU in memory: its attention is CUDA's alone, and
so is the package of its optimizer, whose update stands here in torch's own operations over lists of tensors. Nothing
of the kit's is in it: what makes the kit faster shows beside it."""

import importlib
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mhcnb.errors import ConfigError
from mhcnb.models.base import Batch
from mhcnb.models.hrm import HRMConfig

FILES = ("models/hrm/hrm_act_v1.py", "models/losses.py", "models/sparse_embedding.py")  # as of commit 42410da


def apart(given: tuple[str, ...]) -> tuple[list[str], Path | None]:
    """Peers as NAME=PATH: the others, and the checkout that is given as hrm. Raises ConfigError for two of them, or for
    one that is none."""
    paths = [Path(text.removeprefix("hrm=")) for text in given if text.startswith("hrm=")]
    if len(paths) > 1:
        raise ConfigError("--peer hrm is given twice; its modules can be loaded from one place only")
    for path in paths:
        _require_checkout(path)
    return [text for text in given if not text.startswith("hrm=")], next(iter(paths), None)


def _require_checkout(path: Path) -> None:
    missing = [name for name in FILES if not (path / name).is_file()]
    if missing:
        raise ConfigError(f"--peer hrm={path}: no {missing[0]} there; expected a checkout of github.com/sapientinc/HRM")


def original(path: Path, config: HRMConfig, rows: int, lr: float, decay: float) -> Callable[[Batch], None]:
    """One update of its model by its loss and its optimizers, for batches of `rows`; the carry goes on from one to the
    next. Raises ConfigError where `path` is no checkout."""
    _require_checkout(path)
    with _imports_from(path):
        act, losses, tables = (importlib.import_module(name[:-3].replace("/", ".")) for name in FILES)
    model = losses.ACTLossHead(act.HierarchicalReasoningModel_ACTV1(_sizes(config, rows)), "stablemax_cross_entropy")
    table = tables.CastedSparseEmbeddingSignSGD_Distributed(
        model.model.puzzle_emb.buffers(), lr=lr, weight_decay=decay, world_size=1
    )
    weights = adam_atan2([*model.parameters()], lr, decay)
    carry: Any = None

    def update(batch: Batch) -> None:
        nonlocal carry
        carry = model.initial_carry(batch) if carry is None else carry
        carry, loss, *_ = model(carry=carry, batch=batch, return_keys=[])
        (loss / rows).backward()
        table.step()
        weights()
        model.zero_grad()
        table.zero_grad()

    return update


def adam_atan2(
    parameters: list[Tensor], lr: float, decay: float, b1: float = 0.9, b2: float = 0.95
) -> Callable[[], None]:
    """What makes one update of the parameters by their gradients, each operation over all of them at once."""
    m, v = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    each: Any = torch  # whose operations over lists are not declared
    t = 0

    @torch.no_grad()
    def update() -> None:
        nonlocal t
        t += 1
        grads = [p.grad for p in parameters]
        each._foreach_mul_(parameters, 1 - lr * decay)
        each._foreach_lerp_(m, grads, 1 - b1)
        each._foreach_mul_(v, b2)
        each._foreach_addcmul_(v, grads, grads, 1 - b2)
        roots = each._foreach_sqrt(v)
        each._foreach_div_(roots, (1 - b2**t) ** 0.5)
        angles = [torch.atan2(a, b) for a, b in zip(m, roots, strict=True)]
        each._foreach_sub_(parameters, angles, alpha=lr / (1 - b1**t))

    return update


def _sizes(c: HRMConfig, rows: int) -> dict[str, Any]:
    """Under its names."""
    return dict(
        batch_size=rows,
        seq_len=c.seq_len,
        puzzle_emb_ndim=c.width if c.puzzle_width is None else c.puzzle_width,
        num_puzzle_identifiers=c.puzzles,
        vocab_size=c.vocab_size,
        H_cycles=c.H_cycles,
        L_cycles=c.L_cycles,
        H_layers=c.H_layers,
        L_layers=c.L_layers,
        hidden_size=c.width,
        expansion=c.expansion,
        num_heads=c.heads,
        pos_encodings=c.positions,
        halt_max_steps=c.halt_max_steps,
        halt_exploration_prob=c.halt_exploration,
        forward_dtype="float32",
    )


def _attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """What flash_attn_func gives, [b, t, h, k] in and out."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    z = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return z.transpose(1, 2).contiguous()


@contextmanager
def _imports_from(path: Path) -> Iterator[None]:
    """Its modules, with attention that a CPU has; names that anybody's may have are let go before and after."""
    attention: Any = types.ModuleType("flash_attn_interface")
    attention.flash_attn_func = _attention
    before = {name: sys.modules.pop(name) for name in [*sys.modules] if name.split(".")[0] == "models"}
    sys.modules["flash_attn_interface"] = attention
    sys.path.insert(0, str(path.resolve()))
    try:
        yield
    finally:
        sys.path.remove(str(path.resolve()))
        for name in [name for name in sys.modules if name.split(".")[0] in ("models", "flash_attn_interface")]:
            del sys.modules[name]
        sys.modules.update(before)
