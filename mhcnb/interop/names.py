"""What importers share: a foreign state dict's names and shapes, checked before anything is converted."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from mhcnb.errors import CheckpointError, ConfigError

Tensors = Mapping[str, Tensor]
Shape = tuple[int, ...]
WRAPPERS = ("_orig_mod", "module")  # name parts that torch.compile and DDP add


def canonical(state_dict: Tensors, rename: Callable[[str], str]) -> dict[str, Tensor]:
    """One name for each tensor: wrappers' prefixes off, then `rename`. Tensors that so get one name must be equal."""
    state: dict[str, Tensor] = {}
    for given, tensor in state_dict.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            got = getattr(tensor, "dtype", type(tensor).__name__)
            hint = "; give checkpoint['model']" if given == "model" else ""
            raise CheckpointError(f"{given}: expected a floating-point tensor, got {got}{hint}")
        name = rename(".".join(part for part in given.split(".") if part not in WRAPPERS))
        if name in state and not torch.equal(state[name], tensor):
            raise CheckpointError(f"{given} differs from {name}; they should be one tensor")
        state[name] = tensor
    return state


def compare(state: Tensors, expected: Mapping[str, Shape], where: str = "the state dict") -> None:
    """Raises CheckpointError with the first names that are missing, unknown or of another shape. `where` they are."""
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    wrong = [
        f"{name} is {shapes[name]}, expected {shape}"
        for name, shape in expected.items()
        if name in shapes and (shapes[name] or (1,)) != (shape or (1,))  # a scalar may be [] or [1]
    ]
    wrong += [f"{name} is missing" for name in sorted(set(expected) - set(state))]
    wrong += [f"{name} is unknown" for name in sorted(set(state) - set(expected))]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise CheckpointError(f"{where} does not fit: {'; '.join(wrong[:5])}{more}")


def needed(state: Tensors, name: str) -> Tensor:
    """A tensor that sizes are read off. Raises CheckpointError where it is missing."""
    if name not in state:
        raise CheckpointError(f"the state dict has no {name}; its names: {', '.join([*state][:5]) or 'none'}")
    return state[name]


def matrix_shape(state: Tensors, name: str) -> tuple[int, int]:
    """The shape of a matrix. Raises CheckpointError where it is missing or none."""
    shape = needed(state, name).shape
    if len(shape) != 2:
        raise CheckpointError(f"the state dict does not fit: {name} is {tuple(shape)}, expected a matrix")
    return shape[0], shape[1]


def below(state: Tensors, prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def section(cls: Any, fields: Mapping[str, Any], where: str = "the state dict") -> Any:
    """A configuration section with these fields. Raises ConfigError with what is wrong about them."""
    try:
        return cls(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        key = "".join(f"{part}: " for part in first["loc"])
        raise ConfigError(f"{where} with {fields}: {key}{first['msg'].removeprefix('Value error, ')}") from None
