"""How often a step waits for the device: each time is one in which an accelerator runs dry."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mhcnb import registry
from mhcnb.training import loop
from mhcnb.training.loop import train

READS = {"_local_scalar_dense", "nonzero", "masked_select", "unique_dim", "_unique2", "equal", "is_nonzero"}
COPIES = {"lift_fresh"}  # of a value made on the host
CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)


class Waits(TorchDispatchMode):
    """Counts what on an accelerator would wait for it: tensors that the host reads, or fills from its own memory; also
    inside of our operators."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        self.found[name] += name in READS | COPIES
        if function.namespace == "mhcnb":
            with self:
                return function.redispatch(CPU, *args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("connection", registry.entries("connections"))
def test_a_step_that_does_not_log_waits_once(small, tmp_path, monkeypatch, connection):
    """To see whether loss and gradient are finite before the update; whatever the number of micro-batches."""
    update, found = loop._update, {}

    def watched(s, step, batches):
        with Waits() as waits:
            given = update(s, step, batches)
        found[step] = +waits.found
        return given

    monkeypatch.setattr(loop, "_update", watched)
    fixed = {"connection.name": connection, "train.steps": 3, "train.accumulation": 2, "log.every": 3}
    train(small(**fixed), tmp_path / "run")
    assert found == {step: {"_local_scalar_dense": 1} for step in (1, 2, 3)}
