"""A project on disk: the experiments that are asked, and ``.sumi/`` with everything computed for them.

    <root>/experiments/     YAML files
    <root>/.sumi/store/     artifacts            SUMI_STORE
    <root>/.sumi/mlflow.db  MLflow               MLFLOW_TRACKING_URI
    <root>/.sumi/dagster/   Dagster's instance   DAGSTER_HOME

The environment variables on the right point the same code at shared servers; nothing else changes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sumi_core.base.options import ConfigError
from sumi_core.base.paths import project_root, readable_name, sqlite_uri
from sumi_core.experiments.sweeps import Sweeps, load_sweeps
from sumi_core.lineage.changed_cells import ChangedCells
from sumi_core.lineage.tracking import Tracking
from sumi_core.stages.store import Store

_NO_ADDRESS = re.compile("[?\udc80-\udcff]|%[0-9A-Fa-f]{2}")


@dataclass(frozen=True)
class Project:
    """One project folder. ``home`` holds what is computed."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Project:
        """The project around ``start``: SUMI_PROJECT, else the nearest folder upwards that holds ``experiments/``.
        Raises ConfigError for a path that the databases of Dagster and MLflow cannot have."""
        root = project_root(start)
        if _NO_ADDRESS.search(str(root)):
            problem = "SQLite addresses cannot hold this path (a ?, a % before two digits, or a name that is not UTF-8)"
            raise ConfigError(readable_name(root), "", f"{problem}; rename the project's folder, or those around it")
        return cls(root)

    @property
    def home(self) -> Path:
        """Where everything computed lives."""
        return self.root / ".sumi"

    @property
    def experiments(self) -> Path:
        """Where the experiment files live."""
        return self.root / "experiments"

    @property
    def dagster_home(self) -> Path:
        """Dagster's instance folder."""
        return Path(os.environ.get("DAGSTER_HOME") or self.home / "dagster").absolute()

    @property
    def store(self) -> Store:
        """The artifact store."""
        return Store(Path(os.environ.get("SUMI_STORE") or self.home / "store").absolute())

    @property
    def tracking(self) -> Tracking:
        """The MLflow store: embedded SQLite unless MLFLOW_TRACKING_URI names another."""
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri:
            return Tracking(uri, None, self.home / "locks")
        return Tracking(sqlite_uri(self.home / "mlflow.db"), self.home / "mlartifacts", self.home / "locks")

    def sweeps(self, overrides: Iterable[str] = (), names: Sequence[str] | None = None) -> Sweeps:
        """Every experiment file, expanded and validated, or those that ``names`` need; ``broken`` names those that are
        wrong."""
        return load_sweeps(self.experiments, overrides, names, self.changed_cells.names)

    @property
    def changed_cells(self) -> ChangedCells:
        """What was computed with changes on the command line."""
        return ChangedCells(self.home / "changed-cells.json", self.home / "locks")
