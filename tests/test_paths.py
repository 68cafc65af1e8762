import pytest

from mhcnb.paths import find, outputs, project_root


@pytest.fixture
def project(tmp_path):
    for folder in ("params/gpt", "notebooks", "elsewhere/params"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "params/gpt/tiny.yaml").touch()
    return tmp_path


@pytest.mark.parametrize("folder", ["", "notebooks", "params/gpt", "elsewhere/params"])
def test_paths_mean_the_same_from_every_folder_of_the_project(project, folder, monkeypatch):
    monkeypatch.chdir(project / folder)
    assert project_root() == project
    assert find("params/gpt/tiny.yaml") == project / "params/gpt/tiny.yaml"
    assert find("outputs/none") == outputs("outputs/none") == project / "outputs/none"
    assert find(str(project / "x")) == outputs(project / "x") == project / "x"


def test_what_is_here_comes_before_the_project(project, monkeypatch):
    monkeypatch.chdir(project / "notebooks")
    (project / "notebooks/data").mkdir()
    (project / "data").mkdir()
    assert find("data") == project / "notebooks/data"
    assert outputs("data") == project / "data"


def test_outside_a_project_paths_are_those_of_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert find("runs") == outputs("runs") == tmp_path / "runs"
    assert find("~/runs") == outputs("~/runs") == tmp_path / "home/runs"
