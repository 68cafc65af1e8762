"""Counts from shapes against the model itself, and against the allocator."""

import math
from pathlib import Path

import pytest
import torch
from torch.autograd.profiler import profile

from mhcnb import build_model, registry
from mhcnb.analysis.cost import build_meta, connection_flops, parameters
from mhcnb.config import load_config
from mhcnb.layers.recompute import best_group, recompute
from mhcnb.layers.site import sites
from mhcnb.objectives.base import Clock
from mhcnb.training.footprint import activations, checkpoint_bytes, memory
from mhcnb.training.loop import train

LARGE = Path(__file__).parents[2] / "params" / "gpt" / "large.yaml"


def has(connection, fields):
    """Whether a method has all fields of its section that are asked for."""
    known = registry.load("connections", connection).Config.model_fields
    return all(key.removeprefix("connection.") in known for key in fields if key.startswith("connection."))


CONNECTIONS = sorted(registry.entries("connections"))
SIZES = {
    "one layer": {},
    "wide, with biases": {"model.width": 48, "model.heads": 3, "model.bias": True},
    "deep": {"model.layers": 5, "model.block_size": 4},
    "two streams": {"connection.streams": 2},
    "learned exit and norm weights": {"connection.dialect": "deepseek_v4", "connection.norm_weight": True},
}


PAIRS = [(size, name) for size, fields in SIZES.items() for name in CONNECTIONS if has(name, fields)]


@pytest.fixture
def config(small):
    """config(connection, overrides)"""
    return lambda connection, overrides=None: small(**{"connection.name": connection, **(overrides or {})})


@pytest.mark.parametrize(("size", "connection"), PAIRS)
def test_the_parts_are_those_of_the_model_and_sum_to_it(config, connection, size):
    chosen = config(connection, SIZES[size])
    model, found = build_model(chosen), parameters(build_meta(chosen))
    assert sum(found.values()) == sum(p.numel() for p in model.parameters())
    c = chosen.model
    d, layers, biased = c.width, c.layers, int(c.bias)
    assert found["embeddings"] == (c.vocab_size + c.block_size) * d
    assert found["attention"] == layers * (4 * d * d + biased * 4 * d)
    assert found["mlp"] == layers * (8 * d * d + biased * 5 * d)
    assert found["norms"] == (2 * layers + 1) * d * (1 + biased)
    of_sites = sum(p.numel() for site in sites(model).values() for p in site.connection.parameters())
    assert found["connections"] == of_sites + sum(p.numel() for p in model.main.ends.parameters())
    assert found["head"] == 0
    assert "other" not in found


def test_a_shared_tensor_counts_once_and_an_unknown_module_is_other():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = torch.nn.Embedding(5, 3)
            self.lm_head = torch.nn.Linear(3, 5, bias=True)
            self.lm_head.weight = self.tokens.weight
            self.extra = torch.nn.Parameter(torch.zeros(7))

    found = parameters(Odd())
    assert {part: count for part, count in found.items() if count} == {"embeddings": 15, "head": 5, "other": 7}


def test_a_meta_model_has_the_shapes_of_the_model_and_no_values(config):
    for connection in CONNECTIONS:
        chosen = config(connection)
        shapes = {name: x.shape for name, x in build_model(chosen).state_dict().items()}
        assert {name: x.shape for name, x in build_meta(chosen).state_dict().items()} == shapes
        assert all(p.is_meta for p in build_meta(chosen).parameters())


def test_flops_of_connections_are_those_of_the_published_count(config):
    """24 coefficients and 4 streams: 2·4d·24 for the projection and 2(16 + 8)d for applying them, three times."""
    d, site_count = 16, 2
    assert connection_flops(build_meta(config("mhc"))) == 3 * site_count * (192 * d + 48 * d)
    assert connection_flops(build_meta(config("mhc_lite"))) == 3 * site_count * (256 * d + 48 * d)
    assert connection_flops(build_meta(config("hc"))) == 3 * site_count * (48 * d + 48 * d)
    assert connection_flops(build_meta(config("residual"))) == 0


# a recomputed block keeps the state of the random generator, too, 5 kB that are left out: nothing at a real size
SHAPE = {"model.width": 32, "model.layers": 2, "model.block_size": 32, "train.micro_batch": 4}


@pytest.mark.parametrize("how", ["none", "connection", "block"])
@pytest.mark.parametrize("connection", CONNECTIONS)
def test_activations_are_what_the_allocator_holds_between_forward_and_backward(config, connection, how):
    chosen = config(connection, SHAPE | {"train.recompute": how})
    model = build_model(chosen).train()
    recompute(model, how)
    objective = registry.load("objectives", "lm")(chosen.objective)
    tokens = torch.randint(64, (4, 32))
    with profile(profile_memory=True) as seen:
        step = objective.step(model, {"inputs": tokens, "targets": tokens}, None, Clock(0, 1))
        loss = step.loss_sum / 128
    held = sum(event.self_cpu_memory_usage for event in seen.function_events)
    assert loss.requires_grad
    generators = 2 * 5_100 * (how != "none" and (how == "block" or chosen.connection.name != "residual"))
    assert activations(chosen) == memory(chosen).activations == pytest.approx(held - generators, rel=0.02)


def grouped(config, group, layers=8, **fields):
    shape = SHAPE | {"model.layers": layers, "train.recompute": "connection", "train.recompute_group": group}
    return config("mhc", shape | {f"connection.{name}": value for name, value in fields.items()})


@pytest.mark.parametrize("n", [2, 4])
def test_a_group_keeps_one_state_until_backward(config, n):
    """4 x 32 tokens of n·32 float32; nothing else depends on the groups."""
    state = 4 * 32 * n * 32 * 4
    whole = activations(grouped(config, 16, streams=n))
    for group in (1, 3, 4, 15):
        assert activations(grouped(config, group, streams=n)) == whole + (math.ceil(16 / group) - 1) * state


def test_the_least_memory_is_held_with_the_group_of_the_formula(config):
    """Of all that divide 16 sites, in real bytes at any moment; √(4·16 / 6) is 3.3."""
    held = {group: memory(grouped(config, group)).update for group in (1, 2, 4, 8, 16)}
    assert min(held, key=held.__getitem__) == best_group(16, 4) == 4
    assert memory(grouped(config, "auto")).update == held[4]
    assert min(held[1], held[16]) - held[4] > 6 * 4 * 32 * 4 * 32 * 4  # states


def test_the_large_preset_holds_with_streams_little_more_than_without():
    """16 x 1024 tokens in bfloat16; the residual network recomputes nothing."""
    held = {}
    for name, how in (("residual", "none"), ("mhc", "connection")):
        overrides = {"connection.name": name, "train.recompute": how, "train.accumulation": 1}
        held[name] = memory(load_config(LARGE, overrides), torch.bfloat16)
    assert held["mhc"].activations < 1.05 * held["residual"].activations
    assert held["mhc"].update < 1.15 * held["residual"].update


def test_recomputing_more_holds_less_and_smaller_pieces_too(config):
    kept = [activations(config("mhc", SHAPE | {"train.recompute": how})) for how in ("none", "connection", "block")]
    assert kept == sorted(kept, reverse=True)
    assert len(set(kept)) == 3
    whole = memory(config("mhc", SHAPE))
    halves = memory(config("mhc", SHAPE | {"train.micro_batch": 2, "train.accumulation": 2}))
    assert halves.activations < 0.6 * whole.activations
    assert whole.update >= whole.weights + whole.moments + whole.activations


def test_weights_and_moments_are_of_float32_in_any_autocast(config):
    full, mixed = (memory(config("mhc", SHAPE), dtype) for dtype in (torch.float32, torch.bfloat16))
    count = sum(parameters(build_meta(config("mhc", SHAPE))).values())
    assert full.weights == full.gradients == mixed.weights == 4 * count
    assert full.moments == mixed.moments == pytest.approx(8 * count, rel=0.01)  # and a count of steps each
    assert mixed.activations < full.activations


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_a_checkpoint_has_the_size_that_was_foretold(config, connection, tmp_path):
    chosen = config(connection, {"train.steps": 1, "train.eval_batches": 1})
    train(chosen, tmp_path / "run")
    (folder,) = (tmp_path / "run" / "checkpoints").glob("step-*")
    real = sum(path.stat().st_size for path in folder.iterdir())
    assert checkpoint_bytes(chosen) == pytest.approx(real, rel=0.02)
