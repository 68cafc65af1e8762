"""The source: the original's order and padding, and batches that are functions of (seed, step, row) alone; and the
commands that make and check puzzles."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mhcnb.cli import main
from mhcnb.config import load_config
from mhcnb.data.puzzles import prepare
from mhcnb.data.puzzles.generate import Kind, generate
from mhcnb.data.puzzles.table import write_csv
from mhcnb.data.sudoku import Sudoku
from mhcnb.errors import ConfigError, DataError
from mhcnb.objectives.base import Clock

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "hrm" / "augment_data.npz"
FIELDS = ("inputs", "labels", "puzzle_indices", "group_indices", "puzzle_identifiers")
TINY = {"size": 4, "train": 30, "test": 10, "augmentations": 0}


@pytest.fixture
def config(tmp_path):
    """config(**overrides of data.*): a preset of HRM on generated 4 x 4 puzzles, kept in the test's folder."""

    def make(batch=4, **data):
        given = {"cache": str(tmp_path / "cache"), **TINY, **data}
        overrides = {f"data.{key}": value for key, value in given.items()}
        return load_config(
            ROOT / "params/hrm/tiny4x4.yaml", overrides | {"train.micro_batch": batch, "train.accumulation": 1}
        )

    return make


@pytest.fixture
def opened(config):
    """opened(...): the source of such a configuration, checked."""

    def make(*args, **data):
        asked = config(*args, **data)
        source = Sudoku(asked)
        source.check(asked)
        return source

    return make


@pytest.fixture
def original(tmp_path):
    """The folder that the original built, int64 as it writes augmented puzzles."""
    z = np.load(GOLDEN, allow_pickle=False)
    for split in ("train", "test"):
        folder = tmp_path / "original" / split
        folder.mkdir(parents=True)
        (folder / "dataset.json").write_text(str(z[f"build_{split}_json"]))
        for field in FIELDS:
            array = z[f"build_{split}_{field}"]
            np.save(folder / f"all__{field}.npy", array.astype(np.int64) if field in ("inputs", "labels") else array)
    return tmp_path / "original", z


def test_the_order_and_the_ranks_of_the_original(opened, original):
    folder, z = original
    source = opened(4, size=9, root=str(folder), epochs_per_iteration=3)
    assert source.sizes == {"vocab_size": 11, "seq_len": 81, "puzzles": 1}
    assert (source.epoch_rows, source.updates_per_iteration) == (5, 3)  # 15 draws in fours: the last three are dropped
    for iteration in range(2):
        rows = z[f"batch_train_iter{iteration}_rows"]
        for update in range(3):
            batch = source.train_batch(Clock(0, 1 + 3 * iteration + update), 0, 4)
            assert np.array_equal(batch["inputs"], z["build_train_inputs"][rows[update]])
            assert np.array_equal(batch["labels"], z["build_train_labels"][rows[update]])
    for rank in range(2):
        for update, rows in enumerate(z[f"batch_train_rank{rank}of2_rows"]):
            batch = source.train_batch(Clock(0, 1 + update), 2 * rank, 2)
            assert np.array_equal(batch["inputs"], z["build_train_inputs"][rows])


def test_the_test_batches_of_the_original_are_padded(opened, original):
    folder, z = original
    source = opened(4, size=9, root=str(folder))
    for i in range(2):
        batch = source.evaluation_batch("val", 4 * i, 4, 8)
        for field in ("inputs", "labels", "puzzle_identifiers"):
            assert np.array_equal(batch[field], z[f"batch_test{i}_{field}"])
            assert batch[field].dtype == source.train_batch(Clock(0, 1), 0, 1)[field].dtype
        assert (batch["labels"] >= 0).any(1).sum() == z[f"batch_test{i}_count"]
    assert (source.evaluation_batch("val", 0, 4, 3)["labels"] >= 0).any(1).tolist() == [True] * 3 + [False]


def test_training_is_evaluated_on_the_originals(opened, original):
    folder, z = original
    batch = opened(4, size=9, root=str(folder)).evaluation_batch("train", 0, 8, 8)
    assert np.array_equal(batch["inputs"][:5], z["build_train_inputs"][::3])
    assert (batch["labels"][5:] == -100).all()


def test_a_batch_is_a_function_of_seed_step_and_row(opened):
    """Seed s is where seed s + 1 was one iteration before, as in the original."""
    source, other = opened(8), opened(8)
    clocks = [Clock(seed, step) for seed in (0, 100) for step in (1, 37, 38, 75, 500)]
    seen = {clock: source.train_batch(clock, 0, 8)["inputs"] for clock in clocks}
    for clock in reversed(clocks):
        halves = [other.train_batch(clock, first, 4)["inputs"] for first in (0, 4)]
        assert np.array_equal(np.concatenate(halves), seen[clock])
    assert len({board.numpy().tobytes() for board in seen.values()}) == len(clocks)
    assert np.array_equal(source.train_batch(Clock(1, 1), 0, 8)["inputs"], seen[Clock(0, 38)])


def test_an_epoch_visits_each_original_once(opened):
    source = opened(6, epochs_per_iteration=2)
    assert source.updates_per_iteration == 10
    for epoch in range(4):  # of two iterations
        rows = [source.train_batch(Clock(0, 5 * epoch + step), 0, 6)["inputs"] for step in range(1, 6)]
        assert len(np.unique(np.concatenate(rows), axis=0)) == 30


def test_generated_puzzles_are_made_once_and_say_how(opened, config, monkeypatch):
    source = opened()
    fingerprint, made = source.fingerprint(), source.describe()["build"]
    assert made["source"]["generated"] == {"size": 4, "clues": [6, 12], "rating": None}
    assert (made["seed"], made["puzzles"]) == (0, {"train": 30, "test": 10})
    assert Sudoku.known_sizes(config().data) == source.sizes == {"vocab_size": 6, "seq_len": 16, "puzzles": 1}
    json.dumps(source.describe())
    monkeypatch.setattr(prepare, "generate", lambda *_: pytest.fail("made again"))
    assert opened().fingerprint() == fingerprint
    monkeypatch.undo()
    assert opened(seed=1).fingerprint() != fingerprint
    assert opened(test=9).fingerprint()["test split"] != fingerprint["test split"]


def test_copies_have_the_same_fingerprint_however_wide(opened, original, tmp_path):
    folder, _ = original
    wide = opened(size=9, root=str(folder)).fingerprint()
    for path in folder.rglob("all__[il]*s.npy"):
        np.save(path, np.load(path, allow_pickle=False).astype(np.uint8))
    assert opened(size=9, root=str(folder)).fingerprint() == wide
    path = folder / "test" / "all__inputs.npy"
    np.save(path, np.load(path, allow_pickle=False)[::-1])
    assert opened(size=9, root=str(folder)).fingerprint() != wide


def test_a_csv_can_be_trained_on_as_it_is(opened, tmp_path):
    train, test = generate(Kind(4, (8, 8)), 20, 5, seed=0)
    write_csv(tmp_path / "train.csv", train)
    write_csv(tmp_path / "test.csv", test)
    source = opened(root=str(tmp_path), train=12, test=None)
    assert (source.epoch_rows, len(source.splits["val"].inputs)) == (12, 5)
    assert np.array_equal(source.evaluation_batch("val", 0, 5, 5)["labels"], test.solutions + 1)
    write_csv(tmp_path / "test.csv", test.take(np.arange(4)))
    assert len(opened(root=str(tmp_path), train=12, test=None).splits["val"].inputs) == 4


@pytest.mark.parametrize("name", ["huggingface", "modelscope"])
def test_a_data_set_on_a_hub_is_fetched_first(request, name, opened, tmp_path):
    hub = request.getfixturevalue(name)
    train, test = generate(Kind(4, (8, 8)), 20, 5, seed=0)
    for split, table in (("train", train), ("test", test)):
        write_csv(tmp_path / "x.csv", table)
        hub.files[f"{split}.csv"] = (tmp_path / "x.csv").read_bytes()
    asked = {"root": "o/n", "hub": name, "train": None, "test": None}
    source = opened(**asked)
    assert np.array_equal(source.evaluation_batch("train", 0, 20, 20)["labels"], train.solutions + 1)
    assert sorted({file for file, _ in hub.asked} - {"tree"}) == ["test.csv", "train.csv"]
    many = len(hub.asked)
    assert opened(**asked).fingerprint() == source.fingerprint()
    assert len(hub.asked) == many
    del hub.files["train.csv"], hub.files["test.csv"]
    with pytest.raises(DataError, match=r"o/n@\w+.*no tables of puzzles.*train\.csv"):
        opened(**asked, cache=str(tmp_path / "another"))


def test_an_iteration_smaller_than_a_batch(opened):
    with pytest.raises(ConfigError, match=r"of 100 rows.*30 puzzles.*give at least data.epochs_per_iteration=4,"):
        opened(100, epochs_per_iteration=3)
    assert opened(100, epochs_per_iteration=4).updates_per_iteration == 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"clues": 3}, "clues 3 to 3: expected 4 to 15 of a grid of size 4, rising"),
        ({"clues": [8, 7]}, "clues 8 to 7"),
        ({"size": 9, "clues": 19}, "clues 19 to 19: expected 20 to 80"),
        ({"rating": [3, 2]}, "expected .fewest, most. backtracks"),
        ({"augmentations": 1}, "would bring test grids back in training"),
        ({"size": 6}, "expected 9 or 4"),
    ],
)
def test_sections_that_make_no_sense(config, wrong, says):
    with pytest.raises(ConfigError, match=f"data.*{says}"):
        config(**wrong)


@pytest.fixture
def mhcnb(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *args: CliRunner().invoke(main, ["data", *map(str, args)])


def test_the_command_makes_puzzles_that_the_check_and_training_take(mhcnb, opened, tmp_path):
    options = ["--size", 9, "--train", 12, "--test", 4, "--clues", "38-40", "--seed", 5, "--num-aug", 2]
    done = mhcnb("sudoku", *options, "--out", "out")
    assert done.output.splitlines() == [
        "12 training puzzles with 2 copies of each, 4 test puzzles",
        "ready: mhcnb train params/hrm/small.yaml data.root=out",
    ]
    found = json.loads(mhcnb("check", "out").stdout)
    same = {"size": 9, "clues": [38, 40], "hardest": 0, "several_solutions": 0, "unknown": 0}
    assert found["train"] == {"rows": 36, "originals": 12, "different": 12, "solution_grids": 12} | same
    assert found["test"]["rows"] == 4
    assert opened(size=9, root=str(tmp_path / "out")).epoch_rows == 12
    again = mhcnb("sudoku", "--csv", "out", "--subsample-size", 6, "--out", "again")
    assert again.output.startswith("6 training puzzles with 0 copies of each, 4 test puzzles")
    refused = mhcnb("sudoku", *options, "--out", "out")
    assert "out already holds something; nothing was changed" in refused.output


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--csv", "a.csv", "--clues", "30"], "are for generated puzzles"),
        (["--min-difficulty", "3"], "goes with --csv"),
        (["--clues", "30-"], "expected a number, as 30, or two, as 22-30"),
        (["--clues", "12"], "mhcnb data sudoku: clues 12 to 12: expected 20 to 80 of a grid of size 9"),
        (["--size", "16"], "'16' is not one of '9', '4'"),
    ],
)
def test_options_that_do_not_go_together(mhcnb, options, says):
    done = mhcnb("sudoku", "--out", "out", *options)
    assert done.exit_code == 2
    assert says in done.output
