"""Every command of the guide, 06-rlm and the README's section on language models, runs as it stands there, in its order
and in one folder; only small: two updates of a tiny model, and a run that loads."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from mhcnb import renames
from mhcnb.cli import main
from mhcnb.config import as_dict, flatten, load_config, parse_overrides
from mhcnb.connections.residual import ResidualConfig
from mhcnb.data.tokenizer import train_tokenizer
from mhcnb.interop.llama import our_names
from mhcnb.models.rlm import RLM, RLMConfig
from mhcnb.run import Run
from mhcnb.training.checkpoint import load_model

ROOT = Path(__file__).parents[1]
HEADING = "## A language model on your own text\n"
D, LAYERS, HEADS, BLOCK, VOCAB = 16, 1, 2, 64, 512
SIZES = {"model.width": D, "model.layers": LAYERS, "model.heads": HEADS, "model.block_size": BLOCK}
BRIEF = {"train.micro_batch": 2, "train.accumulation": 1, "train.warmup": 1, "train.eval_every": 2}
BRIEF |= {"train.eval_batches": 1}
TABLE = {rename.theirs: rename.ours for rename in renames.of_model("rlm")}


def notebook():
    """The words of 06-rlm."""
    cells = nbformat.read(ROOT / "notebooks" / "06-rlm.ipynb", as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def readme():
    """Its section on language models."""
    return (ROOT / "README.md").read_text().split(HEADING)[1].split("\n## ")[0]


TEXTS = {"06-rlm": notebook, "README": readme}


def steps(text):
    """(kind, source) of each fenced block, those of bash a line each, in order."""
    for kind, source in re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        lines = source.replace("\\\n", "").splitlines() if kind == "bash" else [source]
        yield from ((kind, line) for line in lines if line.strip())


# what the guide finds in the folder -----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project with texts, a Llama folder and a nanoGPT file, where the commands run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MHCNB_CACHE", str(tmp_path / "cache"))
    for name in ("params", "notebooks"):
        (tmp_path / name).symlink_to(ROOT / name)
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghij"), rng.integers(2, 9))) for _ in range(300)]
    texts = ["Once upon a time " + " ".join(rng.choice(words, 300)) for _ in range(60)]
    jsonl(Path("corpus.jsonl"), texts)
    jsonl(Path("tuning.jsonl"), texts[:20])
    Path("prompt.txt").write_text("Once upon\n")
    llama(Path("llama-folder"), texts)
    torch.save(nanogpt(), "ckpt.pt")
    Path("data/openwebtext").mkdir(parents=True)
    for split in ("train", "val"):
        rng.integers(0, VOCAB, 4000).astype("<u2").tofile(f"data/openwebtext/{split}.bin")
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=lambda name, split: Hub(texts)))
    return tmp_path


def jsonl(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


class Hub(list):
    """Stands for a data set of the hub: `to_json` of the datasets library writes an object a line."""

    def to_json(self, path):
        jsonl(Path(path), self)


def llama(path, texts):
    """A folder as transformers saves a Llama."""
    path.mkdir()
    config = RLMConfig(width=D, layers=LAYERS, heads=HEADS, vocab_size=VOCAB, block_size=BLOCK)
    state = RLM(config, ResidualConfig(), torch.Generator().manual_seed(0)).state_dict()
    save_file({theirs: state[ours] for theirs, ours in our_names(config).items()}, path / "model.safetensors")
    sizes = dict(hidden_size=D, num_hidden_layers=LAYERS, num_attention_heads=HEADS, vocab_size=VOCAB)
    sizes |= dict(max_position_embeddings=BLOCK, intermediate_size=config.sizes.ffn_dim, rms_norm_eps=1e-6)
    stored = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu"} | sizes
    (path / "config.json").write_text(json.dumps(stored))
    train_tokenizer(texts, 400).save(path / "tokenizer.json")


def nanogpt():
    """What nanoGPT's train.py saves."""
    shapes = {"ln_1": (D,), "attn.c_attn": (3 * D, D), "attn.c_proj": (D, D), "ln_2": (D,)}
    shapes |= {"mlp.c_fc": (4 * D, D), "mlp.c_proj": (D, 4 * D)}
    shapes = {f"h.{i}.{name}": shape for i in range(LAYERS) for name, shape in shapes.items()}
    shapes |= {"wte": (VOCAB, D), "wpe": (BLOCK, D), "ln_f": (D,)}
    model = {f"transformer.{name}.weight": torch.ones(shape) / 50 for name, shape in shapes.items()}
    model["lm_head.weight"] = model["transformer.wte.weight"]
    args = dict(n_layer=LAYERS, n_head=HEADS, n_embd=D, block_size=BLOCK, vocab_size=VOCAB, bias=False, dropout=0.0)
    return {"model": model, "model_args": args, "iter_num": 100, "config": {}}


# running it -----------------------------------------------------------------------------------------------------------


def gone_on_with(words):
    """The run that a command goes on with, or None."""
    named = [word.partition("=")[2] for word in words if word.startswith("+resume_from_checkpoint=")]
    return named[0] if named else words[words.index("--resume") + 1] if "--resume" in words else None


def smaller(words):
    """A training with the sizes above and two updates more, each setting under the name that it has there."""
    begun = gone_on_with(words)
    small = {"train.steps": (Run(begun).status()["step"] if begun else 0) + 2}
    small |= SIZES | BRIEF if "--resume" not in words else {}
    given = {TABLE.get(key := word.partition("=")[0], key): key for word in words if "=" in word}
    kept = [word for word in words if TABLE.get(key := word.partition("=")[0], key) not in small]
    return kept + [f"{given.get(key, key)}={value}" for key, value in small.items()]


def command(line):
    """Runs it, and reads the run that it leaves."""
    words = shlex.split(line, comments=True)
    words, text = (words[:-2], Path(words[-1]).read_text()) if "<" in words else (words, None)
    at = words.index("mhcnb")
    launcher, words = words[:at], words[at + 1 :]
    if words[0] == "train":
        words = smaller(words)
    elif words[0] == "plan":
        words = [*words, *(f"{key}={value}" for key, value in SIZES.items()), "--no-measure"]
    if launcher:
        on_two_ranks(launcher, words)
    else:
        done = CliRunner().invoke(main, words, input=text, catch_exceptions=False)
        assert done.exit_code == 0, f"{line}\n{done.output}"
    if words[0] == "train":
        trained(words)
    elif words[0] == "import":
        load_model(words[3])


def on_two_ranks(launcher, words):
    assert launcher[0] == "torchrun"
    options = [re.sub(r"(nproc_per_node)=\d+", r"\1=2", word) for word in launcher[1:]]
    started = [sys.executable, "-m", "torch.distributed.run", *options, "mhcnb", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(started, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Run(words[words.index("--out") + 1]).summary()["world_size"] == 2


def trained(words):
    """As many updates as asked for, and a checkpoint of them that loads."""
    run = Run(gone_on_with(words) or words[words.index("--out") + 1])
    (asked,) = [int(word.partition("=")[2]) for word in words if re.match(r"train\.steps=|training\.max_steps=", word)]
    assert (run.status()["state"], run.status()["step"]) == ("done", asked)
    assert run.last_checkpoint().name == f"step-{asked:08d}"
    load_model(run.path)


@pytest.mark.parametrize("text", TEXTS)
def test_every_command_runs_and_leaves_what_the_next_one_needs(folder, text):
    space, kinds = {}, []
    for kind, source in steps(TEXTS[text]()):
        kinds.append(kind)
        if kind == "python":
            exec(source, space)  # noqa: S102
        else:
            command(source)
    assert kinds.count("bash") >= 8
    assert kinds.count("python") >= 1


def test_every_setting_and_notebook_that_is_named_in_passing_exists():
    known = set(flatten(as_dict(load_config(ROOT / "params/rlm/tiny.yaml")))) | set(TABLE)
    words = re.findall(r"`([a-z]+\.[a-z_.]+)(=[^`\s]+)?`", notebook() + readme())
    sections = {key.split(".")[0] for key in known}
    named = [(key, value) for key, value in words if key.split(".")[0] in sections]
    assert len(named) > 25
    assert {key for key, _ in named} <= known
    books = set(re.findall(r"`(0\d-[a-z-]+)`", notebook() + readme()))
    assert books <= {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    for key, value in named:
        if value:
            load_config(ROOT / "params/rlm/tiny.yaml", parse_overrides([key + value]))
