"""Where shards are found, and what is refused about a set of them."""

import shutil

import pytest

from mhcnb.data.layout import find_files, folder_of
from mhcnb.data.shards import ShardsConfig
from mhcnb.errors import ConfigError, DataError

NAMES = {"train": ["x_train_000001.bin", "x_train_000002.bin"], "val": ["x_val_000000.bin"]}
NONE = {"train": None, "val": None}


def names(found):
    return {split: [path.name for path in paths] for split, paths in found.items()}


@pytest.mark.parametrize("place", ["data/fineweb10B", ".", "sub", "a/b/c"])
def test_shards_are_found_where_users_have_them(folder, tmp_path, place):
    root = tmp_path / "root"
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder, root / place, dirs_exist_ok=True)
    (root / "notes_train.txt").write_text("not tokens")
    assert names(find_files(root, NONE)) == NAMES


def test_the_folder_of_fineweb_goes_before_the_root(folder):
    shutil.copytree(folder, folder / "data" / "fineweb10B")
    assert {path.parent.name for path in find_files(folder, NONE)["train"]} == {"fineweb10B"}


def test_names_of_other_projects(tmp_path):
    for name in ("train.bin", "val.bin", "test.bin"):
        (tmp_path / name).write_bytes(b"1234")
    assert names(find_files(tmp_path, NONE)) == {"train": ["train.bin"], "val": ["val.bin"]}


def test_globs_take_the_place_of_the_names(folder):
    globs = {"train": "x_train_000002.bin", "val": "x_train_000001.bin"}
    assert names(find_files(folder, globs)) == {"train": [globs["train"]], "val": [globs["val"]]}


def test_without_detection_only_the_root_is_looked_at(folder, tmp_path):
    globs = {"train": "*train*.bin", "val": "*val*.bin"}
    assert names(find_files(folder, globs, detect=False)) == NAMES
    with pytest.raises(DataError, match="no file matches"):
        find_files(tmp_path, globs, detect=False)


def test_switching_detection_off_asks_for_both_globs():
    with pytest.raises(ValueError, match="give train_glob and val_glob"):
        ShardsConfig(detect=False, train_glob="a")


@pytest.mark.parametrize("variable", ["DATA_ROOT", "DATA_PATH"])
def test_the_environment_names_the_root(folder, monkeypatch, variable):
    monkeypatch.delenv("DATA_ROOT", raising=False)
    monkeypatch.setenv(variable, str(folder))
    assert folder_of(None) == folder
    assert folder_of(str(folder.parent)) == folder.parent


def test_no_root_at_all(monkeypatch):
    monkeypatch.delenv("DATA_ROOT", raising=False)
    monkeypatch.delenv("DATA_PATH", raising=False)
    with pytest.raises(DataError, match=r"neither DATA_ROOT nor DATA_PATH is set.*data\.root=embedded"):
        folder_of(None)


def test_a_missing_folder_names_the_nearest_and_an_id_is_no_folder(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    with pytest.raises(DataError, match=r"no such folder; nearest: data; folders in .*: data"):
        folder_of("dta")
    (folder / "fineweb").mkdir()
    with pytest.raises(DataError, match="nearest: fineweb"):
        folder_of("data/finewb")
    assert folder_of("owner/name") is None


def test_shards_in_two_folders_are_ambiguous(folder, tmp_path):
    for place in ("one", "two"):
        shutil.copytree(folder, tmp_path / "root" / place)
    with pytest.raises(DataError, match=r"train shards lie in 2 folders: .*one, .*two"):
        find_files(tmp_path / "root", NONE)


def test_the_refusal_comes_as_the_programs_own_error(folder, config):
    with pytest.raises(ConfigError, match="detect: false"):
        config(folder, detect=False)
