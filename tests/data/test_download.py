"""Fetching shards, from servers on 127.0.0.1 that speak the two hubs' protocols."""

import builtins
import resource

import pytest
from click.testing import CliRunner

from mhcnb.cli import main
from mhcnb.data.download import RECORD, download_hub, download_modelscope
from mhcnb.data.shards import Shards
from mhcnb.errors import DataError
from mhcnb.objectives.base import Clock

VAL, TRAIN, SECOND = "fineweb_val_000000.bin", "fineweb_train_000001.bin", "fineweb_train_000002.bin"


@pytest.fixture(params=["modelscope", "huggingface"])
def hub(request):
    """Each hub in turn, with `fetch(out)`."""
    hub = request.getfixturevalue(request.param)
    if request.param == "modelscope":
        hub.fetch = lambda out, dataset="o/n": download_modelscope(dataset, out=out)
    else:
        hub.fetch = lambda out, dataset="o/n": download_hub(dataset, train_shards=2, out=out)
    return hub


def test_all_that_is_asked_for_comes_and_the_second_time_no_server_is_asked(hub, tmp_path):
    out = hub.fetch(tmp_path / "out")
    assert {name: (out / name).read_bytes() for name in (TRAIN, SECOND, VAL)} == {
        name: hub.files[name] for name in (TRAIN, SECOND, VAL)
    }
    assert not (out / "README.md").exists()
    hub.server.shutdown()
    before = list(hub.asked)
    assert hub.fetch(tmp_path / "out") == out
    assert hub.asked == before


def test_a_cut_connection_is_resumed_where_it_was_cut(hub, tmp_path):
    hub.cut = 200_000
    out = hub.fetch(tmp_path / "out")
    assert (out / TRAIN).read_bytes() == hub.files[TRAIN]
    ranges = [asked for name, asked in hub.asked if name == TRAIN]
    assert ranges[0] is None
    assert 0 < int(ranges[1].removeprefix("bytes=").removesuffix("-")) <= 200_000


def test_other_bytes_than_are_listed_are_refused_and_not_kept(hub, tmp_path):
    hub.wrong = {TRAIN}
    with pytest.raises(DataError, match=r"o/n@.*(damaged|wrong size or checksum)"):
        hub.fetch(tmp_path / "out")
    assert not (tmp_path / "out" / TRAIN).exists()
    hub.wrong = set()
    assert (hub.fetch(tmp_path / "out") / TRAIN).read_bytes() == hub.files[TRAIN]


def test_a_file_that_shrank_since_is_fetched_again(hub, tmp_path):
    out = hub.fetch(tmp_path / "out")
    (out / VAL).write_bytes(hub.files[VAL][:-100])
    hub.fetch(out)
    assert (out / VAL).read_bytes() == hub.files[VAL]


def test_a_missing_data_set(hub, tmp_path):
    with pytest.raises(DataError, match=r"o/missing@.*no such data set"):
        hub.fetch(tmp_path / "out", "o/missing")


def test_a_data_set_without_shards_names_what_was_looked_for(hub, tmp_path):
    hub.files = {"README.md": b"# none"}
    with pytest.raises(DataError, match=r"o/n@.*no token shards.*\*train\*\.bin"):
        hub.fetch(tmp_path / "out")


def test_a_full_disk(hub, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        with pytest.raises(DataError, match="disk full"):
            hub.fetch(tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (hub.fetch(tmp_path / "out") / TRAIN).read_bytes() == hub.files[TRAIN]


def test_a_folder_with_other_things_in_it_is_not_touched(hub, tmp_path, on_disk):
    out = tmp_path / "out"
    out.mkdir()
    (out / TRAIN).write_bytes(b"mine")
    before = on_disk(out)
    with pytest.raises(DataError, match="already holds something"):
        hub.fetch(out)
    assert on_disk(out) == before
    assert hub.asked == []


def test_a_folder_of_another_data_set_is_not_touched(hub, tmp_path, on_disk):
    out = hub.fetch(tmp_path / "out")
    before = on_disk(out)
    with pytest.raises(DataError, match=r"holds o/n@.* not o/other@"):
        hub.fetch(out, "o/other")
    assert on_disk(out) == before


def test_no_server(hub, monkeypatch, tmp_path):
    hub.server.shutdown()
    hub.server.server_close()
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(DataError, match=r"o/n@.* the network failed .*data\.root"):
        hub.fetch(tmp_path / "out")


def test_train_shards_are_the_first_ones_and_more_can_follow(huggingface, tmp_path):
    out = download_hub("o/n", train_shards=1, out=tmp_path / "out")
    assert sorted(p.name for p in out.glob("*.bin")) == [TRAIN, VAL]
    download_hub("o/n", train_shards=2, out=out)
    assert sorted(p.name for p in out.glob("*.bin")) == [TRAIN, SECOND, VAL]
    assert [name for name, _ in huggingface.asked].count(TRAIN) == 1
    with pytest.raises(DataError, match="2 training shards; 3"):
        download_hub("o/n", train_shards=3, out=out)


def test_a_shard_that_is_damaged_at_its_source_is_not_kept(huggingface, tmp_path):
    huggingface.files[TRAIN] = huggingface.files[TRAIN][:-10]
    with pytest.raises(DataError, match=r"damaged.*header says 500,000 tokens, file holds 499,995"):
        download_hub("o/n", out=tmp_path / "out")
    assert not (tmp_path / "out" / TRAIN).exists()


def test_without_the_extra_the_error_says_what_to_install(monkeypatch, tmp_path):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "huggingface_hub":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"pip install 'mhcnb\[hub\]'"):
        download_hub("o/n", out=tmp_path / "out")


def test_a_modelscope_id_in_a_training_config_is_fetched_first(modelscope, config, tmp_path):
    source = Shards(config("o/n", vocab_size=50304, train_glob=SECOND))
    assert [name for name, _ in modelscope.asked if name.endswith(".bin")].count(TRAIN) == 0
    assert source.describe()["tokens"] == {"train": 500_000, "val": 5000}
    assert source.train_batch(Clock(0, 0), 0, 2)["inputs"].shape == (2, 8)
    modelscope.server.shutdown()
    assert Shards(config("o/n", vocab_size=50304, train_glob=SECOND)).layout.root == source.layout.root


def test_a_root_that_is_neither_folder_nor_data_set(modelscope, config):
    with pytest.raises(DataError, match=r"data\.root = o/missing is no folder.*no such data set"):
        Shards(config("o/missing"))


def test_the_record_is_plain(modelscope, tmp_path):
    out = download_modelscope("o/n", out=tmp_path / "out", patterns=["*val*.bin"])
    record = (out / RECORD).read_text()
    assert all(word in record for word in ("modelscope", "o/n", "master", VAL, str(len(modelscope.files[VAL]))))


@pytest.mark.parametrize(("server", "option"), [("modelscope", "--modelscope"), ("huggingface", "--hub")])
def test_the_command_fetches_and_says_what_to_do_next(request, server, option, tmp_path):
    request.getfixturevalue(server)
    done = CliRunner().invoke(main, ["data", "download", option, "o/n", "--out", str(tmp_path / "shards")])
    assert done.exit_code == 0, done.output
    assert f"mhcnb train params/gpt/small.yaml data.root={tmp_path / 'shards'}" in done.output
    assert (tmp_path / "shards" / "fineweb_val_000000.bin").is_file()
