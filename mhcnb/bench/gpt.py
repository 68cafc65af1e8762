"""The GPT that several cases time, as a loss of its tokens."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mhcnb import registry
from mhcnb.config import RunConfig, build_config
from mhcnb.layers.stack import Stack
from mhcnb.models.base import Model, build_model
from mhcnb.objectives.base import Clock
from mhcnb.training.compiling import compile_parts


class Size(NamedTuple):
    """Of a model and its batch. The default: params/gpt/small.yaml, small enough for a CPU in vocabulary and batch,
    written here so that figures do not depend on where one stands."""

    width: int = 512
    layers: int = 6
    heads: int = 8
    batch: int = 4
    tokens: int = 256
    vocabulary: int = 8192

    def config(self, connection: dict[str, Any], **train: Any) -> RunConfig:
        """A whole configuration, of which a bench needs the model. Raises ConfigError."""
        model = {"name": "gpt", "width": self.width, "layers": self.layers, "heads": self.heads}
        model |= {"block_size": self.tokens, "vocab_size": self.vocabulary}
        rest = {"data": {"name": "shards"}, "objective": {"name": "lm"}, "train": {"steps": 1, "lr": 1.0} | train}
        return build_config({"connection": connection, "model": model, **rest}, "bench")

    def batch_of(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """inputs and targets [b, t], always the same."""
        tokens = torch.randint(
            self.vocabulary, (self.batch, self.tokens + 1), generator=torch.Generator().manual_seed(0)
        )
        return tokens[:, :-1].contiguous().to(device), tokens[:, 1:].contiguous().to(device)


class Loss(nn.Module):
    """(inputs, targets) -> mean cross entropy, as the objective of training has it."""

    def __init__(self, config: RunConfig, model: Model | None = None) -> None:
        """Of a model built from `config`, or of `model`."""
        super().__init__()
        self.model = model or build_model(config)
        self.objective = registry.load("objectives", config.objective.name)(config.objective)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """inputs, targets [b, t]."""
        step = self.objective.step(self.model, {"inputs": inputs, "targets": targets}, None, Clock(0, 1))
        return step.loss_sum / step.count


def gpt(connection: str, size: Size, **fields: Any) -> Loss:
    """Ours. `fields` go to the connection. Raises ConfigError."""
    return Loss(size.config({"name": connection, **fields}))


def compiled(loss: nn.Module) -> nn.Module:
    """Ours as `train.compile` has it; anybody else's whole, as their training does."""
    if not any(isinstance(module, Stack) for module in loss.modules()):
        return torch.compile(loss)  # type: ignore[return-value]
    compile_parts(loss)
    return loss
