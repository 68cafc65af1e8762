"""Weights of the original HRM give its numbers: forward, carry, losses, gradients, both optimizers, evaluation."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mhcnb.config import TrainConfig
from mhcnb.errors import CheckpointError, ConfigError
from mhcnb.interop import hrm
from mhcnb.layers.rope import Rotation
from mhcnb.objectives.act import ACT, ACTConfig, halted_scores, scores
from mhcnb.objectives.base import Clock
from mhcnb.training.optim import build_optimizer, set_rate

GOLDEN = Path(__file__).parents[1] / "golden" / "hrm"
GIVEN = {"num_heads": 2, "H_cycles": 2, "L_cycles": 2, "halt_max_steps": 4}
FIELDS = ("inputs", "labels", "puzzle_identifiers")


def golden(name):
    return {key: torch.from_numpy(np.asarray(x)) for key, x in np.load(GOLDEN / f"{name}.npz").items()}


def part(tensors, prefix):
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}


@pytest.fixture(scope="module")
def weights():
    return golden("weights")


@pytest.fixture
def model(weights):
    return hrm.load(weights, **GIVEN, expansion=4.0)


def close(ours, theirs, atol):
    torch.testing.assert_close(ours.detach().to(theirs), theirs, rtol=0, atol=atol)


def step(model, objective, g, i, carry, monkeypatch, drawn):
    monkeypatch.setattr("mhcnb.objectives.act.exploration", lambda clock, rows, config: drawn[i])
    batch = {name: g[f"s{i}_batch_{name}"] for name in FIELDS}
    return objective.step(model, batch, carry, Clock(0, i + 1))


def test_six_training_steps(model, monkeypatch):
    """Early halts, halts at the limit, vetoes of exploration; rows that go on ignore the batch."""
    g, carry, kept = golden("train_steps"), None, []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda *args: kept.append(forward(*args)) or kept[-1])
    for i in range(6):
        before = torch.ones(4, dtype=torch.bool) if carry is None else carry.halted
        assert torch.equal(before, g[f"s{i}_reset_rows"])
        out = step(model, ACT(ACTConfig()), g, i, carry, monkeypatch, g["min_halt_steps"])
        carry, theirs, output = out.carry, part(g, f"s{i}_"), kept[-1]
        close(output.logits, theirs["logits"], 2e-4)
        for name in ("q_halt_logits", "q_continue_logits"):
            close(output.parts[name], theirs[name], 5e-5)
        close(output.parts["target_q_continue"], theirs["target_q_continue"], 1e-5)
        for name in ("z_H", "z_L"):
            if name in theirs:
                close(getattr(carry, name), theirs[name], 2e-4)
        for name in ("steps", "halted"):
            assert torch.equal(getattr(carry, name), theirs[name])
        for name in ("inputs", "labels"):
            assert torch.equal(carry.data[name], theirs[f"current_{name}"])
        close(out.loss_sum, theirs["loss"], 1e-4)
        assert out.count == 4
        metrics = part(theirs, "metric_")
        assert out.metrics["accuracy"][1] == metrics.pop("count")
        for name, expected in metrics.items():
            close(out.metrics[name][0], expected, 1e-4)


def test_two_updates_with_both_optimizers(model, weights, monkeypatch):
    """Gradients of every parameter and of the table's rows; weights, moments and table after each update."""
    g, batches, carry = golden("updates"), golden("train_steps"), None
    lr, puzzle_lr, decay, puzzle_decay, b1, b2, rows = g["hyper_lr_lrEmb_wd_wdEmb_b1_b2_gbs"].tolist()
    train = TrainConfig(
        steps=2, lr=lr, puzzle_lr=puzzle_lr, weight_decay=decay, puzzle_weight_decay=puzzle_decay, betas=(b1, b2)
    )
    optimizer = build_optimizer(model, train)
    set_rate(optimizer, lr)
    for i in range(2):
        out = step(model, ACT(ACTConfig()), batches, i, carry, monkeypatch, batches["min_halt_steps"])
        close(out.loss_sum, g[f"o{i}_loss"], 1e-4)
        (out.loss_sum / rows).backward()
        ((ids, found),) = model.puzzles.looked_up
        assert torch.equal(ids, g[f"o{i}_puzzle_emb_local_ids"])
        close(found.grad, g[f"o{i}_grad_puzzle_emb_local"], 5e-6)
        for name, grad in hrm.tensors(part(g, f"o{i}_grad_inner.")).items():
            close(model.get_parameter(name).grad, grad, 5e-6)
        optimizer.step()
        optimizer.zero_grad()
        carry, state = out.carry, model.state_dict()
        for name, value in hrm.tensors(part(g, f"o{i}_param_inner.")).items():
            close(state[name], value, 1e-7 if name == "puzzles.rows" else 5e-5)
    for moment in ("m", "v"):
        for name, value in hrm.tensors(part(g, f"{moment}_inner.")).items():
            close(optimizer.parts["adam_atan2"].state[model.get_parameter(name)][moment], value, 5e-6)
    assert not model.puzzles.looked_up


def test_softmax_in_place_of_stablemax(model, monkeypatch):
    g, batches = golden("updates"), golden("train_steps")
    out = step(model, ACT(ACTConfig(loss="softmax")), batches, 0, None, monkeypatch, batches["min_halt_steps"])
    close(out.loss_sum, g["softmax_s0_loss"], 1e-4)
    close(out.metrics["lm_loss"][0], g["softmax_s0_lm_loss"], 1e-4)


def test_evaluation_goes_to_the_last_step_and_leaves_padding_out(model):
    g, carry = golden("eval_steps"), None
    batch, model = part(g, "batch_"), model.eval()
    for i in range(int(g["n_steps"])):
        with torch.no_grad():
            output = model(batch, carry)
        carry, theirs = output.carry, part(g, f"e{i}_")
        close(output.logits, theirs["logits"], 2e-4)
        close(output.parts["q_halt_logits"], theirs["q_halt_logits"], 5e-5)
        s = scores(output, "stablemax")
        close(s.lm_loss + 0.5 * s.q_halt_loss, theirs["loss"], 1e-4)
        metrics = part(theirs, "metric_")
        for name, (total, count) in halted_scores(output, s).items():
            if name != "blank_accuracy":
                assert count == metrics["count"]
                close(total, metrics[name], 1e-4)
    close(carry.z_H, g["e3_z_H"], 2e-4)
    close(carry.z_L, g["e3_z_L"], 2e-4)
    assert carry.halted.all()
    found = ACT(ACTConfig()).evaluate(model, batch)
    assert found.keys() == set(ACT.metrics)
    close(found["loss"][0], metrics["lm_loss"], 1e-4)
    close(found["q_halt_loss"][0], metrics["q_halt_loss"], 1e-4)
    assert found["exact_accuracy"][1] == 3


def test_blocks_and_embeddings(model):
    g, batches = golden("helpers"), golden("train_steps")
    rope, block = Rotation(model.cos, model.sin), model.get_submodule("L.0")
    x = g["rms_in"]
    close(block["attn"].post_norm(x), g["rms_out"], 1e-6)
    close(block["attn"].branch(x, rope=rope), g["attn_out"], 1e-5)
    close(block["mlp"].branch(x), g["swiglu_out"], 1e-5)
    close(block(x.unsqueeze(-2), rope=rope).squeeze(-2), g["block_out"], 2e-5)
    data = {"inputs": batches["s0_batch_inputs"], "puzzle_identifiers": torch.tensor([0, 1, 2, 1])}
    close(model._embedded(data), g["input_embeddings"], 1e-5)
    close(model.H(x + g["input_embeddings"][:2], lambda x: x, rope=rope), g["h_module_out"], 2e-5)


@pytest.mark.parametrize("prefix", ["model.", "_orig_mod.model."])
def test_wrappers_prefixes_change_nothing(model, weights, prefix):
    other = hrm.load({prefix + name: x for name, x in weights.items()}, **GIVEN)
    assert all(torch.equal(x, other.state_dict()[name]) for name, x in model.state_dict().items())
    assert model.config.ffn_dim == other.config.ffn_dim == 256
    assert (other.config.seq_len, other.config.puzzles, other.config.H_layers) == (81, 3, 1)


def test_learned_positions_and_no_table_are_read_off_the_names(weights):
    bare = {name: x for name, x in weights.items() if "puzzle_emb" not in name}
    model = hrm.load(bare | {"inner.embed_pos.embedding_weight": torch.randn(81, 32)}, **GIVEN)
    assert (model.config.positions, model.config.seq_len, model.config.puzzle_width) == ("learned", 81, 0)
    batch = {"inputs": torch.randint(11, (2, 81)), "labels": torch.randint(11, (2, 81))}
    assert model(batch).logits.shape == (2, 81, 11)


def test_what_does_not_fit_is_refused(weights):
    with pytest.raises(CheckpointError, match=r"H_init is missing"):
        hrm.load({name: x for name, x in weights.items() if "H_init" not in name}, **GIVEN)
    with pytest.raises(CheckpointError, match=r"nonsense is unknown"):
        hrm.load(weights | {"inner.nonsense": torch.zeros(1)}, **GIVEN)
    with pytest.raises(ConfigError, match=r"width 32 is not divisible by heads 3"):
        hrm.load(weights, **GIVEN | {"num_heads": 3})
    ends = {f"inner.{name}.weight": torch.zeros(12, 32) for name in ("lm_head",)}
    with pytest.raises(ConfigError, match="vocabulary of 12 is no Sudoku's; give seq_len"):
        hrm.load(weights | ends | {"inner.embed_tokens.embedding_weight": torch.zeros(12, 32)}, **GIVEN)
