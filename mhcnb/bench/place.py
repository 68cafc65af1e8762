"""Where a case runs and whose code runs beside ours."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mhcnb.bench.peers import Peer
from mhcnb.errors import ConfigError

log = logging.getLogger(__name__)


class Place(NamedTuple):
    """A device, and the peers whose code is timed on it, too."""

    device: torch.device
    peers: tuple[Peer, ...] = ()

    @property
    def accelerated(self) -> bool:
        """Larger sizes, bfloat16, and torch.compile where training would have it."""
        return self.device.type != "cpu"

    @property
    def dtype(self) -> torch.dtype:
        """Of the streams: what training has on this device."""
        return torch.bfloat16 if self.accelerated else torch.float32

    def words(self) -> str:
        """The device by its name, and who else is timed there."""
        name = "one CPU thread"
        if self.accelerated:
            name = torch.get_device_module(self.device).get_device_name(self.device)
        return f"{name}, beside {' and '.join(peer.name for peer in self.peers)}" if self.peers else name

    def autocast(self) -> AbstractContextManager:
        """As training has it on this device."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.accelerated)

    def finish(self) -> None:
        """Waits until the device has done what it was told."""
        if self.accelerated:
            torch.accelerator.synchronize(self.device)


CPU = Place(torch.device("cpu"))


def place(name: str, peers: tuple[Peer, ...] = ()) -> Place:
    """The device of that name; auto is the accelerator where there is one, else the CPU. Raises ConfigError."""
    found = torch.accelerator.current_accelerator(check_available=True)
    kind = found.type if found else "cpu"
    if name not in ("auto", "cpu", kind):
        raise ConfigError(f"--device {name}: this process sees no such device, only {kind}; use --device auto")
    return Place(torch.device(kind if name == "auto" else name), peers)


@contextmanager
def one_thread() -> Iterator[None]:
    """CPU work on one thread for a while, so that figures do not depend on what else the cores do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def there_and_back(module: nn.Module, inputs: tuple[Tensor, ...], where: Place) -> Callable[[], None]:
    """One forward and backward pass of module(*inputs), to inputs that take gradients and to all parameters. What
    comes out meets a fixed random cotangent; a scalar meets 1."""
    module.train().to(where.device)
    leaves = [x for x in (*inputs, *module.parameters()) if x.requires_grad]
    cotangent: list[Tensor] = []

    def run() -> None:
        with where.autocast():
            out = module(*inputs)
        if out.ndim and not cotangent:
            cotangent.append(torch.randn_like(out))
        out.backward(*cotangent)
        for leaf in leaves:  # not kept until the next round: many models may be there at once
            leaf.grad = None
        where.finish()

    return run
