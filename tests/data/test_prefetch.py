"""The background reader: the same batches in the same order, errors at their place, and no thread left."""

import threading
import time

import pytest
import torch

from mhcnb.data.base import Source
from mhcnb.data.prefetch import DEPTH, Plan, prefetch
from mhcnb.data.shards import Shards
from mhcnb.errors import DataError
from mhcnb.objectives.base import Clock

CPU = torch.device("cpu")


class Counting(Source):
    """A batch is its plan; step `bad` cannot be read."""

    def __init__(self, bad=None):
        self.bad, self.read = bad, 0

    def train_batch(self, clock, first, count):
        self.read += 1
        if clock.step == self.bad:
            raise DataError("a shard vanished")
        return {"inputs": torch.tensor([clock.seed, clock.step, first, count])}


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_batches_are_those_of_the_source_in_order(folder, config):
    source = Shards(config(folder))
    plans = [Plan(step, first, 4) for step in range(10) for first in (0, 4)]
    for plan, batch in zip(plans, prefetch(source, 5, plans, CPU), strict=True):
        expected = source.train_batch(Clock(5, plan.step), plan.first, plan.count)
        assert all(torch.equal(batch[name], expected[name]) for name in expected)
    assert threads() == []


def test_an_error_comes_at_its_place(folder):
    batches = prefetch(Counting(bad=3), 0, [Plan(step, 0, 1) for step in range(9)], CPU)
    assert [int(next(batches)["inputs"][1]) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match="a shard vanished"):
        next(batches)
    assert threads() == []


def test_it_reads_ahead_but_not_without_end_and_closes_promptly():
    source = Counting()
    batches = prefetch(source, 0, (Plan(step, 0, 1) for step in range(10**9)), CPU)
    next(batches)
    deadline = time.monotonic() + 10
    while source.read < DEPTH + 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    assert source.read == DEPTH + 2  # one given out, DEPTH waiting, one in hand
    began = time.monotonic()
    batches.close()
    assert time.monotonic() - began < 1
    assert threads() == []


@pytest.mark.gpu
def test_batches_for_an_accelerator_are_pinned(folder, config):
    if not torch.accelerator.is_available():
        pytest.skip("no accelerator")
    device = torch.accelerator.current_accelerator()
    batch = next(prefetch(Shards(config(folder)), 0, [Plan(0, 0, 4)], device))
    assert all(tensor.is_pinned() for tensor in batch.values())
