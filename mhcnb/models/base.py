"""What a model is to the rest of the kit, and how one is built from a configuration."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mhcnb import registry
from mhcnb.config import RunConfig
from mhcnb.connections.base import Connection
from mhcnb.errors import ConfigError
from mhcnb.section import Named

Batch = dict[str, Tensor]  # language: inputs, targets [b, t], -100 ignored; documents [b, t] where packed
EXAMPLES = {"vocab_size": 50304, "seq_len": 81, "puzzles": 1}  # of sizes that are the data's


class Head(NamedTuple):
    """Logits [*b, v] of hidden [*b, d]: by weight [v, d]."""

    weight: Tensor

    def __call__(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.weight)


class Output(NamedTuple):
    """hidden [b, t, d] after the final norm; head gives its logits; parts: named extras; carry: for the next call."""

    hidden: Tensor
    head: Head
    parts: dict[str, Tensor]
    carry: Any

    @property
    def logits(self) -> Tensor:
        """[b, t, v]."""
        return self.head(self.hidden)


class Model(nn.Module):
    """A backbone whose branches sit behind sites. It gives an Output, never a loss."""

    Config: ClassVar[type[Named]]
    decodes: ClassVar[bool] = False  # forward takes a Cache, and `inputs` that follow the tokens in it
    optimizer: ClassVar[str] = "adamw"  # of the parameters
    decayed: ClassVar[tuple[str, ...]] = ()  # vectors that decay all the same
    vocab_multiple: ClassVar[int] = 64  # up to which a vocabulary that the data say is rounded

    def initial_carry(self, batch: Batch, generator: torch.Generator | None = None) -> Any:
        """State before the first segment; None for models without one."""
        return None

    def pack_carry(self, carry: Any) -> dict[str, Tensor]:
        """A carry that is not None as tensors by name, each with its rows first: so it is saved and shared out."""
        return carry

    def unpack_carry(self, packed: dict[str, Tensor]) -> Any:
        """Back from `pack_carry`."""
        return packed

    def forward(self, batch: Batch, carry: Any = None, *, cache: Any = None, loops: int | None = None) -> Output:
        """The output for one batch."""
        raise NotImplementedError

    def param_groups(self) -> list[dict[str, Any]]:
        """Groups with name, optimizer, lr_mult and decay. Matrices and embeddings decay; norms, gates and a
        connection's static maps (all vectors here) do not, unless its configuration says decay_static."""
        static = {
            id(bias)
            for module in self.modules()
            if isinstance(module, Connection) and module.config.decay_static
            for bias in module.bias.parameters()
        }
        decay = {True: [], False: []}
        for name, parameter in self.named_parameters():
            decay[parameter.ndim >= 2 or id(parameter) in static or name in self.decayed].append(parameter)
        names = {True: "matrices", False: "vectors"}
        return [
            dict(name=names[key], optimizer=self.optimizer, lr_mult=1.0, decay=key, params=params)
            for key, params in decay.items()
            if params
        ]

    def flops_per_token(self) -> float:
        """Forward + backward matrix FLOPs of one token, for the utilisation that training prints."""
        raise NotImplementedError


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; afterwards every module trains or not as before, frozen parts included."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


def build_model(config: RunConfig) -> Model:
    """The model of a configuration, initialised by config.seed; float32, on the CPU. Opens no data."""
    data: Any = config.data
    if open_sizes(config):
        config = with_sizes(config, registry.load("data", data.name).known_sizes(data))
    if unknown := open_sizes(config):
        names = " and ".join(f"model.{name}" for name in unknown)
        raise ConfigError(
            f"{names} {'is' if len(unknown) == 1 else 'are'} auto: taken from the data when a run starts; to build a "
            f"model alone give {'it' if len(unknown) == 1 else 'them'}, e.g. model.{unknown[0]}={EXAMPLES[unknown[0]]}"
        )
    generator = torch.Generator().manual_seed(config.seed)
    model: Any = config.model
    return registry.load("models", model.name)(model, config.connection, generator)


def open_sizes(config: RunConfig) -> list[str]:
    """The fields of the model that are still `auto`."""
    return [name for name in type(config.model).model_fields if getattr(config.model, name) == "auto"]


def with_sizes(config: RunConfig, sizes: Mapping[str, int]) -> RunConfig:
    """Each `auto` of the model that the data say replaced by theirs, the vocabulary rounded up to what the model asks
    for."""
    multiple = registry.load("models", config.model.name).vocab_multiple
    found = {name: sizes[name] for name in open_sizes(config) if name in sizes}
    if "vocab_size" in found:
        found["vocab_size"] = -(-found["vocab_size"] // multiple) * multiple
    return config.model_copy(update={"model": config.model.model_copy(update=found)}) if found else config
