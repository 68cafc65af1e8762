"""The memory of a training process and the disk of its checkpoints, before either is there.

One update is played through with tensors that have shapes and no values, by the model's and the objective's own code,
and every storage that comes or goes is counted: a new model, method or objective needs no formula here.
"""

import io
import json
import math
import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from mhcnb import registry, yamlfile
from mhcnb.analysis.cost import build_meta
from mhcnb.config import RunConfig, as_dict
from mhcnb.data.prefetch import DEPTH
from mhcnb.layers.recompute import recompute
from mhcnb.models.base import Batch, Model
from mhcnb.objectives.base import Clock
from mhcnb.training.averages import TRAINED
from mhcnb.training.distributed import ONE, World, share
from mhcnb.training.optim import build_optimizer
from mhcnb.training.resume import random_state

NAMES = {torch.float32: "F32", torch.int32: "I32", torch.bool: "BOOL"}  # in a header of safetensors
REST = 2_500  # bytes of manifest.json, and of state.json beside the generators


class Memory(NamedTuple):
    """Bytes in one process. `activations`: what backward finds kept of one micro-batch; `update`: the most that is
    held at any moment of an update, weights and moments included."""

    weights: int
    gradients: int
    moments: int
    activations: int
    update: int


def memory(config: RunConfig, dtype: torch.dtype = torch.float32, world: World = ONE) -> Memory:
    """Of a process of `world` whose autocast has this type. Kernels are those of a CPU, without torch.compile.

    Raises ConfigError where the global batch cannot be shared, or only the data know the vocabulary.
    """
    part, model = share(config, world), build_meta(config)
    several = world.size > 1 or part.steps > 1  # gradients are there before backward: of the last micro-batch, or DDP's
    with _shapes():
        given = _given(_materialised(model), config, part.size)
        counter = _Counter([*model.parameters(), *model.buffers(), *given.tensors])
        activations = _forward_backward(model, given, config, dtype, counter, several)
        moments = sum(x.nbytes for x in tree_leaves(_optimizer_state(model, config)) if isinstance(x, Tensor))
    weights = sum(x.nbytes for x in model.parameters())
    ahead = (DEPTH + 2) * sum(x.nbytes for x in given.batch.values())  # read, waiting to be handed over, and in use
    carries = (2 * part.steps - 1) * sum(x.nbytes for x in given.packed.values())  # before; after, but for the last one
    copies = 1 + several + (config.train.ema > 0)
    constant = copies * weights + sum(x.nbytes for x in model.buffers()) + moments + ahead + carries
    return Memory(weights, weights, moments, activations, constant + counter.most)


def activations(config: RunConfig, dtype: torch.dtype = torch.float32, world: World = ONE) -> int:
    """Bytes that one micro-batch of a process keeps for backward. Raises as `memory` does."""
    part, model = share(config, world), build_meta(config)
    with _shapes():
        given = _given(_materialised(model), config, part.size)
        counter = _Counter([*model.parameters(), *model.buffers(), *given.tensors])
        return _forward_backward(model, given, config, dtype, counter, backward=False)


def checkpoint_bytes(config: RunConfig, world: World = ONE) -> int:
    """The files of one checkpoint of a training: weights, optimizer, carry, state, configuration, manifest."""
    model = build_meta(config)
    weights = _safetensors_bytes(dict(model.state_dict()))
    with _shapes():
        given = _given(_materialised(model), config, config.train.micro_batch * config.train.accumulation)
        state = _optimizer_state(model, config)
        state |= {TRAINED: dict(model.state_dict())} if config.train.ema else {}
        weights += _safetensors_bytes(given.packed) if given.packed else 0
    generators = sum(map(len, random_state(torch.device("cpu")).values()))
    return weights + _saved_bytes(state) + generators * world.size + len(yamlfile.dump(as_dict(config))) + REST


def _materialised(model: Model) -> Model:
    """Tensors of meta made tensors of the mode that is on, in place; what was shared stays shared."""
    made: dict[int, Tensor] = {}

    def of(x: Tensor) -> Tensor:
        if id(x) not in made:
            empty = torch.empty(x.shape, dtype=x.dtype)
            made[id(x)] = nn.Parameter(empty, x.requires_grad) if isinstance(x, nn.Parameter) else empty
        return made[id(x)]

    for module in model.modules():
        for held in (module._parameters, module._buffers):
            held |= {name: of(x) for name, x in held.items() if x is not None}  # type: ignore[assignment]
    return model


class _Given(NamedTuple):
    """What a training step is given: rows, and the state that they come with, also as tensors by name."""

    batch: Batch
    carry: Any
    packed: dict[str, Tensor]

    @property
    def tensors(self) -> list[Tensor]:
        """All of them."""
        return [*self.batch.values(), *self.packed.values()]


def _given(model: Model, config: RunConfig, rows: int) -> _Given:
    batch = registry.load("data", config.data.name).blank_batch(config, rows)
    carry = model.initial_carry(batch)
    return _Given(batch, carry, {} if carry is None else model.pack_carry(carry))


def _shapes() -> FakeTensorMode:
    """Tensors made in it have no values; an objective may draw its numbers elsewhere."""
    return FakeTensorMode(allow_non_fake_inputs=True)


class _Counter(TorchDispatchMode):
    """Bytes of the storages that operations make: alive now, and the most there were. Those of `known` are free."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.alive = self.most = 0
        self._sizes: dict[int, int] = dict.fromkeys((x.untyped_storage()._cdata for x in known), 0)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, Tensor):
                self._meet(x.untyped_storage())
        return result

    def _meet(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.alive += storage.nbytes()
            self.most = max(self.most, self.alive)
            weakref.finalize(storage, self._part, key)

    def _part(self, key: int) -> None:
        self.alive -= self._sizes.pop(key)


def _forward_backward(
    model: Model, given: _Given, config: RunConfig, dtype: torch.dtype, counter: _Counter, several=False, backward=True
) -> int:
    """One micro-batch under the counter; returns the bytes that were kept in between. `several`: the gradients of
    another one are there already, and are not counted."""
    recompute(model.train(), config.train.recompute, config.train.recompute_group)
    objective = registry.load("objectives", config.objective.name)(config.objective)
    if several:
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter)
    with counter:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            step = objective.step(model, given.batch, given.carry, Clock(config.seed, 1))
        loss = step.loss_sum / float(given.batch["inputs"].numel())
        kept = counter.alive
        if backward:
            loss.backward()
    return kept


def _optimizer_state(model: Model, config: RunConfig) -> dict[str, Any]:
    """The optimizer's state_dict after one update."""
    optimizer = build_optimizer(model, config.train)
    optimizer.zero_grad()
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    return optimizer.state_dict()


def _safetensors_bytes(state: dict[str, Tensor]) -> int:
    """Length of the header, the header filled up to 8, the tensors."""
    header, end = {}, 0
    for name, x in state.items():
        header[name] = {"dtype": NAMES[x.dtype], "shape": list(x.shape), "data_offsets": [end, end + x.nbytes]}
        end += x.nbytes
    return 8 + 8 * math.ceil(len(json.dumps(header, separators=(",", ":"))) / 8) + end


def _saved_bytes(state: dict[str, Any]) -> int:
    """Of torch.save: what it adds is found by saving the same with one value a tensor, as if it were all of them."""
    small = tree_map(lambda x: torch.zeros((), dtype=x.dtype).expand(x.shape) if isinstance(x, Tensor) else x, state)
    added = io.BytesIO()
    torch.save(small, added)
    tensors = [x for x in tree_leaves(state) if isinstance(x, Tensor)]
    return len(added.getvalue()) + sum(x.nbytes - x.element_size() for x in tensors)
