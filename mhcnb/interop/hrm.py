"""Weights of the original HRM (sapientinc/HRM): the state dict of its training, with or without the loss head's
`model.` and torch.compile's `_orig_mod.` before the names.

    load(torch.load("step_26040", weights_only=True), num_heads=8, H_cycles=2, L_cycles=2)
"""

from typing import Any

import torch
from torch import Tensor

from mhcnb.connections.residual import ResidualConfig
from mhcnb.errors import ConfigError
from mhcnb.interop.names import Shape, Tensors, below, canonical, compare, matrix_shape, section
from mhcnb.models.hrm import HRM, HRMConfig

SUDOKU = {11: 81, 6: 16}  # vocabulary -> cells
ENDS = {
    "H_init": "H_init",
    "L_init": "L_init",
    "embed_tokens.embedding_weight": "wte.weight",
    "embed_pos.embedding_weight": "wpe.weight",
    "puzzle_emb.weights": "puzzles.rows",
    "lm_head.weight": "head.weight",
    "q_head.weight": "q_head.weight",
    "q_head.bias": "q_head.bias",
}
BRANCHES = {
    "self_attn.qkv_proj": "attn.branch.qkv",
    "self_attn.o_proj": "attn.branch.out",
    "mlp.gate_up_proj": "mlp.branch.gate_up",
    "mlp.down_proj": "mlp.branch.down",
}


def load(
    state_dict: Tensors,
    *,
    num_heads: int,
    H_cycles: int,
    L_cycles: int,
    halt_max_steps: int = 16,
    pos_encodings: str | None = None,
    **overrides: Any,
) -> HRM:
    """The HRM of a state dict, in float32. What its shapes do not show is given: heads, cycles, steps; pos_encodings is
    `learned` where there are positions, else `rope`; the cells are a Sudoku's, unless positions or `seq_len` say them.
    `overrides` are fields of HRMConfig.

    Raises CheckpointError where names or shapes are not the original's, ConfigError where sizes do not fit.
    """
    state = below(canonical(state_dict, _inner), "inner.")
    given = dict(heads=num_heads, H_cycles=H_cycles, L_cycles=L_cycles, halt_max_steps=halt_max_steps)
    positions = "learned" if "embed_pos.embedding_weight" in state else "rope"
    sizes = _sizes(state) | given | {"positions": pos_encodings or positions} | overrides
    if "seq_len" not in sizes:
        raise ConfigError(f"a vocabulary of {sizes['vocab_size']} is no Sudoku's; give seq_len, the cells of a puzzle")
    config = section(HRMConfig, sizes)
    compare(state, shapes(config))
    model = HRM(config, ResidualConfig(), torch.Generator())
    model.load_state_dict(tensors(state))
    return model


def tensors(theirs: Tensors) -> dict[str, Tensor]:
    """Weights (or their gradients) by the original's names, from `inner.` on, under ours."""
    ours = {ENDS[name]: x for name, x in theirs.items() if name in ENDS}
    for level in ("H", "L"):
        for name, x in below(theirs, f"{level}_level.layers.").items():
            i, _, module = name.removesuffix(".weight").partition(".")
            ours[f"{level}.{i}.{BRANCHES[module]}.weight"] = x
    return ours


def shapes(config: HRMConfig) -> dict[str, Shape]:
    """{name: shape} of the original with these sizes, from `inner.` on."""
    d, f, v = config.width, config.ffn_dim, int(config.vocab_size)
    wide = d if config.puzzle_width is None else config.puzzle_width
    found: dict[str, Shape] = {"embed_tokens.embedding_weight": (v, d), "lm_head.weight": (v, d)}
    found |= {"q_head.weight": (2, d), "q_head.bias": (2,), "H_init": (d,), "L_init": (d,)}
    if wide:
        found["puzzle_emb.weights"] = int(config.puzzles), wide
    if config.positions == "learned":
        found["embed_pos.embedding_weight"] = config.puzzle_tokens + int(config.seq_len), d
    sizes = dict(zip(BRANCHES, [(3 * d, d), (d, d), (2 * f, d), (d, f)], strict=True))
    for level, layers in (("H", config.H_layers), ("L", config.L_layers)):
        for i in range(layers):
            found |= {f"{level}_level.layers.{i}.{module}.weight": shape for module, shape in sizes.items()}
    return found


def _sizes(state: Tensors) -> dict[str, Any]:
    """What the shapes show. Raises CheckpointError."""
    v, d = matrix_shape(state, "embed_tokens.embedding_weight")
    _, f = matrix_shape(state, "H_level.layers.0.mlp.down_proj.weight")
    puzzles, wide = matrix_shape(state, "puzzle_emb.weights") if "puzzle_emb.weights" in state else (1, 0)
    found = dict(width=d, vocab_size=v, expansion=1.5 * f / d, puzzles=puzzles, puzzle_width=wide)
    for level in ("H", "L"):
        found[f"{level}_layers"] = len({name.split(".")[0] for name in below(state, f"{level}_level.layers.")})
    if "embed_pos.embedding_weight" in state:
        found["seq_len"] = matrix_shape(state, "embed_pos.embedding_weight")[0] - -(-wide // d)
    elif v in SUDOKU:
        found["seq_len"] = SUDOKU[v]
    return found


def _inner(name: str) -> str:
    return name.removeprefix("model.")
