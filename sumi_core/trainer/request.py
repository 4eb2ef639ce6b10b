"""What a training process is asked for: one JSON file, so that any launcher on any machine can start it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sumi_core.base.files import write_atomically
from sumi_core.training.errors import TrainingError


@dataclass(frozen=True)
class TrackingAddress:
    """An MLflow run to log into."""

    uri: str
    run_id: str


@dataclass(frozen=True)
class Request:
    """One training.

    experiment: resolved. recipe: a digest of what decides the result, so that a folder is not continued with another
    one. inputs: their folders by stage. tables: the folder of each token table that the experiment's parts are built
    from. folder: to write, and resume, in."""

    key: str
    experiment: dict[str, Any]
    recipe: str
    inputs: dict[str, str]
    tables: dict[str, str]
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
        """Read a request file. Raises TrainingError when it is missing or not a request."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data.get("tracking") is not None:
                data["tracking"] = TrackingAddress(**data["tracking"])
            return cls(**data)
        except OSError as error:
            raise TrainingError(f"cannot read the training request {path}: {error.strerror}") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise TrainingError(f"{path} is not a training request ({error}); let `sumi run` write it") from None
