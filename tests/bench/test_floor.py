import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from mhcnb.bench import floor
from mhcnb.bench.place import CPU


@pytest.mark.parametrize("n", [2, 4, 8])
def test_the_least_traffic_is_the_sum_of_what_each_pass_reads_and_writes(n):
    streams, single = n, 1
    passes = {
        "coefficients and read": [streams, single],  # X -> u
        "carry over and write": [streams, single, streams],  # X, y -> X'
        "its backward": [streams, streams, single, single],  # dX', X, y -> dy
        "backward of the first": [single, streams, streams, streams],  # du, X, dX' -> dX
    }
    elements = sum(map(sum, passes.values()))
    assert floor.mixing_bytes(n, 8, 3, torch.float32) == elements * 8 * 3 * 4


def test_it_is_74_bytes_a_channel_and_token_in_bfloat16_and_12_for_residual():
    assert floor.mixing_bytes(4, 1024, 5, torch.bfloat16) == 74 * 1024 * 5
    assert floor.mixing_bytes(1, 1024, 5, torch.bfloat16) == 12 * 1024 * 5


@pytest.mark.parametrize("flops", [1e6, 2 * 64**3, 7.5e6])
def test_matrix_products_do_the_flops_that_were_asked_for(flops, monkeypatch):
    monkeypatch.setattr(floor, "SIDE", {False: 64})
    run = floor.matmuls(flops, CPU)
    with FlopCounterMode(display=False) as counter:
        run()
    assert counter.get_total_flops() == pytest.approx(flops, abs=2 * 64**2)  # a row


def test_copies_read_half_of_the_bytes_and_write_the_other():
    class Copied(TorchDispatchMode):
        total = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten.copy_.default:
                self.total += args[0].nbytes + args[1].nbytes
            return function(*args, **(kwargs or {}))

    run = floor.copies(1000, CPU)
    with Copied() as copied:
        run()
    assert copied.total == 1000
