"""Two nodes on one machine: two network namespaces joined by a cable that can be pulled."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

MHCNB = ("-m", "mhcnb")
PORT = 29555  # each namespace has its own


class Node(NamedTuple):
    """A namespace with one address on one interface."""

    namespace: str
    interface: str
    address: str


class TwoNodes:
    """`start` gives each node its torchrun; `cut` and `heal` are the cable between them. Both see the same disk."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes, self.processes = nodes, []

    def start(
        self, *args: object, ranks: int = 1, max_restarts: int = 0, cwd: Path, program: Sequence[object] = MHCNB
    ) -> list[subprocess.Popen]:
        """`mhcnb ARGS` on `ranks` ranks of each node; a launcher a node, the first with the meeting point."""
        for node in self.nodes:
            hosts = node is self.nodes[0]  # said outright: the launchers cannot tell by a host name
            command = [
                *("ip", "netns", "exec", node.namespace, sys.executable, "-m", "torch.distributed.run"),
                *("--nnodes=2", f"--nproc_per_node={ranks}", f"--max-restarts={max_restarts}", "--rdzv-id=two-nodes"),
                *("--rdzv-backend=c10d", f"--rdzv-endpoint={self.nodes[0].address}:{PORT}"),
                *(f"--rdzv-conf=is_host={int(hosts)}", f"--local-addr={node.address}"),
                *map(str, program), *map(str, args),
            ]  # fmt: skip
            environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": node.interface}
            self.processes.append(
                subprocess.Popen(
                    command, cwd=cwd, env=environment, text=True,
                    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                )
            )  # fmt: skip
        return self.processes

    def cut(self) -> None:
        """No packet passes any more; nobody is told."""
        _ip("-n", self.nodes[1].namespace, "link", "set", self.nodes[1].interface, "down")

    def heal(self) -> None:
        """Packets pass again."""
        _ip("-n", self.nodes[1].namespace, "link", "set", self.nodes[1].interface, "up")


@contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    """Two nodes, taken down at the end with all that runs on them. Skips the test where they cannot be made."""
    names = [f"mhcnb{os.getpid()}{letter}" for letter in "ab"]  # at most 15 characters: also the interfaces' names
    nodes = [Node(name, name, f"10.77.0.{k}") for k, name in enumerate(names, 1)]
    both = TwoNodes(nodes)
    try:
        try:
            _lay(nodes)
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", None) or error
            pytest.skip(f"two nodes need the command ip and CAP_NET_ADMIN (root): {str(said).strip()}")
        yield both
    finally:
        for process in both.processes:
            process.kill()
            process.communicate()
        for node in nodes:
            with suppress(OSError, subprocess.CalledProcessError):
                _ip("netns", "del", node.namespace)


def _lay(nodes: list[Node]) -> None:
    first, second = nodes
    for node in nodes:
        _ip("netns", "add", node.namespace)
    _ip("-n", first.namespace, "link", "add", first.interface, "type", "veth",
        "peer", "name", second.interface, "netns", second.namespace)  # fmt: skip
    for node in nodes:
        _ip("-n", node.namespace, "addr", "add", f"{node.address}/24", "dev", node.interface)
        _ip("-n", node.namespace, "link", "set", node.interface, "up")
        _ip("-n", node.namespace, "link", "set", "lo", "up")


def _ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True, text=True)
