"""A checkpoint of mhc-lite goes through 03-stability like a run of our own."""

from pathlib import Path

import numpy as np
import torch

from mhcnb.data.shardfile import ShardWriter
from mhcnb.interop.run_folder import import_mhc_lite

GOLDEN = Path(__file__).parents[1] / "golden"


def test_an_imported_checkpoint_is_shown(tmp_path, execute):
    with np.load(GOLDEN / "gpt_mhc_seed7.npz", allow_pickle=False) as arrays:
        state = {k.removeprefix("param."): torch.from_numpy(arrays[k]) for k in arrays if k.startswith("param.")}
    args = {"n_head": 2, "vocab_size": 61, "block_size": 16, "n_layer": 2, "n_embd": 16}
    torch.save({"model": state, "model_args": args, "iter_num": 10, "config": {}}, tmp_path / "ckpt.pt")
    (tmp_path / "data").mkdir()
    for split, seed in (("train", 0), ("val", 1)):
        with ShardWriter(tmp_path / "data" / f"{split}.bin") as writer:
            writer.append(np.random.default_rng(seed).integers(0, 61, 3000))
    run = import_mhc_lite(tmp_path / "ckpt.pt", tmp_path / "runs" / "theirs", data=str(tmp_path / "data"))
    words, printed = execute("03-stability", ".", runs=str(run.path), rows=2)
    assert "theirs: 4 maps" in printed
    assert "no maps:" not in printed
    assert any("theirs" in sentence for sentence in words)
    assert list((run.path / "figures").glob("*.png"))
