"""Resources of the assets: the project on disk, and a launcher of trainings."""

from __future__ import annotations

from abc import abstractmethod

from dagster import AssetExecutionContext, Config, ConfigurableResource
from pydantic import Field

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

    @property
    def project(self) -> Project:
        """The project."""
        return Project.find()


class TrainerLauncher(ConfigurableResource):
    """A launcher of training processes: here, in a job queue, on a cluster. One subclass for each place."""

    @abstractmethod
    def bind(self, context: AssetExecutionContext) -> Launcher:
        """A launcher that reports into one asset's execution."""
