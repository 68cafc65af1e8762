"""Checkpoints: a folder with config.yaml, model.safetensors and state.json that appears whole or not at all."""

import json
import shutil
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mhcnb import yamlfile
from mhcnb.config import RunConfig, as_dict, build_config
from mhcnb.errors import CheckpointError, RunError
from mhcnb.models.base import Model, build_model
from mhcnb.run import Run

FORMAT = 1


def save(run: Run, step: int, model: Model, config: RunConfig) -> Path:
    """Writes checkpoints/step-N under a hidden name, then renames it. Raises RunError where the disk refuses."""
    final = run.path / "checkpoints" / f"step-{step:08d}"
    part = final.with_name(f".{final.name}")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        save_file({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, part / "model.safetensors")
        (part / "config.yaml").write_text(yamlfile.dump(as_dict(config)), encoding="utf-8")
        (part / "state.json").write_text(json.dumps({"format": FORMAT, "step": step}) + "\n", encoding="utf-8")
        if final.exists():
            shutil.rmtree(final)
        part.rename(final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise RunError(f"cannot save {final}: {error}; free some space or give another --out") from error
    return final


def load_model(path: str | Path) -> tuple[Model, RunConfig]:
    """(model, config) of a run (its last checkpoint) or of a checkpoint folder; on the CPU.

    Raises CheckpointError where the weights are damaged or not of the configuration beside them, or the checkpoint
    was written by a newer version.
    """
    path = Path(path)
    folder = path if (path / "model.safetensors").is_file() else Run.open(path).last_checkpoint()
    _require_known_format(folder / "state.json")
    values, lines = yamlfile.read_mapping(folder / "config.yaml")
    config = build_config(values, str(folder / "config.yaml"), lines)
    model = build_model(config)
    try:
        state = load_file(folder / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder}/model.safetensors cannot be read: {error}") from error
    _require_match(state, model.state_dict(), folder)
    model.load_state_dict(state)
    return model, config


def _require_known_format(path: Path) -> None:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        written = state["format"]
    except FileNotFoundError:
        return  # only the weights were kept
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): the checkpoint was not written to its end") from error
    if not isinstance(written, int) or written > FORMAT:
        raise CheckpointError(
            f"{path}: checkpoint format {written!r}; this mhcnb reads formats up to {FORMAT}: written by a newer "
            "version, install that one"
        )


def _require_match(state: dict, own: dict, folder: Path) -> None:
    differing = sorted(set(state) ^ set(own)) + sorted(
        k for k in set(state) & set(own) if state[k].shape != own[k].shape
    )
    if differing:
        first = [
            f"{k}: file {tuple(state[k].shape) if k in state else 'absent'}, "
            f"configuration {tuple(own[k].shape) if k in own else 'absent'}"
            for k in differing[:5]
        ]
        raise CheckpointError(f"{folder}: {len(differing)} tensors are not of its config.yaml: {'; '.join(first)}")
