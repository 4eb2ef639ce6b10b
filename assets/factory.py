"""Assets generated from the stages: find or compute the stage, record it in MLflow, describe it to Dagster."""

# No postponed annotations: Dagster reads those of an asset's function.

import base64
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetsDefinition,
    DataVersion,
    MaterializeResult,
    MetadataValue,
    PartitionsDefinition,
    PreviewWarning,
    asset,
)

from assets.partitions import (
    CELLS_BY_KEY,
    SWEEPS_BY_NAME,
    cell_of_token_set,
    dependency,
    known_partition,
    partitions_of,
    refuse_other_name,
)
from assets.resources import CellConfig, SumiProject, TrainerLauncher
from sumi_core.base.hashing import flatten
from sumi_core.experiments.sweeps import Cell, Sweep, load_sweep, select_cells
from sumi_core.lineage.links import dagster_run
from sumi_core.lineage.project import Project
from sumi_core.lineage.targets import mlflow_url
from sumi_core.lineage.tracking import tracked_failure
from sumi_core.stages import CELL_STAGES, STAGES, TOKEN_TABLES
from sumi_core.stages.base import Check, Stage
from sumi_core.stages.computation import Computation
from sumi_core.stages.identity import refresh_source_identities, stage_fingerprint, stages_of
from sumi_core.stages.store import Artifact

IMAGE_LIMIT_BYTES = 500_000  # larger pictures stay in the store: Dagster keeps metadata in its database
PROGRESS_SECONDS = 10.0


def stage_asset(stage: Stage) -> AssetsDefinition:
    """The asset of a stage: its dependencies, checks, pool and description are what the stage declares."""
    partitions = partitions_of(stage)
    upstream = [*stage.inputs]
    if stage.takes_tables:
        upstream += [name for name in dict.fromkeys(TOKEN_TABLES.values()) if name not in upstream]

    @asset(
        name=stage.name,
        deps=[dependency(stage, STAGES[name]) for name in upstream],
        partitions_def=partitions,
        group_name=stage.group,
        kinds=set(stage.kinds),
        pool=stage.pool,
        code_version=stage.version,
        description=stage.description,
        check_specs=[_check_spec(stage, check, partitions) for check in stage.checks],
    )
    def made(
        context: AssetExecutionContext, config: CellConfig, sumi: SumiProject, trainer: TrainerLauncher
    ) -> MaterializeResult:
        return materialize_stage(context, sumi, config, stage, trainer)

    return made


def _check_spec(stage: Stage, check: Check, partitions: PartitionsDefinition) -> AssetCheckSpec:
    """A check with a result for each partition; one without ``partitions`` shows that of whichever ran last."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PreviewWarning)
        return AssetCheckSpec(check.name, asset=stage.name, partitions_def=partitions, description=check.description)


def check_results(stage: Stage, artifact: Artifact) -> list[AssetCheckResult]:
    """What the checks of a stage find in an output, as Dagster has it."""
    return [
        AssetCheckResult(
            check_name=check.name,
            passed=verdict.passed,
            severity=AssetCheckSeverity.WARN if check.warn else AssetCheckSeverity.ERROR,
            description=verdict.description or None,
            metadata=dict(verdict.metadata),
        )
        for check in stage.checks
        for verdict in [check.run(artifact)]
    ]


def materialize_stage(
    context: AssetExecutionContext, sumi: SumiProject, config: CellConfig, stage: Stage, trainer: TrainerLauncher
) -> MaterializeResult:
    """Compute a stage for its partition, or find it. A stage that is whole already is reported with the same data
    version, so that what is downstream stays fresh."""
    sweep, cell = _cell(context.partition_key, stage, sumi, config)
    refresh_source_identities()
    if stage.name not in stages_of(cell.experiment):
        why = f"no part of {cell.key} is made from what {stage.name} measures"
        return MaterializeResult(
            metadata={"cached": True, "used": False, "why": why},
            data_version=DataVersion("unused"),
            check_results=[AssetCheckResult(check_name=c.name, passed=True, description=why) for c in stage.checks],
        )
    project, label = sumi.project, _label(cell, sweep, stage, sumi.project)
    computation = Computation(
        project.store,
        launcher=trainer.bind(context),
        log=context.log.info,
        progress=_Progress(context.log.info),
        provenance={"dagster_run_id": context.run_id},
    )
    if stage.partition == "token_set":
        artifact, cached = computation.ensure(cell.experiment, label, stage.name)
        return _result(stage, artifact, cached, {})

    tracking = project.tracking
    tags = {
        "dagster.run_id": context.run_id,
        "dagster.run_url": dagster_run(context.run_id),
        "dagster.partition": cell.key,
    }
    run_id = tracking.open_cell(cell, sweep.description, tags)
    computation.tracking_uri, computation.run_id = tracking.uri, run_id
    computation.provenance["mlflow_run_id"] = run_id
    with tracked_failure(tracking, run_id):
        artifact, cached = computation.ensure(cell.experiment, label, stage.name)
        for earlier in stages_of(cell.experiment):
            found = computation.whole(cell.experiment, earlier)
            if found is not None:
                tracking.record_stage(run_id, found)
    if stage.name == CELL_STAGES[-1]:
        tracking.close(run_id)
    links = {"mlflow_run": MetadataValue.url(tracking.run_url(run_id)), "mlflow_run_id": run_id}

    def page_url(place: str) -> str:
        return tracking.run_url(run_id, f"{stage.name}/{place}")

    return _result(stage, artifact, cached, {**links, **_references(project, artifact)}, page_url)


def _references(project: Project, artifact: Artifact) -> dict[str, Any]:
    """The outputs of other cells that an output is made from. They are not dependencies of the asset, since a partition
    cannot depend on another one of the same asset."""
    shown: dict[str, Any] = {}
    for key, ref in artifact.manifest.get("references", {}).items():
        shown |= {key: f"{ref['stage']} of {ref['cell']}", f"{key} fingerprint": ref["fingerprint"]}
        found = project.store.condition(ref["stage"], ref["fingerprint"]).artifact
        url, _ = mlflow_url(project, found.manifest.get("provenance", {}).get("mlflow_run_id") if found else None)
        if url is not None:
            shown[f"{key} mlflow_run"] = MetadataValue.url(url)
    return shown


def _cell(partition: str, stage: Stage, sumi: SumiProject, config: CellConfig) -> tuple[Sweep, Cell]:
    """The partition's cell as its file is now, with the run's overrides, or those that its name has. Of other files,
    only those are read that name cells which this one starts from.

    Raises ConfigError for overrides that make another cell than the partition is named for."""
    if stage.partition == "cell":
        known = known_partition(partition, CELLS_BY_KEY)
    else:  # overrides are those of one cell: others that share its tokens may not take them
        known = CELLS_BY_KEY[config.cell] if config.cell else cell_of_token_set(partition)
    overrides = (*known.overrides, *(own for own in config.overrides if own not in known.overrides))
    sweep = load_sweep(SWEEPS_BY_NAME[known.sweep].file, sumi.project.experiments, overrides)
    cell = select_cells({sweep.name: sweep}, [known.plain])[0]
    refuse_other_name(partition, known.key, cell.key, cell.request)
    return sweep, cell


def _label(cell: Cell, sweep: Sweep, stage: Stage, project: Project) -> str:
    """The name that an output is made under: that of the plain cell where no change reaches the stage, since the output
    is that cell's too, and its card and report are to say nothing of a change."""
    if not cell.change:
        return cell.key
    plain = select_cells({sweep.name: load_sweep(sweep.file, project.experiments)}, [cell.plain])[0]
    own = stage_fingerprint(cell.experiment, stage.name)
    return plain.key if own == stage_fingerprint(plain.experiment, stage.name) else cell.key


class _Progress:
    """Progress of a stage as lines of its log, one every few seconds, and the last of what such a line was about."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log, self._last, self._open = log, time.monotonic(), ""

    def __call__(self, done: float, total: float, unit: str, note: str) -> None:
        ends = self._open == note and 0 < total <= done
        if ends or time.monotonic() - self._last >= PROGRESS_SECONDS:
            self._last, self._open = time.monotonic(), "" if ends else note
            self._log(f"{note}: {done:,.0f}{f' of {total:,.0f}' if total else ''} {unit}")


def _result(
    stage: Stage,
    artifact: Artifact,
    cached: bool,
    links: dict[str, Any],
    page_url: Callable[[str], str] | None = None,
) -> MaterializeResult:
    return MaterializeResult(
        metadata={**links, **artifact_metadata(artifact, page_url), "cached": cached},
        data_version=DataVersion(artifact.fingerprint),
        check_results=check_results(stage, artifact),
        tags={"sumi/fingerprint": artifact.fingerprint},
    )


def artifact_metadata(artifact: Artifact, page_url: Callable[[str], str] | None = None) -> dict[str, Any]:
    """A stage's report, pictures and figures, in the order in which Dagster shows them: what people look at first.
    Figures are rounded, and those of a group are one table: every digit is in the output's folder. page_url: as of
    ``folder_metadata``."""
    groups: dict[str, list[str]] = {}
    figures: dict[str, Any] = {}
    for key, value in artifact.summary.items():
        if isinstance(value, Mapping):
            groups[key] = [f"| {name} | {_rounded(own)} |" for name, own in flatten(value)]
        elif isinstance(value, bool | int | float | str):
            figures[key] = _rounded(value)
        elif value is not None:
            figures[key] = MetadataValue.json(value)
    tables = {
        key: MetadataValue.md("\n".join([f"| {key} | |", "| --- | --- |", *lines]))
        for key, lines in groups.items()
        if lines
    }
    return {
        **folder_metadata(artifact.folder, page_url),
        **figures,
        **tables,
        "fingerprint": artifact.fingerprint,
        "place in the store": artifact.place,
        "seconds": round(float(artifact.manifest["seconds"]), 3),
    }


def _rounded(value: Any) -> Any:
    """A figure as it is shown: six significant digits."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def folder_metadata(folder: Path, page_url: Callable[[str], str] | None = None) -> dict[str, Any]:
    """``report.md`` and the pictures of a folder as Markdown metadata; the pictures travel inside it, and one that is
    too large for that says so. Pages, such as a film, by their path. page_url: the address at which a file of the
    folder, by its path in it, can be seen; None: at none."""
    shown: dict[str, Any] = {}
    if (folder / "report.md").is_file():
        shown["report"] = MetadataValue.md((folder / "report.md").read_text(encoding="utf-8"))
    for plot in sorted((folder / "plots").glob("*")):
        kind, size = plot.suffix.removeprefix("."), plot.stat().st_size
        url = page_url(plot.relative_to(folder).as_posix()) if page_url else None
        if kind == "html":
            own = {} if url is None else {f"page_{plot.stem}": MetadataValue.url(url)}
            shown |= {**own, f"page_{plot.stem}_file": MetadataValue.path(plot)}
        elif kind in ("png", "gif") and size <= IMAGE_LIMIT_BYTES:
            data = base64.b64encode(plot.read_bytes()).decode()
            shown[f"plot_{plot.stem}"] = MetadataValue.md(f"![{plot.stem}](data:image/{kind};base64,{data})")
        elif kind in ("png", "gif"):
            where = f"`{plot}`" if url is None else f"[in MLflow]({url})"
            limit = f"{IMAGE_LIMIT_BYTES / 1000:,.0f} kB"
            why = f"{size / 1000:,.0f} kB, above the {limit} of a picture in Dagster's database"
            shown[f"plot_{plot.stem}"] = MetadataValue.md(f"Not shown: {why}. It is {where}.")
    return shown
