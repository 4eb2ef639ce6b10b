"""Everything Dagster knows of this project. Loading it reads the experiment files."""

from dagster import Definitions, define_asset_job, in_process_executor, load_assets_from_modules

from assets import (
    ablation_report,
    corpus,
    evaluation,
    exported_model,
    pretrained_denoiser,
    token_clusters,
    token_shards,
    tokenizer,
)
from assets.resources import SumiProject
from pipelines.console import console_logger
from pipelines.launchers import LocalLauncher
from pipelines.schedules import edited_experiments, sweep_schedules, sweeps_under_way
from sumi_core.stages import CELL_STAGES, DATA_STAGES

token_set_job = define_asset_job("token_set", selection=list(DATA_STAGES), description="Corpus, tokenizer and shards.")
cell_job = define_asset_job("cell", selection=list(CELL_STAGES), description="Train, export and evaluate one cell.")
report_job = define_asset_job("report", selection=["ablation_report"], description="Compare the cells of a sweep.")

defs = Definitions(
    assets=load_assets_from_modules(
        [
            corpus,
            tokenizer,
            token_shards,
            token_clusters,
            pretrained_denoiser,
            exported_model,
            evaluation,
            ablation_report,
        ]
    ),
    jobs=[token_set_job, cell_job, report_job],
    schedules=sweep_schedules(),
    sensors=[sweeps_under_way, edited_experiments],
    resources={"sumi": SumiProject(), "trainer": LocalLauncher()},
    loggers={"console": console_logger},
    executor=in_process_executor,  # one process a run: a step of its own would spend seconds on imports
)
