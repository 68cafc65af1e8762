"""What ranks tell each other: real ranks, forked from this process, which has torch loaded already."""

import multiprocessing
import os
import re
import signal
import socket
import sys

import pytest
import torch

from mhcnb.errors import RunError
from mhcnb.training import distributed, launch
from mhcnb.training.distributed import World

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork")


def on_ranks(size, work, timeout_s=60.0, lost=None):
    """What work(rank) gave on each of `size` connected ranks but the one that is to be lost."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(size)]

    def rank(number):
        torch.set_num_threads(1)
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        distributed.connect(World(number, size, number), torch.device("cpu"), timeout_s)
        distributed.barrier()  # rank 0 keeps the meeting point: it must not be gone before all have met
        pipes[number][1].send(work(number))
        os._exit(0)

    processes = [context.Process(target=rank, args=(number,)) for number in range(size)]
    for process, (_, write) in zip(processes, pipes, strict=True):
        process.start()
        write.close()
    try:
        return [read.recv() for number, (read, _) in enumerate(pipes) if number != lost]
    finally:
        for process in processes:
            process.kill()
            process.join()


def test_three_ranks_agree_gather_and_sum():
    def work(rank):
        flags = [False, rank == 1, rank != 2, True]
        return (
            distributed.agree(flags),
            distributed.any_rank(rank == 2),
            distributed.gather({"of": rank}),
            distributed.from_rank_zero(rank + 10),
            float(distributed.sum_over_ranks(torch.tensor(2.0**rank))),
        )

    first, *others = on_ranks(3, work)
    assert first == ([False, True, True, True], True, [{"of": 0}, {"of": 1}, {"of": 2}], 10, 7.0)
    for other in others:
        assert other == (*first[:2], [], *first[3:])


def test_one_process_agrees_with_itself():
    assert distributed.agree([True, False]) == [True, False]
    assert distributed.gather("mine") == ["mine"]
    assert distributed.lost(RuntimeError("Connection reset by peer")) is None


def test_a_job_is_one_for_all_its_ranks_and_differs_from_others(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert launch.job() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "17")
    assert on_ranks(2, lambda rank: launch.job()) == ["17", "17"]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # torchrun without a rendezvous: its ranks share only itself
    first, second = on_ranks(2, lambda rank: launch.job())
    assert first == second
    assert launch.job() not in (first, "none")


def _gradient():
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
    return lambda: model(torch.ones(1, 2)).sum().backward()


EXCHANGES = {
    "sum": lambda: lambda: distributed.sum_over_ranks(torch.zeros(3)),
    "gather": lambda: lambda: distributed.gather("mine"),
    "broadcast": lambda: lambda: distributed.from_rank_zero("mine"),
    "gradient": _gradient,
}
FAULTS = {
    "killed": (lambda: os.kill(os.getpid(), signal.SIGKILL), "Connection (reset|closed) by peer|Broken pipe"),
    "gone": (lambda: os._exit(2), "Connection (reset|closed) by peer|Broken pipe"),
    "silent": (lambda: os.kill(os.getpid(), signal.SIGSTOP), "Timed out waiting 1000ms"),
}


@pytest.mark.parametrize(
    ("fault", "exchange"),
    [
        *(("killed", exchange) for exchange in ("sum", "gather", "broadcast", "gradient")),
        ("gone", "sum"),
        ("silent", "gather"),
    ],
)
def test_a_lost_rank_is_told_in_words_whatever_was_waited_for(fault, exchange):
    happen, reason = FAULTS[fault]
    loser = 0 if exchange == "broadcast" else 1

    def work(rank):
        wait = EXCHANGES[exchange]()
        distributed.barrier()
        if rank == loser:
            happen()
        with pytest.raises(RuntimeError) as caught:
            wait()
        assert distributed.lost(ValueError(str(caught.value))) is None
        assert distributed.lost(RuntimeError("shapes [2, 3] and [4] do not fit")) is None
        assert distributed.lost(RunError("Connection closed by peer")) is None  # has its words already
        return str(distributed.lost(caught.value))

    (said,) = on_ranks(2, work, timeout_s=1.0, lost=loser)
    assert said.startswith(
        f"rank {1 - loser} of 2 has lost another one, or waited for it longer than train.timeout_s: "
    )
    assert re.search(reason, said)
    assert "[/" not in said  # no line of a library's source
