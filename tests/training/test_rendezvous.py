"""Meeting anew in a store that dead attempts have left: real stores, a thread a rank."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from mhcnb.training.rendezvous import fresh_store

SOON = timedelta(seconds=20)


@pytest.fixture(scope="module")
def server():
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def client(server):
    return dist.TCPStore("127.0.0.1", server.port, is_master=False, timeout=SOON)


# what a rank of a dead attempt has left: nothing, its hello, the answer to it, its thanks
LEFT = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=4)


def leave(store, rank, stage, number):
    name, token = f"dead{number}", f"old{number}"
    for key, value in [
        (f"hello/{rank}", name),
        (f"token/{name}", token),
        (f"heard/{token}/{name}", ""),
    ][:stage]:
        store.set(key, value)
    for key in ("meet", "0", "1"):
        store.set(key, "of the dead")
        dist.PrefixStore(token, store).set(key, "of the dead")


@settings(max_examples=12)
@given(size=st.integers(1, 4), left=LEFT, late=st.integers(0, 3), again=st.booleans())
def test_all_ranks_meet_in_one_place_where_nobody_was(server, size, left, late, again):
    """Whatever the store holds, whoever comes last; and once more in what that meeting has left."""
    space = f"example/{time.monotonic_ns()}"
    for number, (rank, stage) in enumerate(left):
        leave(dist.PrefixStore(space, server), rank, stage, number)

    def rank(number):
        if number == late:
            time.sleep(0.03)
        store = fresh_store(dist.PrefixStore(space, client(server)), number, size, SOON)
        assert not store.check(["meet"])
        store.set(str(number), str(number))
        store.wait([str(other) for other in range(size)], SOON)
        assert [store.get(str(other)).decode() for other in range(size)] == [str(other) for other in range(size)]
        if store.add("looked", 1) == size:
            store.set("meet", "of the dead")
        store.wait(["meet"], SOON)

    with ThreadPoolExecutor(size) as ranks:
        for _ in range(1 + again):
            list(ranks.map(rank, range(size)))


def test_a_rank_that_died_after_its_answer_is_replaced_by_the_next_of_its_number(server):
    """Rank 1 says hello, is answered, and is gone; rank 0 waits for the one that comes in its place."""
    space = dist.PrefixStore("replaced", server)
    space.set("hello/1", "dying")
    with ThreadPoolExecutor(2) as ranks:
        lead = ranks.submit(fresh_store, dist.PrefixStore("replaced", client(server)), 0, 2, SOON)
        space.wait(["token/dying"], SOON)
        assert not lead.done()
        follow = ranks.submit(fresh_store, dist.PrefixStore("replaced", client(server)), 1, 2, SOON)
        lead.result().set("word", "hello")
        assert follow.result().get("word") == b"hello"


def test_who_does_not_come_is_named_in_time(server):
    waiting = threading.Thread(target=lambda: fresh_store(dist.PrefixStore("gone", client(server)), 1, 4, SOON))
    waiting.start()
    with pytest.raises(TimeoutError, match=r"no sign of rank 2, 3 for 0\.3 s"):
        fresh_store(dist.PrefixStore("gone", client(server)), 0, 4, timedelta(seconds=0.3))
    waiting.join()


def test_a_rank_without_rank_zero_gives_up_in_time(server):
    with pytest.raises(RuntimeError, match="timeout"):
        fresh_store(dist.PrefixStore("headless", client(server)), 1, 2, timedelta(seconds=0.3))
