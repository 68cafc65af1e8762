"""A run writes: what comes out is what its model generates, decoded; what cannot be done is said in words."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn

from mhcnb.cli import main
from mhcnb.data.prepare import prepare
from mhcnb.data.recipe import Recipe
from mhcnb.data.tokenizer import Codec, train_tokenizer
from mhcnb.errors import ConfigError
from mhcnb.models.base import Model, Output
from mhcnb.models.generation import generate
from mhcnb.notebook.writer import Writer
from mhcnb.run import Run
from mhcnb.training.checkpoint import load_model
from mhcnb.training.loop import train

BLOCK = 48
PROMPT = "Grüße, "


class Scripted(Model):
    """Goes on with the ids of `script`, whatever comes before."""

    decodes = True

    def __init__(self, script, block_size=1000):
        super().__init__()
        self.script, self.place = script, nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(block_size=block_size, vocab_size=max(script) + 1)

    def forward(self, batch, carry=None, *, cache=None, loops=None):
        cache.advance(batch["inputs"].shape[1])
        after = F.one_hot(torch.tensor([[self.script[cache.length]]]), self.config.vocab_size).float()
        return Output(1e4 * after, lambda hidden: hidden, {}, None)


def scripted(codec, prompt, rest, **given):
    """A writer whose model goes on with `rest` after `prompt` and then ends the document."""
    return Writer(Scripted([*codec.encode(prompt), *codec.encode(rest), codec.mark], **given), codec)


def test_each_token_gives_a_piece_and_characters_come_whole():
    codec, rest = train_tokenizer(["Grüße, Wörld!"], 260), "Wörld, 水滴石穿 end"
    writing = scripted(codec, PROMPT, rest).write(PROMPT, 100)
    pieces = list(writing)
    assert "".join(pieces) == rest
    assert len(pieces) == writing.count == len(codec.encode(rest))
    assert all("\ufffd" not in piece for piece in pieces)
    assert "水" in pieces


def test_the_space_before_a_word_is_kept_where_it_belongs_to_the_token():
    """A tokenizer as Llama's: alone, `▁world` would be `world`."""
    vocab = {"<unk>": 0, "</s>": 1, "▁Hello": 2, "▁world": 3}
    tokenizer = Tokenizer(models.WordLevel(vocab, "<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    assert list(scripted(Codec(tokenizer, 1), "Hello", "world world").write("Hello", 10)) == [" world", " world"]


def test_the_words_say_why_it_ended():
    codec = train_tokenizer(["abc"], 257)
    writer = scripted(codec, "ab", "cabcabc", block_size=6)
    assert writer.codec.encode("ab") == codec.encode("a") + codec.encode("b")
    said = {}
    for name, tokens, cut in (("full", 50, 99), ("asked", 3, 99), ("stopped", 50, 2)):
        writing = writer.write("ab", tokens)
        for _ in writing:
            writing.stopped = writing.count == cut
        said[name] = writing.words()
    whole = scripted(codec, "ab", "cab").write("ab", 50)
    assert "".join(whole) == "cab"
    assert said["full"].startswith("4 tokens, ")
    assert said["full"].endswith("a second; with the prompt that fills model.block_size")
    assert (said["asked"][:8], said["stopped"][:8]) == ("3 tokens", "2 tokens")
    assert said["asked"].endswith("; as many as asked for")
    assert said["stopped"].endswith("; stopped")
    assert whole.words().endswith("; the document ends here")


# the command ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    (folder / "text.txt").write_text("<|endoftext|>".join(f"Grüße, Wörld {i}! 水滴石穿 " * 9 for i in range(40)))
    prepare([folder / "text.txt"], folder / "data", Recipe(vocab=280))
    return folder / "data"


@pytest.fixture
def run(data, small, tmp_path):
    """A run of an rlm on that text."""
    given = {"model.name": "rlm", "model.block_size": BLOCK, "model.vocab_size": "auto", "train.lr": 0.02}
    train(small(**given, **{"data.root": str(data)}), tmp_path / "run")
    return Run(tmp_path / "run")


def mhcnb(*args, **given):
    return CliRunner().invoke(main, ["generate", *map(str, args)], **given)


CHOICES = {"greedy": {"temperature": 0}, "drawn": {"temperature": 0.9, "top-p": 0.8, "top-k": 30, "seed": 3}}


def test_the_command_writes_the_prompt_and_what_generate_gives(run):
    codec, (model, _) = Writer.open(run.path).codec, load_model(run.path)
    for choice in CHOICES.values():
        done = mhcnb(run.path, "--prompt", PROMPT, "--tokens", 20, *(f"--{k}={v}" for k, v in choice.items()))
        assert done.exit_code == 0, done.output
        values = {key.replace("-", "_"): value for key, value in choice.items() if key != "seed"}
        generator = torch.Generator().manual_seed(choice.get("seed", 0))
        (ids,) = generate(model, [codec.encode(PROMPT)], 20, eos=codec.mark, generator=generator, **values)
        whole = codec.decode(ids[ids != codec.mark].tolist())
        assert done.stdout.removesuffix("\n") == whole.rstrip("\ufffd")  # half a character is not written
        assert " tokens, " in done.stderr


def test_a_prompt_comes_through_stdin_and_checkpoints_and_saved_weights_write_too(run, tmp_path):
    expected = mhcnb(run.path, "--prompt", PROMPT, "--tokens", 5, "--temperature", 0)
    piped = mhcnb(run.path, "--prompt", "-", "--tokens", 5, "--temperature", 0, input=PROMPT.encode())
    assert (piped.exit_code, piped.stdout) == (0, expected.stdout)
    assert mhcnb(run.last_checkpoint(), "--prompt", PROMPT, "--tokens=5", "--temperature=0").stdout == expected.stdout


WRONG = {  # arguments, stdin -> what is said
    "empty": (["--prompt", ""], None, "DataError: the prompt is empty; give the beginning of a text"),
    "too long": (["--prompt", "Grüße, " * 40], None, "tokens; model.block_size is 48, so shorten it"),
    "not text": (["--prompt", "-"], b"ab\xffc", "DataError: the prompt is not UTF-8 text: character 2"),
    "heat": (["--prompt", "a", "--temperature", "-1"], None, "ConfigError: temperature = -1.0; expected 0 "),
    "share": (["--prompt", "a", "--top-p", "0"], None, "ConfigError: top_p = 0.0; expected a share"),
    "choices": (["--prompt", "a", "--top-k", "-2"], None, "ConfigError: top_k = -2; expected a number"),
    "tokenizer": (["--prompt", "a", "--tokenizer", "none.json"], None, "DataError: none.json: no such file"),
}


def test_what_cannot_be_written_is_said_and_nothing_is_written(run):
    for name, (options, stdin, says) in WRONG.items():
        done = mhcnb(run.path, *options, input=stdin)
        assert (done.exit_code, done.stdout) == (2, ""), name
        assert says in done.stderr, name


def test_a_run_without_a_tokenizer_takes_one_that_is_named(run, small, data, tmp_path):
    train(small(), tmp_path / "bare")
    done = mhcnb(tmp_path / "bare", "--prompt", "a")
    assert done.exit_code == 2
    assert "DataError: " in done.stderr
    assert "no tokenizer.json in it" in done.stderr
    for path in (run.path / "tokenizer.json", run.path / "env.json"):
        path.unlink()
    assert mhcnb(run.path, "--prompt", PROMPT).exit_code == 2
    assert mhcnb(run.path, "--prompt", PROMPT, "--tokenizer", data / "tokenizer.json").exit_code == 0


def test_what_is_no_run_or_no_language_model_is_refused(run, tmp_path, monkeypatch):
    assert "RunError: " in mhcnb(tmp_path / "none", "--prompt", "a").stderr
    monkeypatch.setattr("mhcnb.models.rlm.RLM.decodes", False)
    with pytest.raises(ConfigError, match=r"its rlm .* does not write text; give a run of a language model"):
        Writer.open(run.path)
