"""Commands that no other test runs."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from mhcnb.cli import main
from mhcnb.data.shardfile import ShardWriter


def run(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_doctor_says_what_it_found(tmp_path, monkeypatch, shards):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_ROOT", str(shards))
    done = run("doctor")
    assert done.exit_code == 0, done.output
    for words in ("torch", "devices:", "kernels:", "papermill", "1 train, 1 val shards", "is writable"):
        assert words in done.output


def test_doctor_fails_where_the_data_are_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "nowhere"))
    done = run("doctor")
    assert done.exit_code == 1
    assert "FAIL  data: DATA_ROOT=" in done.output


def test_prepare_then_check_then_the_same_folder_again(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(
        "\n\n".join(f"Line {i}: the quick brown fox jumps over {i * 7919 % 1000} dogs." for i in range(3000))
    )
    done = run("data", "prepare", text, "--out", tmp_path / "data", "--vocab", 300)
    assert done.exit_code == 0, done.output
    assert f"mhcnb train params/gpt/tiny.yaml data.root={tmp_path / 'data'}" in done.output
    found = json.loads(run("data", "check", tmp_path / "data").output)
    assert found["vocab_size"] == 300
    again = run("data", "prepare", text, "--out", tmp_path / "data")
    assert again.exit_code == 2
    assert "DataError" in again.output


def test_check_finds_a_token_outside_the_vocabulary(tmp_path):
    for split, tokens in (("train", [1, 2, 3] * 100), ("val", [1, 900, 2] * 100)):
        with ShardWriter(tmp_path / f"{split}.bin") as writer:
            writer.append(np.array(tokens))
    done = run("data", "check", tmp_path, "--vocab", 500)
    assert done.exit_code == 2
    assert "900" in done.output


@pytest.mark.parametrize("args", [["--hub", "a/b", "--modelscope", "c/d"], ["--files", "*.bin"], ["--cache", "x"]])
def test_download_refuses_options_of_two_sources(args):
    done = run("data", "download", *args)
    assert done.exit_code == 2
    assert "Usage" in done.output


def test_bench_prints_a_table_and_writes_its_figures(tmp_path, monkeypatch):
    monkeypatch.setattr("mhcnb.bench.reader.TOKENS", 200_000)
    done = run("bench", "reader", "--json", tmp_path / "bench.json")
    assert done.exit_code == 0, done.output
    timings = json.loads((tmp_path / "bench.json").read_text())
    assert [t["name"] for t in timings] == ["numpy", "shards"]
    assert all(t["low_s"] <= t["median_s"] <= t["high_s"] for t in timings)
    assert timings[0]["ratio"] == 1


def test_show_of_nothing_is_a_message(tmp_path):
    done = run("show", tmp_path)
    assert done.exit_code == 2
    assert "no run in" in done.output
