"""RLM: what is saved comes back equal, and what it says of its maps is what the definitions give."""

import pytest
import torch
from safetensors.torch import load_file

import mhcnb
from mhcnb import registry
from mhcnb.config import load_config
from mhcnb.connections.residual import ResidualConfig
from mhcnb.data.tokenizer import run_tokenizer, train_tokenizer
from mhcnb.errors import CheckpointError, ConfigError, RunError
from mhcnb.interop.pretrained import RLM, LayerGains
from mhcnb.models.base import build_model
from mhcnb.models.generation import generate
from mhcnb.models.rlm import RLMConfig
from mhcnb.run import Run
from mhcnb.training.checkpoint import load_model, save
from mhcnb.training.loop import train

CONNECTIONS = sorted(registry.entries("connections"))
IDS = torch.randint(64, (3, 8), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def run(small, tmp_path):
    """run(connection): a run of an rlm far from its start, with one checkpoint; and its model."""

    def make(connection="mhc", scale=0.3, **given):
        config = small(**{"model.name": "rlm", "connection.name": connection, "model.layers": 2} | given)
        model, generator = build_model(config), torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += scale * torch.randn(parameter.shape, generator=generator)
        run = Run.create(tmp_path / "run", config)
        save(run, 3, model, config)
        run.release()
        return run, model

    return make


def logits(model, ids=IDS):
    with torch.no_grad():
        return model.eval()({"inputs": ids}).logits


@pytest.mark.parametrize("connection", CONNECTIONS)
@pytest.mark.parametrize("tied", [False, True])
def test_a_run_a_checkpoint_and_a_saved_folder_give_the_same_model(run, tmp_path, connection, tied):
    where, model = run(connection, **{"model.tied": tied})
    first = RLM.from_pretrained(where.path)
    saved = first.save_pretrained(tmp_path / "saved")
    places = [where.path, where.last_checkpoint(), saved, str(saved)]
    for place in places:
        again = RLM.from_pretrained(place)
        assert not again.training
        assert torch.equal(logits(again), logits(model)), place


def test_the_tokenizer_goes_with_the_weights(run, tmp_path):
    """From a run to a saved folder, and on from there; without one there is none."""
    where, _ = run()
    RLM.from_pretrained(where.path).save_pretrained(tmp_path / "without")
    assert sorted(path.name for path in (tmp_path / "without").iterdir()) == ["config.yaml", "model.safetensors"]
    codec = train_tokenizer(["some words and some more"], 260)
    codec.save(where.path / "tokenizer.json")
    saved = RLM.from_pretrained(where.last_checkpoint()).save_pretrained(tmp_path / "saved")
    again = RLM.from_pretrained(saved)
    assert again.save_pretrained(saved) == saved
    assert run_tokenizer(again.save_pretrained(tmp_path / "further")).digest == codec.digest


def test_what_is_saved_is_plain_safetensors_and_a_whole_configuration(run, tmp_path):
    where, model = run()
    saved = RLM.from_pretrained(where.path).save_pretrained(tmp_path / "saved")
    assert sorted(path.name for path in saved.iterdir()) == ["config.yaml", "model.safetensors"]
    tensors = load_file(saved / "model.safetensors")
    assert tensors.keys() == model.state_dict().keys()
    assert all(torch.equal(tensors[name], value) for name, value in model.state_dict().items())
    assert load_config(saved / "config.yaml") == where.config
    assert torch.equal(logits(load_model(saved)[0]), logits(model))


def test_a_model_made_by_hand_can_be_saved_over_what_it_saved_before(tmp_path):
    config = RLMConfig(width=16, layers=1, heads=2, vocab_size=64, block_size=8)
    model = RLM(config, ResidualConfig(), torch.Generator().manual_seed(0))
    for step in range(2):
        with torch.no_grad():
            model.wte.weight += step
        model.to(torch.bfloat16 if step else torch.float32).save_pretrained(tmp_path / "saved")
    again = RLM.from_pretrained(tmp_path / "saved")
    assert again.config == config
    assert torch.equal(again.wte.weight, model.wte.weight.float())


def test_training_starts_from_a_saved_folder(run, small, tmp_path):
    where, _ = run("residual")
    saved = RLM.from_pretrained(where.path).save_pretrained(tmp_path / "saved")
    given = {"model.name": "rlm", "model.layers": 2, "connection.name": "hc", "train.weights": str(saved)}
    train(small(**given, **{"train.steps": 1}), tmp_path / "more")
    assert len(RLM.from_pretrained(tmp_path / "more").get_mhc_metrics()) == 2


def test_saving_spares_runs_and_checkpoints(run, tmp_path):
    where, _ = run()
    model = RLM.from_pretrained(where.path)
    for place in (where.path, where.last_checkpoint()):
        before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
        with pytest.raises(RunError, match="holds a run or a checkpoint; nothing was changed"):
            model.save_pretrained(place)
        assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


def test_it_is_the_packages_rlm():
    assert mhcnb.RLM is RLM


def test_generate_is_the_kits(run):
    where, plain = run()
    model = RLM.from_pretrained(where.path)
    assert torch.equal(model.generate(IDS[:, :3], 5, temperature=0.0), generate(plain, IDS[:, :3], 5, temperature=0.0))
    drawn = dict(temperature=0.9, top_p=0.8, top_k=9, eos=2)
    rows = [
        m([IDS[0, :4], IDS[1, :2]], 4, **drawn, generator=torch.Generator().manual_seed(5))
        for m in (model.generate, lambda *args, **given: generate(plain, *args, **given))
    ]
    assert all(torch.equal(a, b) for a, b in zip(*rows, strict=True))


# maps -----------------------------------------------------------------------------------------------------------------


def definition(X, connection):
    """res [T, n_out, n_in] token by token from a state X [T, n, d]; and max(forward, backward) of each."""
    maps = [connection.maps(x).res.detach().double() for x in X]
    gains = [max(float(P.sum(1).abs().max()), float(P.sum(0).abs().max())) for P in maps]
    return torch.stack(maps), sum(gains) / len(gains)


@pytest.mark.parametrize("connection", CONNECTIONS)
@pytest.mark.parametrize("given", [True, False], ids=["tokens", "static"])
def test_gains_and_matrices_of_a_site_are_those_of_their_definition(run, connection, given):
    where, _ = run(connection)
    model = RLM.from_pretrained(where.path)
    ids, states = (IDS if given else None), {}
    blocks = [model.get_submodule(f"main.{i}") for i in range(2)]
    for i, block in enumerate(blocks):
        for label, site in block.items():
            site.register_forward_pre_hook(lambda _, args, key=(i, label): states.update({key: args[0].flatten(0, 1)}))
    logits(model)
    metrics = model.get_mhc_metrics(ids)
    for i, block in enumerate(blocks):
        for label, site in block.items():
            rule = site.connection
            res, gain = definition(states[i, label] if given else torch.zeros(1, rule.n, rule.d), rule)
            assert getattr(metrics[i], label) == pytest.approx(gain, rel=1e-5)
            matrix = model.get_connection_matrix(i, label, ids)
            assert matrix.shape == (rule.n, rule.n)
            torch.testing.assert_close(matrix, res.mean(0), rtol=1e-5, atol=1e-6)
    assert metrics.of == ("the maps of 24 tokens" if given else "static maps: no tokens were given")
    assert metrics.of in repr(metrics)


def test_static_maps_are_the_biases_alone(run):
    """Without gates no token decides, so that the maps of any tokens are the static ones."""
    where, _ = run("mhc_lite")
    model = RLM.from_pretrained(where.path)
    for i in range(2):
        for site in model.get_submodule(f"main.{i}").values():
            torch.nn.init.zeros_(site.connection.gate)
    torch.testing.assert_close(model.get_connection_matrix(1, "mlp"), model.get_connection_matrix(1, "mlp", IDS))
    dynamic, static = model.get_mhc_metrics(IDS), model.get_mhc_metrics()
    torch.testing.assert_close(torch.tensor(list(dynamic)), torch.tensor(list(static)))


def test_the_guides_loop_over_the_metrics_and_a_single_prompt(run):
    where, _ = run("residual")
    model = RLM.from_pretrained(where.path)
    for metrics in (model.get_mhc_metrics(), model.get_mhc_metrics(IDS[0])):
        found = [(i, attn, mlp) for i, (attn, mlp) in enumerate(metrics)]
        assert found == [(0, 1.0, 1.0), (1, 1.0, 1.0)]
        assert metrics[0] == LayerGains(attn=1.0, mlp=1.0)


def test_looking_leaves_the_model_as_it_was(run):
    where, _ = run()
    model = RLM.from_pretrained(where.path).train()
    model.get_mhc_metrics(IDS)
    model.generate(IDS[:, :3], 2)
    assert model.training


# refusals -------------------------------------------------------------------------------------------------------------


def test_no_such_site(run):
    model = RLM.from_pretrained(run()[0].path)
    for layer, branch in ((2, "attn"), (-1, "mlp"), (0, "attention")):
        with pytest.raises(ConfigError, match="there are layers 0 to 1, each with attn and mlp"):
            model.get_connection_matrix(layer, branch)


def test_folders_that_are_none(small, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"empty: it has no config\.yaml; give a run, a checkpoint, or"):
        RLM.from_pretrained(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="nowhere: no such folder"):
        RLM.from_pretrained(tmp_path / "nowhere")
    Run.create(tmp_path / "begun", small()).release()
    with pytest.raises(CheckpointError, match=r"begun has no checkpoint \(state: starting\)"):
        RLM.from_pretrained(tmp_path / "begun")


def test_another_model(small, tmp_path):
    train(small(**{"train.steps": 1}), tmp_path / "gpt")
    with pytest.raises(CheckpointError, match="gpt holds a gpt, not an rlm"):
        RLM.from_pretrained(tmp_path / "gpt")


def test_damaged_weights_and_a_configuration_of_others(run, tmp_path):
    saved = RLM.from_pretrained(run()[0].path).save_pretrained(tmp_path / "saved")
    config, weights = (saved / name for name in ("config.yaml", "model.safetensors"))
    whole = config.read_text()
    config.write_text(whole.replace("layers: 2", "layers: 3"))
    with pytest.raises(CheckpointError, match=r"main\.2\.attn\.branch\.k\.weight: file absent"):
        RLM.from_pretrained(saved)
    config.write_text(whole.replace("vocab_size: 64", "vocab_size: auto"))
    with pytest.raises(CheckpointError, match="vocab_size is auto; give the number"):
        RLM.from_pretrained(saved)
    config.write_text(whole)
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        RLM.from_pretrained(saved)
