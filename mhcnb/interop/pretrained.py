"""The rlm as an object to load, save, sample from and look into, without a run.

model = mhcnb.RLM.from_pretrained("outputs/mhc-tiny-s1")
model.generate(ids, max_new_tokens=64, temperature=0.8)
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from safetensors.torch import save_file
from torch import Tensor

from mhcnb import durable, yamlfile
from mhcnb.analysis.quantities import amax_backward, amax_forward
from mhcnb.analysis.record import record
from mhcnb.config import RunConfig, as_dict, build_config
from mhcnb.data.tokenizer import FILE, kept_tokenizer
from mhcnb.errors import CheckpointError, ConfigError, DataError, RunError
from mhcnb.layers.site import sites
from mhcnb.models import generation, rlm
from mhcnb.models.generation import Prompts
from mhcnb.paths import find
from mhcnb.training.checkpoint import CONFIG, STATE, WEIGHTS, copied, find_checkpoint, load_weights, read_config

BRANCHES = ("attn", "mlp")
STATIC = "static maps: no tokens were given"


class LayerGains(NamedTuple):
    """The larger of the forward and backward amax gain of res, at the two sites of a layer; mean over tokens."""

    attn: float
    mlp: float


class MHCMetrics(list[LayerGains]):
    """LayerGains by layer. `of` says whose they are: the static maps', or those of so many tokens."""

    def __init__(self, layers: list[LayerGains], of: str) -> None:
        super().__init__(layers)
        self.of = of

    def __repr__(self) -> str:
        return f"{super().__repr__()} of {self.of}"


class RLM(rlm.RLM):
    """An rlm that reads and writes folders, and generates. Saved are config.yaml, a whole run's configuration, and
    model.safetensors; `mhcnb train --from` takes them, too."""

    origin: RunConfig | None = None  # the configuration that the weights came with
    tokenizer: Path | None = None  # the file of their tokenizer, where it is known

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """The model of a saved folder, of a run (its newest sound checkpoint) or of a checkpoint; on the CPU, in
        evaluation mode. Raises CheckpointError where the folder is none of them, or has another model."""
        path = find(folder)
        if not (path / CONFIG).is_file():
            there = "it has no config.yaml" if path.is_dir() else "no such folder"
            raise CheckpointError(
                f"{folder}: {there}; give a run, a checkpoint, or what save_pretrained wrote. Models of other "
                "projects come in by `mhcnb import`"
            )
        found = find_checkpoint(path)
        config = read_config(found)
        if not isinstance(config.model, rlm.RLMConfig):
            raise CheckpointError(f"{folder} holds a {config.model.name}, not an rlm; `load_model` reads any model")
        if config.model.vocab_size == "auto":
            raise CheckpointError(f"{found / CONFIG}: model.vocab_size is auto; give the number of rows of wte.weight")
        model = cls(config.model, config.connection, torch.Generator().manual_seed(config.seed))
        load_weights(model, found)
        model.origin = config
        with suppress(DataError):
            model.tokenizer = kept_tokenizer(path)
        return model.eval()

    def save_pretrained(self, folder: str | Path) -> Path:
        """Writes config.yaml and model.safetensors, and tokenizer.json where it is known, into a folder, in place of
        those that it wrote before. Raises RunError where the folder is a run or a checkpoint."""
        path = Path(folder)
        taken = [name for name in ("status.json", STATE, durable.MANIFEST) if (path / name).exists()]
        if taken or ((path / CONFIG).exists() and not (path / WEIGHTS).exists()):
            raise RunError(f"{path} holds a run or a checkpoint; nothing was changed: save to another folder")
        path.mkdir(parents=True, exist_ok=True)
        part = path / f".{WEIGHTS}.part"
        try:
            save_file(copied(self.state_dict()), part)
            os.replace(part, path / WEIGHTS)
        finally:
            part.unlink(missing_ok=True)
        durable.write_text(path / CONFIG, yamlfile.dump(as_dict(self._config())))
        if self.tokenizer and self.tokenizer.resolve() != (path / FILE).resolve():
            shutil.copyfile(self.tokenizer, path / FILE)
        return path

    def _config(self) -> RunConfig:
        """Whose model and connection are the model's own."""
        connection = next(iter(sites(self).values())).connection.config
        own = {"model": as_dict(self.config), "connection": as_dict(connection)}
        rest = {"data": {"name": "shards"}, "objective": {"name": "lm"}, "train": {"steps": 1, "lr": 3e-4}}
        return build_config((as_dict(self.origin) if self.origin else rest) | own, "the model's configuration")

    def generate(
        self,
        ids: Prompts,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        eos: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Any:
        """Prompts and what follows them; see models.generation.generate."""
        drawn = dict(temperature=temperature, top_p=top_p, top_k=top_k, eos=eos, generator=generator)
        return generation.generate(self, ids, max_new_tokens, **drawn)  # type: ignore[arg-type]

    def get_mhc_metrics(self, ids: Tensor | None = None) -> MHCMetrics:
        """How much each layer's res may amplify, for tokens ids [t] or [b, t]; without, of the static maps, which is
        what the biases alone give. 1 at both sites where res is doubly stochastic, and above 2 is worth a look."""
        gains = {site: _gain(res) for site, res in self._res(ids).items()}
        layers = range(self.config.layers)
        of = STATIC if ids is None else f"the maps of {ids.numel()} tokens"
        return MHCMetrics([LayerGains(*(gains[f"main.{i}.{label}"] for label in BRANCHES)) for i in layers], of)

    def get_connection_matrix(self, layer: int, branch: str, ids: Tensor | None = None) -> Tensor:
        """res [n_out, n_in] of one site: its mean over tokens ids, or the static one. Raises ConfigError."""
        if branch not in BRANCHES or not 0 <= layer < self.config.layers:
            raise ConfigError(
                f"no connection at layer {layer}, branch {branch!r}; there are layers 0 to {self.config.layers - 1}, "
                f"each with {' and '.join(BRANCHES)}"
            )
        return self._res(ids)[f"main.{layer}.{branch}"].mean(0)

    def _res(self, ids: Tensor | None) -> dict[str, Tensor]:
        """{site: res [T, n_out, n_in]} in float64, T tokens; of the static maps T is 1."""
        if ids is not None:
            found = record(self, {"inputs": ids.reshape(-1, ids.shape[-1])})
            return {r.site: r.maps.res.double().flatten(end_dim=-3) for r in found}
        with torch.no_grad():
            return {name: _static(site.connection) for name, site in sites(self).items()}


def _static(connection: Any) -> Tensor:
    """[1, n_out, n_in]. A state of zeros projects to zero, so that only the biases are left."""
    place = next(connection.parameters(), torch.empty(0)).device
    return connection.maps(torch.zeros(1, connection.n, connection.d, device=place)).res.cpu().double()


def _gain(res: Tensor) -> float:
    return torch.maximum(amax_forward(res), amax_backward(res)).mean().item()
