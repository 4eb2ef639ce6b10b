"""Dagster's watcher of the process that mirrors a step's output, deaf to Ctrl-C, which the terminal sends it as well.

Dagster starts it by its file for each step; nothing of Dagster is imported.
"""

from __future__ import annotations

import importlib.util
import runpy
import signal
from pathlib import Path

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends when the step does
    spec = importlib.util.find_spec("dagster")
    assert spec is not None
    assert spec.origin is not None
    script = Path(spec.origin).parent / "_core" / "execution" / "scripts" / "watch_orphans.py"
    runpy.run_path(str(script), run_name="__main__")
