"""What every test runs under: nothing phones home, nothing leaks in from the shell, one thread each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from sumi_core.lineage.project import Project

# Read when the libraries are first imported, which is later than this.
os.environ.update(
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="true",
    DAGSTER_DISABLE_TELEMETRY="1",
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="Agg",
)
os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name in ("SUMI_PROJECT", "SUMI_STORE", "MLFLOW_TRACKING_URI", "DAGSTER_HOME"):  # they point at real work
    os.environ.pop(_name, None)

# What is synced to the disk survives a loss of power, which no test has; each sync waits for the disk.
os.fsync = lambda descriptor: None  # type: ignore[assignment]

# The same examples in every run: a failure is a change in the code, not luck. Time limits measure the machine.
settings.register_profile("sumi", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("sumi")


@pytest.fixture(scope="module", autouse=True)
def _no_home_is_left_behind() -> Iterator[None]:
    """Commands that a test runs in this process name their Dagster home in the environment: not for the next file."""
    yield
    os.environ.pop("DAGSTER_HOME", None)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The project with a computed cell, made once a session, as the current one of a file."""
    from tests.pipelines.tiny import enter, tiny_project  # later than the environment above

    project = tiny_project(tmp_path_factory)
    with pytest.MonkeyPatch.context() as patch:
        enter(project, patch)
        yield project
