"""A ckpt.pt as nanoGPT's train.py writes it becomes a run that gives the logits of their forward pass."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner

from mhcnb.cli import main
from mhcnb.interop.nanogpt import load_gpt
from mhcnb.run import Run
from mhcnb.training.checkpoint import load_model

D, LAYERS, HEADS, BLOCK, VOCAB = 16, 2, 4, 12, 64
IDS = torch.randint(VOCAB, (3, BLOCK), generator=torch.Generator().manual_seed(0))
SHAPES = {"ln_1": (D,), "attn.c_attn": (3 * D, D), "attn.c_proj": (D, D), "ln_2": (D,)}
SHAPES |= {"mlp.c_fc": (4 * D, D), "mlp.c_proj": (D, 4 * D)}


def state_dict(bias, seed=0):
    """nanoGPT's names and shapes, every tensor far from where it would start."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"wte.weight": (VOCAB, D), "wpe.weight": (BLOCK, D)}
    for i in range(LAYERS):
        shapes |= {f"h.{i}.{module}.weight": shape for module, shape in SHAPES.items()}
    shapes["ln_f.weight"] = (D,)
    if bias:
        shapes |= {k.replace("weight", "bias"): s[:1] for k, s in shapes.items() if not k.startswith("w")}
    state = {f"transformer.{k}": 0.4 * torch.randn(s, generator=generator) for k, s in shapes.items()}
    return state | {"lm_head.weight": state["transformer.wte.weight"]}


def oracle(state, ids):
    """Their forward pass, written from the names: [b, t] -> [b, t, v]."""
    part = {k.removeprefix("transformer."): v for k, v in state.items()}

    def layer_norm(name, x):
        return F.layer_norm(x, (D,), part[f"{name}.weight"], part.get(f"{name}.bias"))

    def linear(name, x):
        return F.linear(x, part[f"{name}.weight"], part.get(f"{name}.bias"))

    x, t = part["wte.weight"][ids] + part["wpe.weight"][: ids.shape[1]], ids.shape[1]
    for i in range(LAYERS):
        q, k, v = linear(f"h.{i}.attn.c_attn", layer_norm(f"h.{i}.ln_1", x)).split(D, dim=-1)
        heads = []
        for h in range(HEADS):
            part_of = slice(h * D // HEADS, (h + 1) * D // HEADS)
            scores = q[..., part_of] @ k[..., part_of].mT / math.sqrt(D / HEADS)
            scores = scores.masked_fill(torch.ones(t, t).triu(1).bool(), -math.inf)
            heads.append(scores.softmax(-1) @ v[..., part_of])
        x = x + linear(f"h.{i}.attn.c_proj", torch.cat(heads, -1))
        z = linear(f"h.{i}.mlp.c_fc", layer_norm(f"h.{i}.ln_2", x))
        x = x + linear(f"h.{i}.mlp.c_proj", 0.5 * z * (1 + torch.erf(z / math.sqrt(2))))
    return layer_norm("ln_f", x) @ part["lm_head.weight"].T


def contents(bias=True, prefix="_orig_mod."):
    """All that train.py saves: the optimizer's two groups, a loss on the CPU, its settings as plain values. Matrices
    lie by columns, as compiled training may leave them."""
    state = {key: value.T.contiguous().T if value.ndim == 2 else value for key, value in state_dict(bias).items()}
    weights = [value.clone().requires_grad_() for value in state.values()]
    groups = [{"params": weights[:3], "weight_decay": 0.1}, {"params": weights[3:], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95))
    sum(weight.sum() for weight in weights).backward()
    optimizer.step()
    args = dict(n_layer=LAYERS, n_head=HEADS, n_embd=D, block_size=BLOCK, bias=bias, vocab_size=VOCAB, dropout=0.1)
    config = dict(
        out_dir="out", eval_interval=200, eval_iters=20, eval_only=False, init_from="scratch", wandb_log=False
    )
    config |= dict(dataset="shakespeare_char", gradient_accumulation_steps=5, batch_size=4, learning_rate=6e-4)
    config |= dict(max_iters=5000, weight_decay=0.1, beta1=0.9, beta2=0.95, grad_clip=1.0, decay_lr=True)
    config |= dict(warmup_iters=100, lr_decay_iters=5000, min_lr=6e-5, backend="nccl", device="cuda", compile=True)
    return {
        "model": {prefix + key: value for key, value in state.items()},
        "optimizer": optimizer.state_dict(),
        "model_args": args,
        "iter_num": 250,
        "best_val_loss": torch.tensor(1.75),
        "config": config,
    }


@pytest.fixture
def mhcnb(tmp_path, monkeypatch):
    """mhcnb("import", ...): the command line, in the test's folder, where `save` leaves ckpt.pt."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        return CliRunner().invoke(main, [str(arg) for arg in args])

    return run


def test_the_mask_of_older_versions_is_not_a_bias():
    state = state_dict(bias=False)
    masks = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, BLOCK, BLOCK).tril() for i in range(LAYERS)}
    model = load_gpt(state | masks, heads=HEADS)
    assert not model.config.bias
    torch.testing.assert_close(model({"inputs": IDS}).logits, oracle(state, IDS), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_an_imported_run_gives_their_logits_and_says_how_it_was_trained(mhcnb, tmp_path, bias):
    torch.save(contents(bias), tmp_path / "ckpt.pt")
    done = mhcnb("import", "nanogpt", "ckpt.pt", "theirs")
    assert done.exit_code == 0, done.stderr
    model, config = load_model(tmp_path / "theirs")
    expected = oracle(state_dict(bias), IDS)
    with torch.no_grad():
        assert (model.eval()({"inputs": IDS}).logits - expected).abs().max() < 1e-5 * expected.abs().max()
    train = config.train
    assert (config.connection.name, config.preset, config.model.dropout) == ("residual", "nanogpt", 0.1)
    assert (train.lr, train.micro_batch, train.accumulation, train.betas, train.steps) == (6e-4, 4, 5, (0.9, 0.95), 250)
    run = Run(tmp_path / "theirs")
    assert (run.status()["state"], run.status()["step"], run.summary()["final_val_loss"]) == ("done", 250, 1.75)
    assert run.env()["imported"]["config"]["dataset"] == "shakespeare_char"


def test_the_command_that_import_prints_trains_it_on_with_streams(mhcnb, tmp_path, shards):
    torch.save(contents(), tmp_path / "ckpt.pt")
    said = mhcnb("import", "nanogpt", "ckpt.pt", "theirs", "--data", shards).stdout
    command = next(line for line in said.splitlines() if "with streams" in line).split("mhcnb ")[1].split()
    small = ["train.steps=2", "train.eval_batches=2", "model.dropout=0.0"]
    done = mhcnb(*[word for word in command if not word.startswith("train.steps")], *small, "--out", "ours")
    assert done.exit_code == 0, done.output
    loss = json.loads(mhcnb("evaluate", "theirs", "train.eval_batches=2").stdout)["loss"]
    assert Run("ours").results("eval")[0]["val_loss"] == pytest.approx(loss, rel=1e-5)
    assert Run("ours").config.connection.name == "mhc"


def changed(place, **values):
    what = contents()
    part = what[place] if place else what
    part |= values
    for key in [key for key, value in part.items() if value is None]:
        del part[key]
    return what


REFUSED = {
    "missing": (
        changed("model", **{"_orig_mod.transformer.h.1.mlp.c_fc.bias": None}),
        "transformer.h.1.mlp.c_fc.bias is missing",
    ),
    "surplus": (
        changed("model", **{"_orig_mod.transformer.h.0.ln_1.gain": torch.ones(D)}),
        "transformer.h.0.ln_1.gain is unknown",
    ),
    "another shape": (
        changed("model", **{"_orig_mod.transformer.h.0.mlp.c_proj.weight": torch.ones(D, D)}),
        "transformer.h.0.mlp.c_proj.weight is (16, 16), expected (16, 64)",
    ),
    "an untied head": (
        changed("model", **{"_orig_mod.lm_head.weight": torch.ones(VOCAB, D)}),
        "lm_head.weight differs",
    ),
    "a fork": (changed("model_args", use_rmsnorm=False, rope=True), "model_args has rope, use_rmsnorm, which nanoGPT"),
    "no heads": (changed("model_args", n_head=None), "model_args has no n_head, and no tensor shows it\n"),
    "other sizes": (changed("model_args", block_size=1024), "block_size 1024, tensors 12"),
    "no state": (changed("", model=None), "has no model: expected the dict that nanoGPT's train.py saves"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_nanogpts_is_refused_by_name_and_nothing_is_written(mhcnb, tmp_path, case):
    what, words = REFUSED[case]
    torch.save(what, tmp_path / "ckpt.pt")
    done = mhcnb("import", "nanogpt", "ckpt.pt", "theirs")
    assert done.exit_code == 2
    assert done.stderr.startswith("CheckpointError: ")
    assert words in done.stderr
    assert not (tmp_path / "theirs").exists()


def test_a_file_that_is_not_there(mhcnb):
    assert "none.pt: no such file; give the ckpt.pt that nanoGPT's" in mhcnb("import", "nanogpt", "none.pt", "x").stderr
