"""What a model is to the rest of the kit, and how one is built from a configuration."""

from collections.abc import Iterator
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

    def initial_carry(self, batch: Batch, generator: torch.Generator | None = None) -> Any:
        """State before the first segment; None for models without one."""
        return None

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
        for parameter in self.parameters():
            decay[parameter.ndim >= 2 or id(parameter) in static].append(parameter)
        names = {True: "matrices", False: "vectors"}
        return [
            dict(name=names[key], optimizer="adamw", lr_mult=1.0, decay=key, params=params)
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
    if getattr(config.model, "vocab_size", None) == "auto":
        data: Any = config.data
        size = registry.load("data", data.name).known_vocab_size(data)
        if size is None:
            raise ConfigError(
                "model.vocab_size is auto: it is taken from the data when a run starts; "
                "to build a model alone give it, e.g. model.vocab_size=50304"
            )
        config = with_vocab_size(config, size)
    generator = torch.Generator().manual_seed(config.seed)
    model: Any = config.model
    return registry.load("models", model.name)(model, config.connection, generator)


def with_vocab_size(config: RunConfig, size: int) -> RunConfig:
    """`auto` replaced by the data's vocabulary, rounded up to 64."""
    if getattr(config.model, "vocab_size", None) != "auto":
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"vocab_size": -(-size // 64) * 64})})
