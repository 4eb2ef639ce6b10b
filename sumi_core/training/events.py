"""What a training tells while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: Takes ``{"kind": "log", "text"}``, ``{"kind": "progress", "text", "step", "steps", "loss", …}``,
#: ``{"kind": "result", "summary"}`` or ``{"kind": "error", "text"}``. Every event but a result carries its sentence.
Report = Callable[[dict[str, Any]], None]
