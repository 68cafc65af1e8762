"""Rows 15, 41-47, 49 and 53: what cannot be gone on with is refused, and what is damaged is not used."""

import hashlib
import json
import shutil
from collections import namedtuple

import pytest

from mhcnb import durable
from mhcnb.data.shardfile import Shard
from mhcnb.errors import CheckpointError, ConfigError
from mhcnb.models.base import build_model
from mhcnb.training.checkpoint import load_model

FILES = ("config.yaml", "model.safetensors", "optimizer.pt", "state.json")


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def flip(path):
    """One bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# another run ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val"], ids="row15 {}".format)
def test_data_that_have_changed(refused, begun, shards, split):
    path = shards / f"{split}.bin"
    before = Shard(path).digest[:12]
    content = path.read_bytes()
    path.write_bytes(content[:1024] + content[-500:] + content[1024:-500])
    digests = f"digest {before} -> {Shard(path).digest[:12]}; put the old files back"
    says = [f"step-00000006: the data have changed since: {split} shard 0, {split}.bin, {digests}"]
    refused(CheckpointError, "train", "--resume", "run", says=says)


def test_row15_data_may_move(mhcnb, begun, shards, tmp_path):
    shards.rename(tmp_path / "moved")
    done = mhcnb("train", "--resume", "run", f"data.root={tmp_path / 'moved'}")
    assert done.exit_code == 0, done.stderr
    assert begun.status()["step"] == 8


CHANGES = {  # override -> old and new
    "row41 train.lr=0.5": "train.lr: 0.002 -> 0.5",
    "row41 seed=7": "seed: 1 -> 7",
    "row41 model.dropout=0.5": "model.dropout: 0.0 -> 0.5",
    "row41 train.steps=7": "train.steps: 8 -> 7",
    "row41 train.micro_batch=8": "train.micro_batch: 4 -> 8",
    "row42 connection.name=hc": "connection.name: mhc -> hc",
    "row42 connection.streams=2": "connection.streams: 4 -> 2",
    "row42 model.width=32": "model.width: 16 -> 32",
}


@pytest.mark.parametrize("case", CHANGES)
def test_going_on_with_another_configuration(refused, begun, case):
    says = ["run was begun with another configuration; nothing was changed:\n", f"\n  {CHANGES[case]}\n"]
    says += ["only train.steps (up) and train.save_every", "--from run"]
    refused(CheckpointError, "train", "--resume", "run", case.split()[1], says=says)


def test_row41_all_differences_at_once_and_what_may_change_is_not_among_them(refused, begun):
    changed = ["train.clip=2.0", "log.every=2", "train.steps=9", "train.weight_decay=0.2"]
    table = "nothing was changed:\n  train.clip: 1.0 -> 2.0\n  train.weight_decay: 0.1 -> 0.2\nOn resume"
    refused(CheckpointError, "train", "--resume", "run", *changed, says=[table])


WEIGHTS = {  # of another ... -> what is said
    "row42 connection.name=hc": "holds weights of connection.name = mhc, the configuration says hc",
    "row42 connection.name=residual": "holds weights of connection.name = mhc, the configuration says residual",
    "row42 connection.streams=2": "holds weights of connection.streams = 4, the configuration says 2",
    "row42 model.width=32": "main.0.attn.branch.qkv.weight: file (48, 16), configuration (96, 32)",
    "row42 model.layers=2": "main.1.attn.branch.out.weight: file absent, configuration (16, 16)",
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_starting_from_weights_of_another_model(refused, begun, case):
    says = [f"{begun.last_checkpoint()}", WEIGHTS[case]]
    args = ["train", "small.yaml", case.split()[1], "--from", "run", "--out", "new"]
    refused(CheckpointError, *args, says=says, model=True)


def test_row47_a_checkpoint_beyond_the_last_step(refused, begun):
    says = ["run is at step 6 already, beyond train.steps = 4"]
    refused(CheckpointError, "train", "--resume", "run", "train.steps=4", says=says)


def test_row49_a_checkpoint_of_a_newer_version(refused, begun):
    folder = begun.last_checkpoint()
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"format": 99}))
    (folder / "manifest.json").unlink()
    durable.write_manifest(folder)
    says = ["step-00000006/state.json: checkpoint format 99; this mhcnb reads formats up to 2", "newer version"]
    refused(CheckpointError, "train", "--resume", "run", says=says)
    refused(CheckpointError, "evaluate", "run", says=says)


def test_row46_a_finished_run(mhcnb, unchanged, begun, caplog):
    assert mhcnb("train", "--resume", "run").exit_code == 0
    caplog.set_level("INFO", "mhcnb")
    with unchanged():
        done = mhcnb("train", "--resume", "run")
    assert done.exit_code == 0, done.stderr
    assert "run is done: already at step 8 of 8; train.steps=N adds to it" in caplog.text + done.output


# damage ---------------------------------------------------------------------------------------------------------------


def unfinished(folder):
    (folder / "manifest.json").unlink()
    return "step-00000006/manifest.json is missing: not written to its end, or partly deleted"


def torn_manifest(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:-20])
    return "step-00000006/manifest.json cannot be read (JSONDecodeError"


def missing(folder):
    (folder / "optimizer.pt").unlink()
    return "step-00000006/optimizer.pt is missing"


def short(folder):
    path, size = folder / "model.safetensors", (folder / "model.safetensors").stat().st_size
    path.write_bytes(path.read_bytes()[:-100])
    return f"step-00000006/model.safetensors: {size - 100:,} bytes, {size:,} were written"


def flipped(name):
    def damage(folder):
        before = sha(folder / name)
        flip(folder / name)
        after = sha(folder / name)
        return f"step-00000006/{name}: its contents have changed: SHA-256 {after}, {before} when it was written"

    return damage


DAMAGE = {
    "row43 no manifest": unfinished,
    "row43 torn manifest": torn_manifest,
    "row43 missing": missing,
    "row43 short": short,
} | {f"row44 {name}": flipped(name) for name in FILES}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_used(mhcnb, begun, damage, caplog):
    caplog.set_level("INFO", "mhcnb")
    folder = begun.last_checkpoint()
    says = damage(folder)
    damaged = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = mhcnb("train", "--resume", "run")
    assert done.exit_code == 0, done.stderr
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert says in warning
    assert warning.endswith("set aside as bad-step-00000006; step-00000004 is used instead")
    assert "resumed at step 4 of 8, repeating 2 that came after it" in caplog.text
    bad = folder.with_name("bad-step-00000006")
    assert {path.name: path.read_bytes() for path in bad.iterdir()} == damaged
    assert begun.status()["state"] == "done"
    assert [record["step"] for record in begun.results("train")] == list(range(1, 9))


def test_row43_reading_a_run_uses_the_one_before_and_moves_nothing(begun, unchanged):
    unfinished(begun.last_checkpoint())
    with unchanged():
        load_model(begun.path)


def test_row45_all_are_damaged(refused, begun):
    reasons = []
    for folder in begun.checkpoints():
        flip(folder / "model.safetensors")
        reasons.append(f"\n  run/checkpoints/{folder.name}/model.safetensors: its contents have changed: SHA-256")
    says = ["run: none of its 3 checkpoints is sound; nothing was changed:", *reasons]
    refused(CheckpointError, "train", "--resume", "run", says=says)
    refused(CheckpointError, "evaluate", "run", says=says)


def test_row53_space_for_less_than_two_checkpoints(refused, small, params, monkeypatch, tmp_path):
    """A checkpoint holds each parameter and two moments of it."""
    sizes = {"model.width": 256, "model.layers": 2}
    path, count = params(**sizes), sum(p.numel() for p in build_model(small(**sizes)).parameters())
    usage = namedtuple("Usage", "total used free")(10**9, 10**9 - 20_000_000, 20_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    says = [f"two checkpoints of this model take {2 * 3 * 4 * count / 1e6:,.0f} MB; {tmp_path} has 20 MB free"]
    refused(ConfigError, "train", path, "--out", "run", says=[*says, "give another --out"], model=True)
