"""A Hugging Face Llama folder becomes a run with the same logits; what would be computed wrongly is refused."""

import json

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from mhcnb.cli import main
from mhcnb.data.tokenizer import run_tokenizer, train_tokenizer
from mhcnb.run import Run
from mhcnb.training.checkpoint import load_model

transformers = pytest.importorskip("transformers")
IDS = torch.randint(64, (3, 20), generator=torch.Generator().manual_seed(0))
SIZES = dict(vocab_size=64, hidden_size=16, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4)
SIZES |= dict(num_key_value_heads=4, max_position_embeddings=32)
VARIANTS = {
    "plain": {},
    "grouped heads": {"num_key_value_heads": 2},
    "one head of keys": {"num_key_value_heads": 1, "rms_norm_eps": 1e-3},
    "tied": {"tie_word_embeddings": True},
    "wide heads": {"head_dim": 6, "num_key_value_heads": 2},
    "another base": {"rope_parameters": {"rope_theta": 300.0, "rope_type": "default"}},
}


def theirs(seed=0, **given):
    """A Llama, every tensor far from where it would start."""
    model, generator = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES | given)), torch.Generator()
    generator.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def saved(folder, how="one file", **given):
    """The folder that save_pretrained makes of one."""
    model = theirs(**given)
    model.save_pretrained(folder, **({"max_shard_size": "8KB"} if how == "shards" else {}))
    return model


@pytest.fixture
def mhcnb(tmp_path, monkeypatch):
    """mhcnb("import", ...): the command line, in the test's folder."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        return CliRunner().invoke(main, [str(arg) for arg in args])

    return run


def relative(model, reference):
    with torch.no_grad():
        expected = reference(IDS).logits
        return float((model.eval()({"inputs": IDS}).logits - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_theirs(mhcnb, variant):
    reference = saved("theirs", **VARIANTS[variant])
    done = mhcnb("import", "llama", "theirs", "ours")
    assert done.exit_code == 0, done.output
    model, config = load_model("ours")
    assert relative(model, reference) < 1e-5
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in reference.parameters())
    assert (config.connection.name, config.preset, config.model.block_size) == ("residual", "llama", 32)
    assert (Run("ours").status()["state"], Run("ours").status()["step"]) == ("done", 0)


def test_shards_are_one_model(mhcnb, tmp_path):
    reference = saved("theirs", "shards")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 2
    assert mhcnb("import", "llama", "theirs", "ours").exit_code == 0
    assert relative(load_model("ours")[0], reference) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_becomes_float32_without_loss(mhcnb, dtype):
    theirs().to(dtype).save_pretrained("theirs")
    reference = transformers.LlamaForCausalLM.from_pretrained("theirs", dtype=torch.float32)
    assert mhcnb("import", "llama", "theirs", "ours").exit_code == 0
    model, _ = load_model("ours")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.equal(
        model.get_submodule("main.1.mlp").branch.gate.weight, reference.model.layers[1].mlp.gate_proj.weight
    )
    assert relative(model, reference) < 1e-5


def edit(**values):
    """A change of config.json; None removes a key."""

    def change(folder):
        path = folder / "config.json"
        config = json.loads(path.read_text()) | values
        path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))

    return change


def test_what_older_versions_wrote_is_read_too(mhcnb, tmp_path):
    """rope_theta at the top, defaults unsaid, frequencies among the tensors, a tied head stored all the same."""
    reference = saved("theirs", tie_word_embeddings=True, rope_parameters={"rope_theta": 300.0, "rope_type": "default"})
    edit(rope_parameters=None, rope_theta=300.0, rope_scaling=None, head_dim=None, num_key_value_heads=None,
         hidden_act=None, attention_bias=None, architectures=None, rms_norm_eps=None)(tmp_path / "theirs")  # fmt: skip
    file = tmp_path / "theirs" / "model.safetensors"
    more = {"lm_head.weight": torch.zeros(64, 16), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(2)}
    save_file(load_file(file) | more, file)
    assert mhcnb("import", "llama", "theirs", "ours").exit_code == 0
    assert relative(load_model("ours")[0], reference) < 1e-5


def test_upcycled_by_the_command_it_begins_with_their_loss(mhcnb, shards):
    saved("theirs", num_key_value_heads=2)
    said = mhcnb("import", "llama", "theirs", "ours", "--data", shards).stdout
    command = next(line for line in said.splitlines() if "with streams" in line).split("mhcnb ")[1].split()
    fast = ["train.steps=2", "train.eval_batches=2"]
    done = mhcnb(*[word for word in command if not word.startswith("train.steps")], *fast, "--out", "more")
    assert done.exit_code == 0, done.output
    loss = json.loads(mhcnb("evaluate", "ours", "train.eval_batches=2").stdout)["loss"]
    assert Run("more").results("eval")[0]["val_loss"] == pytest.approx(loss, rel=1e-5)


def test_its_tokenizer_is_kept_and_text_is_prepared_with_it(mhcnb, tmp_path):
    reference = saved("theirs", vocab_size=320)
    lines = [f"Line {i}: {i * 7919 % 1000} dogs jump over {i * 31 % 97} foxes." for i in range(400)]
    codec = train_tokenizer(lines, 300)
    codec.save(tmp_path / "theirs" / "tokenizer.json")
    (tmp_path / "theirs" / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    (tmp_path / "dogs.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    done = mhcnb("import", "llama", "theirs", "ours")
    assert "data.root=TEXT.jsonl" in done.output
    (tmp_path / "theirs").rename(tmp_path / "gone")
    assert run_tokenizer("ours").digest == codec.digest
    assert run_tokenizer("ours").mark == codec.mark
    given = ["connection.name=mhc", "train.steps=1", "train.eval_batches=1", "data.root=dogs.jsonl", "data.cache=cache"]
    done = mhcnb("train", "ours/config.yaml", "--from", "ours", *given, "--out", "more")
    assert done.exit_code == 0, done.output
    assert run_tokenizer("more").digest == codec.digest
    assert load_model("more")[1].model.vocab_size == reference.config.vocab_size == 320


def test_a_broken_tokenizer_is_refused(mhcnb, tmp_path):
    saved("theirs")
    (tmp_path / "theirs" / "tokenizer.json").write_text("{}")
    done = mhcnb("import", "llama", "theirs", "ours")
    assert done.stderr.startswith("DataError: ")
    assert "theirs/tokenizer.json: not a tokenizer.json" in done.stderr
    assert not (tmp_path / "ours").exists()


# refusals -------------------------------------------------------------------------------------------------------------


def tensors(change):
    """A change of the dict of tensors in model.safetensors."""

    def apply(folder):
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors")

    return apply


def truncated(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def text(name, content):
    return lambda folder: (folder / name).write_text(content)


def without(name):
    return lambda folder: (folder / name).unlink()


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def index(places):
    def change(folder):
        (folder / "model.safetensors").rename(folder / "part.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))

    return change


K, NORM = "model.layers.1.self_attn.k_proj", "model.norm.weight"
REFUSED = {
    "missing tensor": (tensors(lambda s: s.pop(f"{K}.weight")), f"{K}.weight is missing"),
    "missing head": (tensors(lambda s: s.pop("lm_head.weight")), "lm_head.weight is missing"),
    "surplus tensor": (tensors(lambda s: s.update({f"{K}.lora_A": torch.ones(2)})), f"{K}.lora_A is unknown"),
    "surplus layer": (edit(num_hidden_layers=1), "model.layers.1.input_layernorm.weight is unknown; "),
    "another shape": (edit(num_key_value_heads=2), f"{K}.weight is (16, 16), expected (8, 16)"),
    "integers": (tensors(lambda s: s.update({NORM: torch.ones(16, dtype=torch.int8)})), f"{NORM} is I8; expected one"),
    "truncated": (truncated, "model.safetensors cannot be read: "),
    "not safetensors": (text("model.safetensors", "version https://git-lfs"), "model.safetensors cannot be read: "),
    "no weights": (without("model.safetensors"), "has no model.safetensors and no model.safetensors.index.json"),
    "pickled": (pickled, "pytorch_model.bin may run code when read: save it again as safetensors"),
    "lost shard": (index({NORM: "part.safetensors", "a": "b.safetensors"}), "names b.safetensors: not beside it"),
    "shard elsewhere": (index({NORM: "../theirs/part.safetensors"}), "names ../theirs/part.safetensors: not beside it"),
    "empty index": (index({}), "weight_map says no file for any tensor"),
    "no config": (without("config.json"), "config.json: no such file; give a folder that save_pretrained"),
    "config not JSON": (text("config.json", '{"model_type": "llama",'), "config.json: not valid JSON: Expecting"),
    "config nested": (text("config.json", "[" * 100_000), "config.json: not valid JSON: "),
    "config a list": (text("config.json", "[1]"), "config.json: expected an object, got list"),
    "no size": (edit(hidden_size=None), "config.json has no hidden_size; its keys: architectures, "),
    "another model": (edit(model_type="mistral"), "model_type = 'mistral', expected 'llama'"),
    "another head": (edit(architectures=["LlamaForSequenceClassification"]), "expected ['LlamaForCausalLM']"),
    "another activation": (edit(hidden_act="gelu"), "hidden_act = 'gelu', expected 'silu'"),
    "attention bias": (edit(attention_bias=True), "attention_bias = True, expected False"),
    "mlp bias": (edit(mlp_bias=True), "mlp_bias = True, expected False"),
    "quantised": (edit(quantization_config={"bits": 4}), "quantization_config = {'bits': 4}, expected None"),
    "scaled positions": (edit(rope_parameters={"rope_type": "llama3", "factor": 8.0}), '{"rope_type": "llama3", '),
    "older scaling": (edit(rope_parameters=None, rope_scaling={"type": "linear", "factor": 2.0}), '{"type": "linear"'),
    "half the channels": (edit(rope_parameters={"partial_rotary_factor": 0.5}), '{"partial_rotary_factor": 0.5}'),
}
SIZES_REFUSED = {
    "odd heads": (edit(head_dim=3), "a head is 3 wide"),
    "uneven groups": (edit(num_key_value_heads=3), "heads 4 is not divisible by kv_heads 3"),
    "a size in words": (edit(hidden_size="16"), "width: Input should be a valid integer"),
}


@pytest.mark.parametrize("case", REFUSED | SIZES_REFUSED)
def test_what_is_no_such_llama_is_refused_by_name_and_nothing_is_written(mhcnb, tmp_path, case):
    saved("theirs")
    change, words = (REFUSED | SIZES_REFUSED)[case]
    change(tmp_path / "theirs")
    done = mhcnb("import", "llama", "theirs", "ours")
    assert done.exit_code == 2, done.exception
    assert done.stderr.startswith("CheckpointError: " if case in REFUSED else "ConfigError: ")
    assert words in done.stderr
    assert "theirs" in done.stderr
    assert not (tmp_path / "ours").exists()


def test_a_folder_that_is_not_there(mhcnb):
    assert "nowhere/config.json: no such file" in mhcnb("import", "llama", "nowhere", "ours").stderr
