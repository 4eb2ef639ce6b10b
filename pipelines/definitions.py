"""Everything that Dagster loads of this project. Importing it reads the experiment files."""

from dagster import Definitions, define_asset_job, in_process_executor

from assets.ablation_report import ablation_report
from assets.factory import stage_asset
from assets.resources import SumiProject
from pipelines.console import console_logger
from pipelines.jobs import DESCRIPTIONS, JOBS
from pipelines.launchers import LocalLauncher
from pipelines.schedules import edited_experiments, sweep_schedules, sweeps_under_way
from sumi_core.stages import STAGES

defs = Definitions(
    assets=[*map(stage_asset, STAGES.values()), ablation_report],
    jobs=[
        define_asset_job(name, selection=list(assets), description=DESCRIPTIONS[name]) for name, assets in JOBS.items()
    ],
    schedules=sweep_schedules(),
    sensors=[sweeps_under_way, edited_experiments],
    resources={"sumi": SumiProject(), "trainer": LocalLauncher()},
    loggers={"console": console_logger},
    executor=in_process_executor,  # one process a run: a step of its own would spend seconds on imports
)
