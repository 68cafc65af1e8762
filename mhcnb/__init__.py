"""mhcnb: how should information travel between the layers of a deep network?

`load_config` -> `build_model`, or `start` for a whole run; see README. Names load on first use, so that importing
the package costs next to nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mhcnb.config import RunConfig, load_config
    from mhcnb.interop.pretrained import RLM
    from mhcnb.models.base import build_model
    from mhcnb.notebook.plan import plan
    from mhcnb.notebook.start import resume, start
    from mhcnb.run import Run

__version__ = "0.1.0"
__all__ = ["RLM", "Run", "RunConfig", "build_model", "load_config", "plan", "resume", "start"]

_PLACES = {
    "RLM": "mhcnb.interop.pretrained",
    "RunConfig": "mhcnb.config",
    "load_config": "mhcnb.config",
    "build_model": "mhcnb.models.base",
    "plan": "mhcnb.notebook.plan",
    "resume": "mhcnb.notebook.start",
    "start": "mhcnb.notebook.start",
    "Run": "mhcnb.run",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'mhcnb' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
