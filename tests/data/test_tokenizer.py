"""Tokenizers from files, folders, ids and runs: what they are asked for is what they give, and their mark is known."""

import json

import pytest

from mhcnb.data.tokenizer import END, Codec, open_tokenizer, run_tokenizer, train_tokenizer
from mhcnb.errors import DataError

TEXT = ["the tokenizer of a run says which text its ids mean, ünd alſo «what» 🙂 means"] * 3


@pytest.fixture(scope="module")
def codec():
    return train_tokenizer(TEXT, 300)


def words(*tokens):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(("?", *tokens))}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def test_text_comes_back_and_so_does_a_stream_of_it(codec):
    ids = codec.encode(TEXT[0])
    assert (codec.decode(ids), max(ids) < codec.size) == (TEXT[0], True)
    steps = list(codec.stream(ids))
    assert ("".join(steps), len(steps)) == (TEXT[0], len(ids))
    assert all("\ufffd" not in step for step in steps)


def test_a_mark_that_is_spelled_out_in_a_text_is_text(codec):
    assert codec.mark not in codec.encode(f"what {END} means")
    assert codec.decode(codec.encode(END)) == END
    assert codec.decode([codec.mark]) == END


def test_a_file_and_the_folder_that_holds_it_are_the_same_tokenizer(codec, tmp_path):
    codec.save(tmp_path / "tokenizer.json")
    for name in (tmp_path, tmp_path / "tokenizer.json", str(tmp_path)):
        found = open_tokenizer(name)
        assert (found.digest, found.mark, found.encode(TEXT[0])) == (codec.digest, codec.mark, codec.encode(TEXT[0]))


def test_the_digest_is_that_of_what_ids_mean(codec, tmp_path):
    """Not of how the file is written."""
    written = json.loads(codec.tokenizer.to_str())
    (tmp_path / "a.json").write_text(json.dumps(written | {"truncation": None}, indent=7))
    assert open_tokenizer(tmp_path / "a.json").digest == codec.digest
    assert train_tokenizer(TEXT, 299).digest != codec.digest


@pytest.mark.parametrize(
    ("tokens", "config", "mark"),
    [
        ((END, "</s>"), {"eos_token": "</s>"}, END),
        (("</s>", "stop"), {"eos_token": "stop"}, "stop"),
        (("</s>", "stop"), {"eos_token": {"content": "stop"}}, "stop"),
        (("</s>", "stop"), {"eos_token": "gone"}, "</s>"),
        (("<eos>",), None, "<eos>"),
        (("a", "b"), None, END),  # added
    ],
)
def test_the_mark_is_what_the_tokenizer_calls_the_end_of_a_text(tmp_path, tokens, config, mark):
    words(*tokens).save(str(tmp_path / "tokenizer.json"))
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    found = open_tokenizer(tmp_path)
    assert found.tokenizer.id_to_token(found.mark) == mark
    assert found.size == len(tokens) + 1 + (mark not in tokens)


def test_a_folder_of_transformers_without_a_tokenizer_json(tmp_path):
    """GPT-2's older files: vocab.json and merges.txt."""
    transformers = pytest.importorskip("transformers")
    trained = json.loads(train_tokenizer(TEXT, 300).tokenizer.to_str())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(trained["vocab"]))
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in trained["merges"]]
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = open_tokenizer(tmp_path)
    assert ours.encode(TEXT[0]) == theirs.encode(TEXT[0])
    assert ours.mark == theirs.eos_token_id


def test_an_id_without_a_connection_is_refused_in_words(monkeypatch, tmp_path):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    says = r"owner/none is no file or folder here, so it was taken for an id; .*Without a connection give a tokenizer"
    with pytest.raises(DataError, match=says):
        open_tokenizer("owner/none")


@pytest.mark.parametrize("name", ["none.json", "./none", "a/b/c", "/none"])
def test_what_cannot_be_an_id_is_no_file(name):
    with pytest.raises(DataError, match=f"{name}: no such file; expected a tokenizer.json"):
        open_tokenizer(name)


def test_a_file_that_is_none(tmp_path):
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"a\.json: not a tokenizer\.json of the tokenizers library"):
        open_tokenizer(tmp_path / "a.json")


def test_the_tokenizer_of_a_run(codec, tmp_path):
    """Its own copy, else the one that its env.json names; the mark is that of its data."""
    run = tmp_path / "run"
    (run / "checkpoints" / "step-00000001").mkdir(parents=True)
    codec.save(tmp_path / "named.json")
    data = {"tokenizer": str(tmp_path / "named.json"), "end_of_text": 7}
    (run / "env.json").write_text(json.dumps({"data": data}))
    for folder in (run, run / "checkpoints" / "step-00000001"):
        assert run_tokenizer(folder)[1:] == Codec(codec.tokenizer, 7)[1:]
    words("a").save(str(run / "tokenizer.json"))
    assert run_tokenizer(run).size == 3
    (run / "tokenizer.json").unlink()
    (tmp_path / "named.json").unlink()
    with pytest.raises(DataError, match=r"run: no tokenizer\.json in it, and its data name .*named\.json"):
        run_tokenizer(run)
