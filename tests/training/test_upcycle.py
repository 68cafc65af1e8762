"""A residual checkpoint becomes a model of n streams that computes the same at first, and then does not."""

import logging

import pytest
import torch
from click.testing import CliRunner

from mhcnb import registry
from mhcnb.cli import main
from mhcnb.errors import CheckpointError, ConfigError
from mhcnb.layers.site import sites
from mhcnb.models.base import build_model
from mhcnb.run import Run
from mhcnb.training.checkpoint import save
from mhcnb.training.loop import train
from mhcnb.training.weights import start_from

SEVERAL = sorted(set(registry.entries("connections")) - {"residual"})
MODELS = {"gpt": {"model.bias": True}, "rlm": {"model.name": "rlm", "model.kv_heads": 1}}
TOKENS = torch.randint(64, (4, 8), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def trained(small, tmp_path):
    """trained(model): a run whose checkpoint is a residual model far from its start; and the model."""

    def make(name):
        config = small(**MODELS[name], **{"connection.name": "residual", "model.layers": 2})
        model, generator = build_model(config), torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
        run = Run.create(tmp_path / "residual", config)
        save(run, 1, model, config)
        run.release()
        return run, model

    return make


@pytest.fixture
def upcycled(small):
    """upcycled(run, model name, connection, **more): the model that starts from the run."""

    def make(run, name, connection, **more):
        given = {"connection.name": connection, "model.layers": 2, "train.weights": str(run.path)}
        config = small(**MODELS[name], **given, **more)
        model = build_model(config)
        start_from(model, config)
        return model

    return make


def logits(model):
    with torch.no_grad():
        return model({"inputs": TOKENS}).logits


def spread(model):
    """Distance of the streams from their mean, relative to the state: the largest at the input of an inner site."""
    found = []

    def watch(site, args):
        X = args[0].detach()
        found.append(float((X - X.mean(-2, keepdim=True)).norm() / X.norm()))

    hooks = [site.register_forward_pre_hook(watch) for site in list(sites(model).values())[1:]]
    logits(model)
    for hook in hooks:
        hook.remove()
    return max(found)


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("connection", SEVERAL)
@pytest.mark.parametrize("name", MODELS)
def test_logits_are_equal_at_first_and_streams_part_within_20_steps(trained, upcycled, name, connection, n):
    run, residual = trained(name)
    model = upcycled(run, name, connection, **{"connection.streams": n})
    expected = logits(residual)
    assert (logits(model) - expected).abs().max() < 1e-5 * expected.abs().max()
    assert spread(model) < 1e-6
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(20):
        optimizer.zero_grad()
        out = model({"inputs": TOKENS}).logits[:, :-1]
        torch.nn.functional.cross_entropy(out.flatten(0, 1), TOKENS[:, 1:].flatten()).backward()
        optimizer.step()
    assert spread(model) > 1e-4


@pytest.mark.parametrize("dialect", ["mhc_lite", "deepseek_v4"])
@pytest.mark.parametrize("connection", SEVERAL)
def test_every_dialect_can_be_made_to_start_exact(trained, upcycled, connection, dialect):
    run, residual = trained("gpt")
    exact = {"connection.dialect": dialect, "connection.init": "exact_residual", "connection.reduce": "mean"}
    expected = logits(residual)
    assert (logits(upcycled(run, "gpt", connection, **exact)) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_run_begins_with_the_loss_of_the_residual_one_and_says_once_what_was_taken(small, params, tmp_path, caplog):
    train(small(**{"connection.name": "residual", "train.lr": 1e-2}), tmp_path / "first")
    path = params(**{"connection.name": "hc", "connection.streams": 2})
    caplog.set_level(logging.INFO)
    done = CliRunner().invoke(main, ["train", str(path), "--from", f"{tmp_path}/first", "--out", f"{tmp_path}/second"])
    assert done.exit_code == 0, done.output
    first, second = Run(tmp_path / "first"), Run(tmp_path / "second")
    assert second.results("eval")[0]["val_loss"] == pytest.approx(first.results("eval")[-1]["val_loss"], rel=1e-6)
    (said,) = [text for text in caplog.messages if "upcycled" in text]
    taken = len(build_model(first.config).state_dict())
    new = len(build_model(second.config).state_dict()) - taken
    assert f"upcycled to hc with 2 streams; {taken} tensors taken, {new} of the connections start anew" in said
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


@pytest.mark.parametrize("dialect", ["mhc_lite", "deepseek_v4"])
def test_a_start_that_is_not_the_residual_networks_is_refused(trained, upcycled, dialect):
    run, _ = trained("gpt")
    with pytest.raises(ConfigError, match=rf"init = method \(dialect {dialect}\) .*; set connection.dialect=paper"):
        upcycled(run, "gpt", "mhc", **{"connection.dialect": dialect})


REFUSED = {
    "layers": ({"model.layers": 3}, r"main\.2\.attn\.branch\.out\.weight: file absent, configuration \(16, 16\)"),
    "width": ({"model.width": 32}, r"main\.0\.attn\.branch\.out\.bias: file \(16,\), configuration \(32,\)"),
    "bias": ({"model.bias": False}, r"main\.0\.attn\.branch\.out\.bias: file \(16,\), configuration absent"),
    "another model": (MODELS["rlm"], "holds weights of model.name = gpt, the configuration says rlm"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_weights_of_other_shapes_are_refused_and_named(trained, small, case):
    run, _ = trained("gpt")
    given = MODELS["gpt"] | {"connection.name": "mhc", "model.layers": 2, "train.weights": str(run.path)}
    other, words = REFUSED[case]
    if "model.name" in other:
        del given["model.bias"]
    config = small(**given | other)
    with pytest.raises(CheckpointError, match=words):
        start_from(build_model(config), config)


def test_a_model_that_computes_something_else_with_the_same_weights_is_told(trained, upcycled, caplog):
    run, _ = trained("rlm")
    upcycled(run, "rlm", "mhc", **{"model.rope_theta": 500.0, "model.dropout": 0.1, "model.block_size": 16})
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said.endswith("the model changes: rope_theta 10000.0 -> 500.0")


def test_connection_weights_where_none_should_be_are_not_taken(trained, small, upcycled, tmp_path):
    """A shared folder of weights and a config.yaml that does not belong to them."""
    run, _ = trained("gpt")
    mhc = small(**MODELS["gpt"], **{"connection.name": "mhc", "model.layers": 2})
    other = Run.create(tmp_path / "other", mhc)
    folder = save(other, 1, build_model(mhc), mhc)
    for name in ("manifest.json", "state.json"):
        (folder / name).unlink()
    (folder / "config.yaml").write_bytes((run.path / "config.yaml").read_bytes())
    with pytest.raises(CheckpointError, match=r"main.0.attn.connection.bias.post: file \(4,\), configuration absent"):
        upcycled(Run(folder), "gpt", "mhc")
