"""Every command of the README's section on puzzles runs as it stands there, in its order and in one folder; only two
updates of it, on few puzzles."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from mhcnb.cli import main
from mhcnb.run import Run

ROOT = Path(__file__).parents[1]
HEADING = "## Puzzles by a recurrent model\n"
BRIEF = ["train.steps=2", "train.eval_every=2", "train.eval_batches=1"]
FEW = ["data.train=12", "data.test=8"]


def lines():
    """The commands, without comments."""
    section = (ROOT / "README.md").read_text().split(HEADING)[1].split("\n## ")[0]
    (block,) = re.findall(r"^```bash\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return [shlex.split(line, comments=True) for line in block.splitlines()]


def smaller(words):
    """The command in little; a sweep, whose cells are runs as the others, is planned alone."""
    words = words[: words.index(">")] if ">" in words else words
    words = words[words.index("mhcnb") + 1 :]
    if words[0] == "train":
        made = not any(word.startswith("data_path") for word in words)
        return [word for word in words if not word.startswith("epochs=")] + BRIEF + (FEW if made else [])
    if words[:2] == ["data", "sudoku"]:
        return ["12" if before == "--train" else "8" if before == "--test" else word for before, word in pairs(words)]
    return ["plan", *words[1:], "--no-measure"] if words[0] == "sweep" else words


def pairs(words):
    """(the word before, word)."""
    return zip([None, *words], words, strict=False)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MHCNB_CACHE", str(tmp_path / "cache"))
    for name in ("params", "notebooks"):
        (tmp_path / name).symlink_to(ROOT / name)


def test_every_command_runs_and_leaves_what_the_next_one_needs(folder):
    ran = []
    for words in lines():
        if words[0] == "sbatch":
            assert (ROOT / words[1]).is_file()
            continue
        given = smaller(words)
        done = CliRunner().invoke(main, given, catch_exceptions=False)
        assert done.exit_code == 0, f"{' '.join(words)}\n{done.output}"
        ran.append(given[0])
        if "--out" in given and given[0] == "train":
            assert Run(given[given.index("--out") + 1]).summary()["steps"] == 2
    assert [ran.count(kind) for kind in ("train", "evaluate", "plan", "data")] == [4, 1, 2, 1]
