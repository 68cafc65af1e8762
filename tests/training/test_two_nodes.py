"""Two network namespaces as two nodes."""

import pytest

from mhcnb.run import Run

from .two_nodes import two_nodes


@pytest.mark.root
def test_two_nodes_train_as_one_node_with_two_ranks(mhcnb, params, tmp_path):
    """Equal to the last bit: losses of 10 steps, weights and optimizer."""
    path = params(**{"train.steps": 10})
    with two_nodes() as nodes:
        processes = nodes.start("train", path, "--out", "two", cwd=tmp_path)
        said = [process.communicate(timeout=120)[1] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], said
    done = mhcnb("train", path, "--out", "one", ranks=2)
    assert done.returncode == 0, done.stderr
    one, two = Run(tmp_path / "one"), Run(tmp_path / "two")
    assert two.status()["state"] == "done"
    assert [record["loss"] for record in two.results("train")] == [record["loss"] for record in one.results("train")]
    for name in ("model.safetensors", "optimizer.pt"):
        assert (two.last_checkpoint() / name).read_bytes() == (one.last_checkpoint() / name).read_bytes()
