"""What `import mhcnb` adds to `import torch`."""

import subprocess
import sys

from mhcnb.bench.measure import Timing, side_by_side


def imports(rounds: int = 7) -> list[Timing]:
    """Fresh interpreters: torch alone, with mhcnb, and with all that `load_config` and `build_model` need."""
    codes = {
        "torch": "import torch",
        "torch, mhcnb": "import torch, mhcnb",
        "torch, mhcnb in use": "import torch, mhcnb; mhcnb.load_config; mhcnb.build_model",
    }

    def fresh(code: str):
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    return side_by_side("import", {name: fresh(code) for name, code in codes.items()}, rounds)
