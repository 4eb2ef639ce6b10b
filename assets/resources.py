"""Resources of the assets: the project on disk, and a launcher of trainings."""

from __future__ import annotations

from abc import abstractmethod

from dagster import AssetExecutionContext, Config, ConfigurableResource, InitResourceContext
from pydantic import Field

from assets.partitions import CELLS_BY_KEY, SWEEPS_BY_NAME, TOKEN_SET_OF_CELL, known_partition
from sumi_core.lineage.project import Project
from sumi_core.stages.base import Launcher


class CellConfig(Config):
    """Run config of every asset: changes to the partition's experiment, as on the command line."""

    overrides: list[str] = Field(default=[], description="Dotlist overrides such as training.steps=100.")
    cell: str = Field(
        default="", description="Which of the cells that share a token set it is computed for; none: the first."
    )


class SumiProject(ConfigurableResource):
    """The project folder, found as the command line finds it: SUMI_PROJECT, or upwards from here."""

    def setup_for_execution(self, context: InitResourceContext) -> None:
        """Refuse a run whose partition the experiment files no longer have, in words: it may have waited in the queue
        while its cell was renamed, and Dagster would end it in an error about ranges. Raises ConfigError."""
        partition = context.run.tags.get("dagster/partition") if context.run else None
        if partition is not None:
            known_partition(partition, {**SWEEPS_BY_NAME, **CELLS_BY_KEY, **dict.fromkeys(TOKEN_SET_OF_CELL.values())})

    @property
    def project(self) -> Project:
        """The project."""
        return Project.find()


class TrainerLauncher(ConfigurableResource):
    """A launcher of training processes: here, in a job queue, on a cluster. One subclass for each place."""

    @abstractmethod
    def bind(self, context: AssetExecutionContext) -> Launcher:
        """A launcher that reports into one asset's execution."""
