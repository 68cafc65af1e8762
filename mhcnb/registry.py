"""name -> class for each axis of the grid, read off the folder: a new method, model, data source or objective is one
new file. Nothing is imported until it is asked for, so a broken optional entry cannot break the others."""

import functools
import importlib
import re
from pathlib import Path

from mhcnb.errors import ConfigError, nearest

# folder -> the base class that marks an entry: the file `mhc.py` with `class MHC(Connection)` is the connection mhc
AXES = {"connections": "Connection", "models": "Model", "data": "Source", "objectives": "Objective"}


@functools.cache
def entries(axis: str) -> dict[str, str]:
    """{name: "module:Class"} of one axis, by name."""
    folder = Path(__file__).parent / axis
    pattern = re.compile(rf"^class (\w+)\({AXES[axis]}\):", re.MULTILINE)
    found = {file.stem: pattern.findall(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.py"))}
    return {stem: f"mhcnb.{axis}.{stem}:{classes[0]}" for stem, classes in found.items() if classes}


def load(axis: str, name: str) -> type:
    """The class of an entry. Raises ConfigError with the known names and the nearest one."""
    known = entries(axis)
    if name not in known:
        raise ConfigError(f"no {axis.removesuffix('s')} is called {name!r}{nearest(str(name), known)}")
    module, cls = known[name].split(":")
    return getattr(importlib.import_module(module), cls)
