"""Batches of text to token ids, here or in processes that are fed through pipes.

A process of its own takes any number of batches and ends with the one that feeds it, however that ends:

    python -m mhcnb.data.encoder TOKENIZER RECIPE DTYPE
"""

import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mhcnb.data.recipe import Recipe
from mhcnb.data.textfile import Batch, texts_of
from mhcnb.data.tokenizer import open_tokenizer
from mhcnb.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOGETHER = 256  # documents encoded at a time
DIGEST = 16  # bytes: what tells documents apart


class Encoded(NamedTuple):
    """The documents of a batch that are long enough: their tokens end to end, how many each has (uint32), and where
    the recipe wants it their digests. counts: what was read; wrong: the first lines that could not be used."""

    tokens: bytes
    lengths: bytes
    digests: bytes
    counts: dict[str, int]
    wrong: list[str]


def encode(batch: Batch, tokenizer: "Tokenizer", recipe: Recipe, dtype: str) -> Encoded:
    """The tokens of a batch. Raises DataError for a line that is not to be skipped."""
    texts, wrong = texts_of(batch, recipe)
    kind = np.dtype(dtype).newbyteorder("<")
    tokens, lengths, digests = [], [], []
    for start in range(0, len(texts), TOGETHER):
        some = texts[start : start + TOGETHER]
        for text, encoding in zip(some, tokenizer.encode_batch_fast(some, add_special_tokens=False), strict=True):
            ids = encoding.ids
            if len(ids) < max(1, recipe.min_tokens):
                continue
            tokens.append(np.array(ids, kind))
            lengths.append(len(ids))
            if recipe.dedup:
                digests.append(hashlib.blake2b(text.encode(), digest_size=DIGEST).digest())
    bad = len(wrong) + batch.skipped
    counts = {"documents": len(texts), "bad_lines": bad, "too_short": len(texts) - len(lengths)}
    whole = np.concatenate(tokens).tobytes() if tokens else b""
    return Encoded(whole, np.array(lengths, "<u4").tobytes(), b"".join(digests), counts, wrong[:3])


def encode_all(
    batches: Iterable[Batch], tokenizer: Path, recipe: Recipe, dtype: str, processes: int
) -> Generator[tuple[Batch, Encoded]]:
    """Each batch with its tokens, in order, as many at a time as there are processes; one: it is done here.

    Raises DataError for what is wrong first in the order of the text.
    """
    if processes == 1:
        model = open_tokenizer(tokenizer).tokenizer
        for batch in batches:
            yield batch, encode(batch, model, recipe, dtype)
        return
    command = [sys.executable, "-m", "mhcnb.data.encoder", str(tokenizer), json.dumps(recipe._asdict()), dtype]
    idle: queue.SimpleQueue[subprocess.Popen] = queue.SimpleQueue()
    with ThreadPoolExecutor(processes) as threads, ExitStack() as ends:
        for _ in range(processes):
            worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment())
            ends.callback(_end, worker)
            idle.put(worker)
        ends.callback(threads.shutdown, wait=False, cancel_futures=True)
        yield from _in_order(batches, lambda batch: threads.submit(_ask, idle, batch), 2 * processes)


def _in_order(batches: Iterable[Batch], submit: Any, ahead: int) -> Iterator[tuple[Batch, Encoded]]:
    """What is submitted, as it becomes ready at the front, `ahead` at most at a time. Where reading fails, what was
    read before comes first: something may be wrong with that."""
    pending: deque[tuple[Batch, Future[Encoded]]] = deque()
    source, failed = iter(batches), None
    while True:
        try:
            batch = next(source, None)
        except DataError as error:
            batch, failed = None, error
        if batch is None:
            break
        pending.append((batch, submit(batch)))
        if len(pending) >= ahead:
            done, future = pending.popleft()
            yield done, future.result()
    for batch, future in pending:
        yield batch, future.result()
    if failed is not None:
        raise failed


def _ask(idle: "queue.SimpleQueue[subprocess.Popen]", batch: Batch) -> Encoded:
    """A batch through a process that has nothing to do. Raises DataError."""
    worker = idle.get()
    try:
        _send(worker.stdin, batch._asdict(), "content")
        answer = _receive(worker.stdout)
    except (OSError, EOFError) as error:
        raise DataError(
            f"a process that encodes ended (status {worker.wait()}; -9: out of memory?) at {batch.path}:{batch.line}; "
            "run the same again to go on, with fewer --processes"
        ) from error
    finally:
        idle.put(worker)
    if "error" in answer:
        raise DataError(answer["error"])
    return Encoded(**answer)


def _environment() -> dict[str, str]:
    """This package is found, however it was here, and a process uses one core: several would only wait for each
    other."""
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "TOKENIZERS_PARALLELISM": "false"}


def _end(worker: subprocess.Popen) -> None:
    worker.kill()
    worker.wait()
    for pipe in (worker.stdin, worker.stdout):
        with suppress(OSError):  # what was not sent any more
            pipe.close()  # type: ignore[union-attr]


# the pipes: a line of JSON that says how many bytes of which fields follow it ----------------------------------------


def _send(pipe: IO[bytes] | None, values: dict[str, Any], *binary: str) -> None:
    assert pipe is not None
    sizes = {name: len(values[name]) for name in binary}
    plain = {name: value for name, value in values.items() if name not in binary}
    pipe.write(json.dumps({"sizes": sizes, "values": plain}).encode() + b"\n")
    for name in binary:
        pipe.write(values[name])
    pipe.flush()


def _receive(pipe: IO[bytes] | None) -> dict[str, Any]:
    """Raises EOFError where the other side has ended."""
    assert pipe is not None
    head = pipe.readline()
    if not head.endswith(b"\n"):
        raise EOFError
    said = json.loads(head)
    binary = {name: pipe.read(size) for name, size in said["sizes"].items()}
    if any(len(binary[name]) < size for name, size in said["sizes"].items()):
        raise EOFError
    return said["values"] | binary


def serve(tokenizer: str, recipe: str, dtype: str) -> None:
    """Answers what comes through stdin. Raises EOFError or BrokenPipeError when the other side has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the first decides
    model, chosen = open_tokenizer(tokenizer).tokenizer, Recipe(**json.loads(recipe))
    while True:
        batch = Batch(**_receive(sys.stdin.buffer))
        try:
            done = encode(batch, model, chosen, dtype)
            _send(sys.stdout.buffer, done._asdict(), "tokens", "lengths", "digests")
        except DataError as error:
            _send(sys.stdout.buffer, {"error": str(error)})


if __name__ == "__main__":
    with suppress(EOFError, BrokenPipeError):
        serve(*sys.argv[1:])
    os._exit(0)  # what stdout still holds has no reader
