"""Rows 25-33 and 36: what a YAML file, an override and the numbers in them can get wrong."""

from pathlib import Path

import pytest

from mhcnb import load_config
from mhcnb.errors import ConfigError

TINY = Path(__file__).parents[2] / "params" / "gpt" / "tiny.yaml"
MINE = """\
preset: mine
seed: 1
connection: {name: mhc}
model: {name: gpt, width: 16, layers: 1, heads: 2, block_size: 8, vocab_size: 64}
data: {name: shards, root: embedded}
objective: {name: lm}
train:
  steps: 6
  lr: 0.002
"""

FILES = {  # a piece of that text, what takes its place -> the line, and what is wrong with it
    "row25 a section": ("seed: 1", "sede: 1", "2: unknown key sede; did you mean seed? known: connection, data, log"),
    "row25 a key": ("  steps", "  stesp", "8: unknown key train.stesp; did you mean steps? known: accumulation, betas"),
    "row26 a word": ("0.002", "fast", "9: train.lr = 'fast' (str); expected a valid number"),
    "row26 a quoted number": ("0.002", "'1e-3'", "9: train.lr = '1e-3' (str); expected a valid number"),
    "row27 a section": ("objective:", "seed: 2\nobjective:", "6: 'seed' stands twice, first on line 2"),
    "row27 a key": ("  lr", "  steps: 7\n  lr", "9: 'steps' stands twice, first on line 8"),
    "row28 an object": ("1", "!!python/object/apply:os.system [ls]", "2: the tag 'tag:yaml.org,2002:python/object"),
    "row28 a tag": ("seed: 1", "seed: !mine 1", "2: the tag '!mine' is not supported; plain values only"),
    "row28 a list": (MINE, "- 1\n", "1: expected a mapping (key: value), got list"),
    "row28 words": (MINE, "just words\n", "1: expected a mapping (key: value), got str"),
    "row28 nothing": (MINE, "", "1: expected a mapping (key: value), got NoneType"),
}


@pytest.mark.parametrize(("old", "new", "says"), FILES.values(), ids=FILES)
def test_a_file(refused, tmp_path, old, new, says):
    (tmp_path / "mine.yaml").write_text(MINE.replace(old, new, 1))
    refused(ConfigError, "train", "mine.yaml", "--out", "run", says=[f"mine.yaml:{says}"])


def test_row26_a_number_in_scientific_notation_is_a_number(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(MINE.replace("0.002", "1e-3"))
    assert load_config(path).train.lr == 1e-3
    assert load_config(path, {"train.lr": 1}).train.lr == 1.0


NUMBER, WHOLE = "expected a valid number", "expected a valid integer"
OVERRIDES = {  # override -> what is said
    "row25 train.wramup=3": "override: unknown key train.wramup; did you mean warmup? known: ",
    "row25 trian.steps=3": "override: unknown key trian; did you mean train? known: connection, data, log, model",
    "row25 connection.stream=3": "override: unknown key connection.stream; did you mean streams? known: ",
    "row25 model.dim=3": "override: unknown key model.dim; known: ",
    "row26 train.lr=true": f"override: train.lr = True (bool); {NUMBER}",
    "row26 train.steps=true": f"override: train.steps = True (bool); {WHOLE}",
    "row26 train.steps=1.5": f"override: train.steps = 1.5 (float); {WHOLE}",
    "row26 train.steps=2.0": f"override: train.steps = 2.0 (float); {WHOLE}",
    "row26 train.steps='10'": f"override: train.steps = '10' (str); {WHOLE}",
    "row26 train.steps=": f"override: train.steps = None (NoneType); {WHOLE}",
    "row26 train.compile=1": "override: train.compile = 1 (int); expected a valid boolean",
    "row26 train.betas=[0.9]": "override: train.betas.1 is missing",
    "row26 train.betas=0.9": "override: train.betas = 0.9 (float); expected a valid tuple",
    "row26 train.dtype=fp8": "override: train.dtype = 'fp8' (str); expected 'auto', 'float32', 'bfloat16' or 'float16'",
    "row26 model.bias='no'": "override: model.bias = 'no' (str); expected a valid boolean",
    "row26 model.vocab_size=big": "override: model.vocab_size = 'big' (str)",
    "row26 model.vocab_size=true": "override: model.vocab_size = True (bool)",
    "row26 connection.dialect=papre": (
        "override: connection.dialect = 'papre' (str); expected 'paper', 'mhc_lite' or 'deepseek_v4'"
    ),
    "row26 connection.dialect=[paper]": "override: connection.dialect = ['paper'] (list)",
    "row26 connection.streams=4.0": f"override: connection.streams = 4.0 (float); {WHOLE}",
    "row26 train=3": "override: train = 3 (int); expected",
    "row26 connection=3": "override: connection = 3 (int); expected",
    "row26 seed=true": f"override: seed = True (bool); {WHOLE}",
    "row27 seed=1 seed=2": "seed is given twice: 1 and '2'",
    "row28 seed=!!python/object/apply:os.system [ls]": "the tag 'tag:yaml.org,2002:python/object",
    "row29 train.steps=0": "override: train.steps: give steps, the number of updates, 1 or more, or epochs in their",
    "row29 train.steps=-1": "override: train.steps = -1 (int); expected greater than or equal to 0",
    "row29 train.epochs=-1": "override: train.epochs = -1 (int); expected greater than or equal to 0",
    "row29 train.epochs=2": "train.epochs = 2: data shards have no epochs; give train.steps, a number of updates, in",
    "row29 train.micro_batch=0": "override: train.micro_batch = 0 (int); expected greater than 0",
    "row29 train.accumulation=0": "override: train.accumulation = 0 (int); expected greater than 0",
    "row29 train.lr=0.0": "override: train.lr = 0.0 (float); expected greater than 0",
    "row29 train.lr=-1e-3": "override: train.lr = -0.001 (float); expected greater than 0",
    "row29 train.lr=.nan": "override: train.lr = nan (float); expected a finite number",
    "row29 train.lr=.inf": "override: train.lr = inf (float); expected a finite number",
    "row29 train.min_lr=-1.0": "override: train.min_lr = -1.0 (float); expected greater than or equal to 0",
    "row29 train.warmup=-1": "override: train.warmup = -1 (int); expected greater than or equal to 0",
    "row29 train.weight_decay=-0.1": "override: train.weight_decay = -0.1 (float); expected greater than or equal to 0",
    "row29 train.clip=-1.0": "override: train.clip = -1.0 (float); expected greater than or equal to 0",
    "row29 train.betas=[0.9, 1.0]": "override: train.betas: both must lie in [0, 1), got (0.9, 1.0)",
    "row29 train.betas=[-0.1, 0.9]": "override: train.betas: both must lie in [0, 1), got (-0.1, 0.9)",
    "row29 train.betas=[.nan, 0.9]": "override: train.betas.0 = nan (float); expected a finite number",
    "row29 train.eval_every=-1": "override: train.eval_every = -1 (int); expected greater than or equal to 0",
    "row29 train.eval_every=0": "train.eval_every = 0 is after each iteration of the data, and data shards have none",
    "row29 train.eval_batches=0": "override: train.eval_batches = 0 (int); expected greater than 0",
    "row29 train.keep_last=1": "override: train.keep_last = 1 (int); expected greater than or equal to 2",
    "row29 train.save_minutes=-1": "override: train.save_minutes = -1 (int); expected greater than or equal to 0",
    "row29 train.timeout_s=0": "override: train.timeout_s = 0 (int); expected greater than 0",
    "row29 log.every=0": "override: log.every = 0 (int); expected greater than 0",
    "row29 seed=-1": "override: seed = -1 (int); expected greater than or equal to 0",
    "row29 seed=9223372036854775808": "override: seed = 9223372036854775808 (int); expected less than",
    "row29 model.layers=0": "override: model.layers = 0 (int); expected greater than 0",
    "row29 model.dropout=1.0": "override: model.dropout = 1.0 (float); expected less than 1",
    "row29 model.dropout=-0.5": "override: model.dropout = -0.5 (float); expected greater than or equal to 0",
    "row29 model.vocab_size=0": "override: model.vocab_size = 0 (int); expected greater than 0",
    "row29 connection.norm_eps=0.0": "override: connection.norm_eps = 0.0 (float); expected greater than 0",
    "row29 connection.iterations=0": "override: connection.iterations = 0 (int); expected greater than 0",
    "row29 connection.eps=-1e-6": "override: connection.eps = -1e-06 (float); expected greater than or equal to 0",
    "row30 model.heads=5": "model: width 128 is not divisible by heads 5; nearest widths: 125 and 130",
    "row30 model.width=2": "model: width 2 is not divisible by heads 4; nearest widths: 4 and 4",
    "row31 connection.streams=0": "override: connection.streams = 0 (int); expected greater than or equal to 1",
    "row31 connection.streams=1": "connection.streams: at least 2 streams; 1 is the connection residual",
    "row31 connection.name=residual connection.streams=1": "unknown key connection.streams",
    "row31 connection.name=kromhc connection.streams=6": "streams must be a power of two, got 6; nearest: 4 and 8",
    "row32 connection.name=mhc_lite connection.streams=7": (
        "at most 6 streams: n! = 5040 permutations at n = 7, +27 M parameters per sublayer at width 768; use mhc"
    ),
    "row33 connection.name=mhclite": "no connection is called 'mhclite'; did you mean mhc_lite? known: average, hc",
    "row33 connection.name=3": "connection.name is missing or not a name; known: average, hc, identity",
    "row33 model.name=gtp": "no model is called 'gtp'; did you mean gpt? known: gpt",
    "row33 data.name=shard": "no data is called 'shard'; did you mean shards? known: ",
    "row33 objective.name=ml": "no objective is called 'ml'; known: act, lm",
}


@pytest.mark.parametrize("case", OVERRIDES)
def test_an_override(refused, case):
    words = case.partition(" ")[2]
    overrides = [words] if "]" in words else words.split(" ")
    refused(ConfigError, "train", TINY, *overrides, "--out", "run", says=[OVERRIDES[case]])


def test_row32_six_streams_are_allowed():
    config = load_config(TINY, {"connection.name": "mhc_lite", "connection.streams": 6})
    assert config.connection.streams == 6


def test_row36_what_is_hardly_meant_is_told_and_done(mhcnb, params, caplog):
    unwise = ["train.steps=2", "train.warmup=3", "train.eval_every=4", "train.lr=1e-3", "train.min_lr=1e-2"]
    unwise += ["train.recompute_group=3"]
    done = mhcnb("train", params(), *unwise, "--out", "run")
    assert done.exit_code == 0, done.stderr
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "train.warmup 3 > train.steps 2: the rate stays on its ramp",
        "train.eval_every 4 > train.steps 2: evaluated at start and end only",
        "train.min_lr 0.01 > train.lr 0.001: the rate rises after the warm-up",
        "train.recompute_group 3 groups nothing: train.recompute=none",
    ]
    caplog.clear()
    assert mhcnb("train", params(), "train.steps=2", "train.eval_every=2", "--out", "wise").exit_code == 0
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
