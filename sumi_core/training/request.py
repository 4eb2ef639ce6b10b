"""What a training process is asked for: one JSON file, so that any launcher on any machine can start it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sumi_core.files import write_atomically
from sumi_core.training.errors import TrainingError

# {"kind": "log", "text"}, {"kind": "progress", "text", "step", "steps", "loss", …}, {"kind": "result", "summary"}
# and {"kind": "error", "text"}: every event but a result carries its own sentence.
Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class TrackingAddress:
    """An MLflow run to log into."""

    uri: str
    run_id: str


@dataclass(frozen=True)
class Request:
    """One training: a resolved experiment, its inputs' folders by stage, and the folder to write (and resume) in."""

    key: str
    experiment: dict[str, Any]
    inputs: dict[str, str]
    folder: str
    tracking: TrackingAddress | None = None

    @property
    def devices(self) -> int:
        """Number of devices, one process each."""
        return int(self.experiment.get("runtime", {}).get("devices", 1))

    def write(self, path: Path) -> None:
        """Write the request as JSON, atomically."""
        write_atomically(path, json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Request:
        """Read a request file. Raises TrainingError when it is missing or is no request."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data.get("tracking") is not None:
                data["tracking"] = TrackingAddress(**data["tracking"])
            return cls(**data)
        except OSError as error:
            raise TrainingError(f"cannot read the training request {path}: {error.strerror}") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise TrainingError(f"{path} is no training request ({error}); let `sumi run` write it") from None
