"""Hugging Face folders of Llama models, config.json and safetensors, as weights of our rlm with residual connections.

What config.json asks for and the rlm does not compute is refused by name: another architecture, scaled rotary
positions, biases, quantised weights.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mhcnb.connections.residual import ResidualConfig
from mhcnb.errors import CheckpointError
from mhcnb.interop.names import compare, section
from mhcnb.models.rlm import RLM, RLMConfig

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SIZES = {  # theirs -> ours
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "ffn_dim",
    "vocab_size": "vocab_size",
}
OPTIONS = {  # theirs -> ours, and Llama's value where it is not said; None: it follows from the sizes
    "num_key_value_heads": ("kv_heads", None),
    "head_dim": ("head_dim", None),
    "max_position_embeddings": ("block_size", 2048),
    "rms_norm_eps": ("norm_eps", 1e-6),
    "tie_word_embeddings": ("tied", False),
}
ONLY: dict[str, tuple[Any, ...]] = {  # all that these may say, or have the rlm compute something else
    "model_type": ("llama",),
    "architectures": (None, ["LlamaForCausalLM"]),
    "hidden_act": (None, "silu"),
    "attention_bias": (None, False),
    "mlp_bias": (None, False),
    "partial_rotary_factor": (None, 1.0),
    "quantization_config": (None,),
    "auto_map": (None,),  # code of its own
}
ENDS = {"model.embed_tokens": "wte", "model.norm": "norm"}
BLOCK = {  # module of their layer -> ours
    "input_layernorm": "attn.pre_norm",
    "self_attn.q_proj": "attn.branch.q",
    "self_attn.k_proj": "attn.branch.k",
    "self_attn.v_proj": "attn.branch.v",
    "self_attn.o_proj": "attn.branch.out",
    "post_attention_layernorm": "mlp.pre_norm",
    "mlp.gate_proj": "mlp.branch.gate",
    "mlp.up_proj": "mlp.branch.up",
    "mlp.down_proj": "mlp.branch.down",
}
FLOATS = ("F64", "F32", "F16", "BF16")


class Llama(NamedTuple):
    """A folder that was found sound. `stored` is its config.json, `files` have the weights."""

    config: RLMConfig
    stored: dict[str, Any]
    files: list[Path]
    tokenizer: Path | None

    def tensors(self) -> dict[str, Tensor]:
        """Under our names, in float32."""
        ours, found = our_names(self.config), {}
        for file in self.files:
            with _opened(file) as stored:
                found |= {ours[name]: stored.get_tensor(name).float() for name in ours.keys() & set(stored.keys())}
        return found


def read_llama(folder: Path) -> Llama:
    """The folder, with all names, shapes and types checked; the tensors are not read yet. Raises CheckpointError,
    ConfigError."""
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give a folder that save_pretrained of transformers wrote")
    stored = _json(path)
    config, files = _config(stored, path), _files(folder)
    ours, shapes = our_names(config), _shapes(config)
    found = {name: tensor for file in files for name, tensor in _described(file).items() if not _left(name, ours)}
    compare(found, {theirs: shapes[name] for theirs, name in ours.items()}, str(folder))
    tokenizer = folder / "tokenizer.json"
    return Llama(config, stored, files, tokenizer if tokenizer.is_file() else None)


def our_names(config: RLMConfig) -> dict[str, str]:
    """{theirs: ours} of every tensor; a tied head has none."""
    modules = ENDS | ({} if config.tied else {"lm_head": "head"})
    for i in range(config.layers):
        modules |= {f"model.layers.{i}.{theirs}": f"main.{i}.{ours}" for theirs, ours in BLOCK.items()}
    return {f"{theirs}.weight": f"{ours}.weight" for theirs, ours in modules.items()}


def _left(name: str, known: dict[str, str]) -> bool:
    """What need not be read: frequencies that old files hold, and a tied head stored all the same."""
    return name.endswith(".rotary_emb.inv_freq") or (name == "lm_head.weight" and name not in known)


def _shapes(config: RLMConfig) -> dict[str, tuple[int, ...]]:
    """{ours: shape}, of a model without memory."""
    with torch.device("meta"):
        model = RLM(config, ResidualConfig(), torch.Generator())
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


# config.json ----------------------------------------------------------------------------------------------------------


def _config(stored: dict[str, Any], path: Path) -> RLMConfig:
    for key, allowed in ONLY.items():
        if stored.get(key) not in allowed:
            raise CheckpointError(
                f"{path}: {key} = {stored.get(key)!r}, expected {allowed[-1]!r}: this model would compute something "
                "else with these weights"
            )
    lacking = [key for key in SIZES if stored.get(key) is None]
    if lacking:
        raise CheckpointError(f"{path} has no {', '.join(lacking)}; its keys: {', '.join(sorted(stored))}")
    fields = {ours: stored[theirs] for theirs, ours in SIZES.items()}
    for theirs, (ours, default) in OPTIONS.items():
        fields[ours] = default if stored.get(theirs) is None else stored[theirs]
    return section(RLMConfig, fields | {"rope_theta": _theta(stored, path)}, str(path))


def _theta(stored: dict[str, Any], path: Path) -> Any:
    """The base of the rotary positions, of a config.json of transformers 5 or before."""
    theta = stored.get("rope_theta")
    for key in ("rope_parameters", "rope_scaling"):
        rope = stored.get(key) or {}
        if not isinstance(rope, dict):
            raise CheckpointError(f"{path}: {key} = {rope!r}; expected an object or null")
        kind, share = rope.get("rope_type", rope.get("type", "default")), rope.get("partial_rotary_factor", 1.0)
        if kind != "default" or share != 1.0:
            raise CheckpointError(
                f"{path}: {key} = {json.dumps(rope)}; this model turns all channels at unscaled positions, so that "
                "these weights would be computed wrongly"
            )
        theta = rope.get("rope_theta", theta)
    return 10000.0 if theta is None else theta


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON: {error}; fetch it again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: expected an object, got {type(values).__name__}; fetch it again")
    return values


# safetensors ----------------------------------------------------------------------------------------------------------


def _files(folder: Path) -> list[Path]:
    """One file, or those that the index names. Raises CheckpointError."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    index = folder / INDEX
    if not index.is_file():
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        hint = f"; {pickled[0]} may run code when read: save it again as safetensors" if pickled else ""
        raise CheckpointError(f"{folder} has no {SINGLE} and no {INDEX}{hint}")
    places = _json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index}: weight_map says no file for any tensor; fetch it again")
    names = sorted({str(name) for name in places.values()})
    lost = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if lost:
        raise CheckpointError(f"{index} names {', '.join(lost[:3])}: not beside it; fetch what is missing")
    return [folder / name for name in names]


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, "pt") as stored:
            yield stored
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}; fetch it again") from error


def _described(file: Path) -> dict[str, Tensor]:
    """Names and shapes, as tensors without memory. Raises CheckpointError where one is not of plain floats."""
    with _opened(file) as stored:
        parts = {name: stored.get_slice(name) for name in stored.keys()}  # noqa: SIM118
        for name, part in parts.items():
            if part.get_dtype() not in FLOATS:
                raise CheckpointError(f"{file}: {name} is {part.get_dtype()}; expected one of {', '.join(FLOATS)}")
        return {name: torch.empty(part.get_shape(), device="meta") for name, part in parts.items()}
