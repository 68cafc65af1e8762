"""Other people's implementations, driven as they are: PyPI's hyper-connections, and a checkout of mhc-lite.

Both have one layout: n streams beside the batch, [(b n), t, d], and modules `C(streams, dim=, branch=, layer_index=)`.
"""

import contextlib
import importlib.util
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from mhcnb.bench.gpt import Loss, Size
from mhcnb.errors import ConfigError
from mhcnb.layers.site import sites

STREAMS = 4
INSTALLED = "hyper-connections"
CHECKOUT = "mhc-lite"  # of FFTYYY/mhc-lite, driven as of commit ea19775
OWN_NAMES = {"residual": "none", "hc": "hc", "mhc": "mhc", "mhc_lite": "mhc_lite"}  # ours -> its hyper_conn_type


class Peer(NamedTuple):
    """By our name of a method, `layers` make modules over [(b n), t, d], and `gpts` models of a size, as a loss of
    (inputs, targets). `sinkhorn` takes logits [*b, n, n] and a number of rounds."""

    name: str
    layers: Mapping[str, Callable[..., nn.Module]]
    sinkhorn: Callable[[Tensor, int], Tensor]
    gpts: Mapping[str, Callable[[Size], nn.Module]]


def pack(X: Tensor) -> Tensor:
    """Ours [b, t, n, d] -> theirs [(b n), t, d]."""
    return X.transpose(1, 2).flatten(0, 1).contiguous()


def peers(given: Iterable[str]) -> tuple[Peer, ...]:
    """Those given as NAME=PATH, after what is installed. Raises ConfigError in words."""
    found: dict[str, Peer] = {}
    if importlib.util.find_spec("hyper_connections"):
        found[INSTALLED] = hyper_connections()
    for text in given:
        name, _, path = text.partition("=")
        if name != CHECKOUT or not path:
            raise ConfigError(f"--peer {text}; expected {CHECKOUT}=PATH, PATH a checkout of that project's repository")
        if name in found:
            raise ConfigError(f"--peer {text}: {name} is given twice; its modules can be loaded from one place only")
        found[name] = mhc_lite(Path(path))
    return tuple(found.values())


def hyper_connections() -> Peer:
    """PyPI's package. Raises ImportError."""
    package: Any = importlib.import_module("hyper_connections")
    rounds: Any = importlib.import_module("hyper_connections.manifold_constrained_hyper_connections")
    layers = {"hc": package.HyperConnections, "mhc": package.ManifoldConstrainedHyperConnections}
    gpts = {name: partial(_behind, make) for name, make in layers.items()}
    return Peer(INSTALLED, layers, lambda logits, iterations: rounds.sinkhorn_knopps(logits, iters=iterations), gpts)


def mhc_lite(path: Path) -> Peer:
    """A checkout. Raises ConfigError where it is none, or lacks a package that it needs."""
    missing = [name for name in ("model.py", "hyper_conn/mhc.py") if not (path / name).is_file()]
    if missing:
        raise ConfigError(
            f"--peer {CHECKOUT}={path}: no {' and no '.join(missing)} there; expected a checkout of "
            "github.com/FFTYYY/mhc-lite"
        )
    try:
        with _imports_from(path):
            theirs: Any = importlib.import_module("hyper_conn")
            model: Any = importlib.import_module("model")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--peer {CHECKOUT}={path}: its code needs the package {error.name}, which is not installed: "
            f"pip install {error.name}"
        ) from error
    layers = {"hc": theirs.HyperConnections, "mhc": theirs.ManifoldConstrainedHyperConnections}
    gpts = {name: partial(_own_gpt, model, kind) for name, kind in OWN_NAMES.items()}
    return Peer(CHECKOUT, layers | {"mhc_lite": theirs.MHCLite}, theirs.mhc.sinkhorn_knopps, gpts)


@contextlib.contextmanager
def _imports_from(path: Path) -> Iterator[None]:
    """Its modules have names that anybody's may have: what is loaded under them is let go first."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("model", "hyper_conn")]:
        del sys.modules[name]
    sys.path.insert(0, str(path.resolve()))
    try:
        yield
    finally:
        sys.path.remove(str(path.resolve()))


class _OwnGPT(nn.Module):
    """mhc-lite's model, whose forward gives (logits, loss)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return self.model(inputs, targets)[1]


def _own_gpt(module: Any, kind: str, size: Size) -> nn.Module:
    """What its training builds: without biases, as the presets of both are."""
    sizes = dict(n_layer=size.layers, n_head=size.heads, n_embd=size.width, block_size=size.tokens)
    streams = STREAMS if kind != "none" else 1
    with contextlib.redirect_stdout(io.StringIO()):  # it prints as it goes
        config = module.GPTConfig(
            **sizes, vocab_size=size.vocabulary, bias=False, hyper_conn_n=streams, hyper_conn_type=kind
        )
        return _OwnGPT(module.GPT(config))


class _Branch(nn.Module):
    """A branch behind its norm."""

    def __init__(self, norm: Any, branch: nn.Module) -> None:
        super().__init__()
        self.norm, self.branch = norm, branch

    def forward(self, u: Tensor, **context: Any) -> Tensor:
        return self.branch(self.norm(u), **context)


class _Stack(nn.Module):
    """expand -> their layers around our branches -> sum and norm, in place of our stack."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, norm: Callable[[Tensor], Tensor], **context: Any) -> Tensor:
        X = x.repeat_interleave(STREAMS, dim=0)
        for layer in self.layers:
            X = layer(X, **context)
        return norm(X.unflatten(0, (-1, STREAMS)).sum(1))


def _behind(make: Callable[..., nn.Module], size: Size) -> nn.Module:
    """Our GPT with their connections around its branches."""
    loss = Loss(size.config({"name": "residual"}))
    around = [_Branch(site.pre_norm, site.branch) for site in sites(loss.model).values()]
    layers = [make(STREAMS, dim=size.width, branch=branch, layer_index=k) for k, branch in enumerate(around)]
    loss.model.main = _Stack(layers)
    return loss
