"""What schedules and sensors ask for: waves of runs, told from the store and from the runs that were asked for before.

The stages here take no time (``tests.lineage.fakes``); the instance is Dagster's own, in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRunStatus, RunRequest

from pipelines.automation import ASKER_TAG, RECIPE_TAG, SWEEP_TAG, Partitions, Wave, is_under_way, next_wave
from sumi_core.experiments.sweeps import Sweep
from sumi_core.experiments.token_sets import token_set_names
from sumi_core.lineage.project import Project
from sumi_core.stages import DATA_STAGES
from sumi_core.stages.computation import Computation
from sumi_core.stages.identity import refresh_source_identities, stage_fingerprint
from tests.lineage.fakes import cell_of, compute, fake_project

SUCCESS, FAILURE, CANCELED = DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return fake_project(tmp_path / "project", monkeypatch)


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as made:
        yield made


class Daemon:
    """Asks for waves and pretends to run them, for real as far as the store is concerned."""

    def __init__(self, instance: DagsterInstance, project: Project) -> None:
        self.instance, self.project = instance, project

    @property
    def sweep(self) -> Sweep:
        refresh_source_identities()
        return self.project.sweeps()["demo"]

    def ask(self, asker: str = "schedule", known: Partitions | None = None, **more: object) -> Wave:
        cells = {cell.key: cell.experiment for cell in self.sweep.cells}
        loaded = known or Partitions(list(cells), token_set_names(cells.items()), ["demo"])
        return next_wave(self.instance, self.project.store, self.sweep, loaded, asker, **more)  # type: ignore[arg-type]

    def run(self, request: RunRequest, status: DagsterRunStatus = SUCCESS) -> None:
        tags = {**request.tags, "dagster/partition": str(request.partition_key)}
        if status == SUCCESS and request.tags[RECIPE_TAG] != "report":
            key = request.partition_key if request.partition_key in names(self.sweep) else self.sweep.cells[0].key
            assets = [asset.to_user_string() for asset in request.asset_selection or ()]
            computation = Computation(self.project.store, log=lambda _: None)
            for stage in DATA_STAGES if "corpus" in assets else assets:
                if stage != "token_clusters":
                    computation.ensure(cell_of(self.project, str(key)).experiment, str(key), stage)
        self.instance.create_run_for_job(_job(), tags=tags, status=status)


def names(sweep: Sweep) -> list[str]:
    return [cell.key for cell in sweep.cells]


def _job() -> object:
    from dagster import job

    @job
    def nothing() -> None:
        pass

    return nothing


@pytest.fixture
def daemon(instance: DagsterInstance, project: Project) -> Daemon:
    return Daemon(instance, project)


def partitions(wave: Wave) -> list[str]:
    return [str(request.partition_key) for request in wave.requests]


def test_waves_are_token_sets_then_cells_then_the_report_and_then_nothing(daemon: Daemon) -> None:
    compute(daemon.project, "demo.s1")
    (daemon.project.root / "corpus.txt").write_text("in the end\n")
    first = daemon.ask()
    assert partitions(first) == ["text.byte.128"]
    assert not first.last
    daemon.run(first.requests[0])
    second = daemon.ask()
    assert partitions(second) == ["demo.s0", "demo.s1", "demo.s2", "demo.s3"]
    for request in second.requests:
        own = stage_fingerprint(cell_of(daemon.project, str(request.partition_key)).experiment, "evaluation")
        assert request.run_key == f"demo:{request.partition_key}:{own}:1"
        daemon.run(request)
    assert is_under_way(daemon.instance, "demo", "schedule")
    third = daemon.ask()
    assert (partitions(third), third.last) == (["demo"], True)
    assert [asset.to_user_string() for asset in third.requests[0].asset_selection or ()] == ["ablation_report"]
    daemon.run(third.requests[0])
    assert not is_under_way(daemon.instance, "demo", "schedule")
    assert (daemon.ask().requests, daemon.ask().why) == ([], "demo: every cell is done")


def test_nothing_is_asked_for_while_the_last_wave_runs(daemon: Daemon) -> None:
    daemon.run(daemon.ask().requests[0], DagsterRunStatus.STARTED)
    wave = daemon.ask()
    assert (wave.requests, wave.last, wave.why) == ([], False, "demo: 1 of its runs are in progress")


def test_a_failed_cell_is_tried_again_as_often_as_the_file_says(daemon: Daemon) -> None:
    file = daemon.project.experiments / "demo.yaml"
    file.write_text(file.read_text() + "retries: 2\n")
    for key in ("demo.s0", "demo.s1", "demo.s2"):
        compute(daemon.project, key)
    asked = []
    while partitions(wave := daemon.ask()) == ["demo.s3"]:
        asked.append(str(wave.requests[0].run_key).rpartition(":")[2])
        daemon.run(wave.requests[0], FAILURE)
    assert asked == ["1", "2", "3"]
    assert (partitions(wave), wave.why) == (["demo"], "failed, and no attempt is left: demo.s3")
    daemon.run(wave.requests[0])
    assert daemon.ask().requests == []
    file.write_text(file.read_text().replace("steps: 4", "steps: 5"))
    assert partitions(daemon.ask()) == ["demo.s0", "demo.s1", "demo.s2", "demo.s3"], "another recipe starts afresh"


def test_failures_on_the_command_line_count_and_success_forgets_them(daemon: Daemon) -> None:
    cell = compute(daemon.project, "demo.s0")
    sweep = daemon.sweep
    for other in sweep.cells[1:]:
        compute(daemon.project, other.key)
    own = stage_fingerprint(cell.experiment, "evaluation")
    artifact = daemon.project.store.find("evaluation", own)
    assert artifact is not None
    artifact.folder.rename(artifact.folder.with_suffix(".gone"))
    daemon.project.store.record_failure("evaluation", own, cell.key, "no room")
    wave = daemon.ask()
    assert str(wave.requests[0].run_key).endswith(":2")
    daemon.run(wave.requests[0], FAILURE)
    daemon.project.store.record_failure("evaluation", own, cell.key, "no room")
    assert daemon.ask().why == "failed, and no attempt is left: demo.s0"
    compute(daemon.project, "demo.s0")
    assert daemon.ask().why == "every cell is done"


def test_a_token_set_that_fails_holds_its_cells_back_and_is_given_up_too(daemon: Daemon) -> None:
    for _ in range(2):
        wave = daemon.ask()
        assert partitions(wave) == ["text.byte.128"]
        daemon.run(wave.requests[0], FAILURE)
    wave = daemon.ask()
    assert partitions(wave) == ["demo"]
    assert wave.why == "failed, and no attempt is left: demo.s0, demo.s1, demo.s2, demo.s3"


def test_what_somebody_cancelled_is_left_alone_until_it_is_asked_for_again(daemon: Daemon) -> None:
    daemon.run(daemon.ask().requests[0])
    first, *others = daemon.ask().requests
    daemon.run(first, CANCELED)
    for request in others:
        daemon.run(request)
    assert partitions(daemon.ask(follows=True)) == ["demo"]
    again = daemon.ask()
    assert partitions(again) == [first.partition_key]
    assert again.requests[0].run_key != first.run_key


def test_only_the_cells_that_are_named_are_asked_for_and_the_report_after_them(daemon: Daemon) -> None:
    daemon.run(daemon.ask("edit", only=["demo.s2"]).requests[0])
    cells = daemon.ask("edit", only=["demo.s2"], follows=True)
    assert partitions(cells) == ["demo.s2"]
    assert not is_under_way(daemon.instance, "demo", "schedule"), "the schedule's sensor leaves it alone"
    daemon.run(cells.requests[0])
    wave = daemon.ask("edit", only=["demo.s2"], follows=True)
    assert (partitions(wave), wave.last) == (["demo"], True)
    assert {request.tags[key] for request in wave.requests for key in (SWEEP_TAG, ASKER_TAG)} == {"demo", "edit"}


def test_cells_that_dagster_has_not_loaded_are_named_and_the_others_asked_for(daemon: Daemon) -> None:
    compute(daemon.project, "demo.s0")
    known = Partitions(["demo.s0", "demo.s1"], dict.fromkeys(["demo.s0", "demo.s1"], "text.byte.128"), ["demo"])
    wave = daemon.ask(known=known)
    assert partitions(wave) == ["demo.s1"]
    assert wave.unknown == ["demo.s2", "demo.s3"]
    assert wave.why == "not loaded by Dagster yet: demo.s2, demo.s3"


@pytest.mark.parametrize("harm", ["blocked", "damaged"])
def test_what_no_run_can_mend_is_not_asked_for(daemon: Daemon, harm: str) -> None:
    cell = compute(daemon.project, "demo.s0")
    if harm == "blocked":
        (daemon.project.root / "corpus.txt").unlink()
    else:
        own = stage_fingerprint(cell.experiment, "evaluation")
        (daemon.project.store.folder("evaluation", own) / "manifest.json").write_text("{")
    wave = daemon.ask()
    assert cell.key not in partitions(wave)
    assert f"{harm}: demo.s0" in wave.why


def test_waves_put_what_a_cell_starts_from_before_it(project: Project, instance: DagsterInstance) -> None:
    """The parents are of another sweep; one of them fails for good, and its child is left out."""
    project.experiments.joinpath("child.yaml").write_text(
        "base: demo\nmodel: {initialiser: {name: cell, of: demo}}\naxes: {seed: [0, 1]}\nretries: 0\n"
    )

    def wave() -> Wave:
        refresh_source_identities()
        sweeps = project.sweeps()
        cells = {cell.key: cell.experiment for sweep in sweeps.values() for cell in sweep.cells}
        known = Partitions(list(cells), token_set_names(cells.items()), list(sweeps))
        return next_wave(instance, project.store, sweeps["child"], known, "schedule")

    def end(request: RunRequest, status: DagsterRunStatus) -> None:
        if status == SUCCESS:
            compute(project, str(request.partition_key))
        instance.create_run_for_job(_job(), tags=dict(request.tags), status=status)

    compute(project, "demo.s2")  # and with it the data
    first = wave()
    assert partitions(first) == ["demo.s0", "demo.s1"]
    assert {request.tags[SWEEP_TAG] for request in first.requests} == {"child"}
    assert "which they start from, is not computed: child.s0" in first.why
    end(first.requests[0], SUCCESS)
    end(first.requests[1], FAILURE)
    second = wave()
    assert partitions(second) == ["child.s0"]
    end(second.requests[0], SUCCESS)
    third = wave()
    assert (partitions(third), third.last) == (["child"], True)
    assert "failed, and no attempt is left: demo.s1" in third.why
    assert "demo.s1, which they start from, is not computed: child.s1" in third.why
