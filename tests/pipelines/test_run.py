"""`sumi run` for real: Dagster, a trainer process, MLflow, two of them at once, and again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import RunsFilter
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.instance import open_instance
from sumi_core.lineage.project import Project
from sumi_core.stages import DATA_STAGES
from tests.lineage.fakes import PLAIN_CELL_STAGES
from tests.pipelines.tiny import EXPERIMENT, enter, write_texts

SUMI = [sys.executable, "-m", "pipelines.cli"]


def start(project: Project, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "SUMI_PROJECT": str(project.root), "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [*SUMI, *arguments],
        cwd=project.root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def asked_twice_at_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, list[str]]]:
    """A fresh project in which two `sumi run` of the same sweep started together; the project and what they printed."""
    root = tmp_path_factory.mktemp("twice")
    (root / "experiments").mkdir()
    (root / "experiments" / "tiny.yaml").write_text(EXPERIMENT)
    write_texts(root)
    project = Project(root)
    with pytest.MonkeyPatch.context() as patch:
        enter(project, patch)
        started = [start(project, "run", "tiny"), start(project, "run", "tiny", "--jobs", "2")]
        printed = [process.communicate(timeout=600)[0] for process in started]
        assert [process.returncode for process in started] == [0, 0], "\n".join(printed)
        yield project, printed


def test_two_at_once_compute_each_thing_once(asked_twice_at_once: tuple[Project, list[str]]) -> None:
    project, printed = asked_twice_at_once
    made = [artifact.stage for artifact in project.store.artifacts()]
    for stage in DATA_STAGES:
        assert made.count(stage) == 1
    for stage in PLAIN_CELL_STAGES:
        assert made.count(stage) == 2
    assert list(project.store.root.glob("*/*.partial")) == []
    runs = project.tracking.cell_runs(["tiny"])
    assert sorted(run.data.tags["sumi.cell"] for run in runs) == ["tiny.left", "tiny.uniform"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    for text in printed:
        assert "tiny.uniform" in text
        assert "bits per byte" in text


def test_no_step_is_logged_twice(asked_twice_at_once: tuple[Project, list[str]]) -> None:
    project, _ = asked_twice_at_once
    for run in project.tracking.cell_runs(["tiny"]):
        for name in ("train/loss", "validation/bits_per_byte", "bits_per_byte"):
            steps = [point.step for point in project.tracking.client.get_metric_history(run.info.run_id, name)]
            assert steps
            assert len(steps) == len(set(steps)), name


def test_lineage_points_both_ways(asked_twice_at_once: tuple[Project, list[str]]) -> None:
    project, _ = asked_twice_at_once
    for artifact in project.store.artifacts():
        if artifact.stage in PLAIN_CELL_STAGES:
            run = project.tracking.client.get_run(artifact.manifest["provenance"]["mlflow_run_id"])
            assert run.data.tags[f"sumi.fingerprint.{artifact.stage}"] == artifact.fingerprint
            assert run.data.tags["dagster.run_id"]
            assert {i.dataset.name for i in run.inputs.dataset_inputs} == {"corpus", "token_shards"}
            assert run.data.tags["sumi.model_id"]


def test_asking_again_computes_nothing(asked_twice_at_once: tuple[Project, list[str]]) -> None:
    project, _ = asked_twice_at_once
    before = {a.folder: (a.folder / "manifest.json").stat().st_mtime_ns for a in project.store.artifacts()}
    result = CliRunner().invoke(app, ["run", "tiny"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "2 cells: done already" in result.stdout
    assert "changed on the command line" not in result.stdout
    compared = CliRunner().invoke(app, ["compare", "tiny"], catch_exceptions=False).stdout
    assert compared.strip() in result.stdout, "one table, whoever prints it"
    after = {a.folder: (a.folder / "manifest.json").stat().st_mtime_ns for a in project.store.artifacts()}
    assert after == before


def test_a_report_that_was_cut_off_is_made_when_asked_again(asked_twice_at_once: tuple[Project, list[str]]) -> None:
    """The cells are whole, the report is not: it reaches store, Dagster and MLflow."""
    project, _ = asked_twice_at_once
    (report,) = (artifact for artifact in project.store.artifacts() if artifact.stage == "ablation_report")
    shutil.rmtree(report.folder)
    client, parent = project.tracking.client, project.tracking.open_sweep("tiny")
    client.delete_tag(parent, "sumi.recorded.ablation_report")
    asked = start(project, "run", "tiny")
    printed = asked.communicate(timeout=600)[0]
    assert asked.returncode == 0, printed
    assert "2 cells: done already" in printed
    assert "report tiny" in printed.splitlines()
    assert project.store.find("ablation_report", report.fingerprint) is not None
    assert client.get_run(parent).data.tags["sumi.recorded.ablation_report"].startswith(report.fingerprint)
    again = CliRunner().invoke(app, ["run", "tiny"], catch_exceptions=False)
    assert "report tiny" not in again.stdout.splitlines()


def test_a_plan_says_which_field_changed(asked_twice_at_once: tuple[Project, list[str]]) -> None:
    result = CliRunner().invoke(app, ["plan", "tiny.uniform", "training.steps=6"], catch_exceptions=False)
    lines = result.stdout.splitlines()
    assert any(line.startswith("  cached   token_shards") for line in lines)
    assert any("pretrained_denoiser" in line and "training.steps 4 → 6" in line for line in lines)
    assert "3 outputs to compute for 1 of 1 cells" in lines


def test_list_shows_every_state(asked_twice_at_once: tuple[Project, list[str]]) -> None:
    result = CliRunner().invoke(app, ["list"], catch_exceptions=False)
    assert "tiny  2/2 done" in result.stdout


def test_a_failing_trainer_is_told_in_its_own_words(asked_twice_at_once: tuple[Project, list[str]]) -> None:
    project, _ = asked_twice_at_once
    done = start(project, "run", "tiny.uniform", "training.learning_rate=1e30", "training.gradient_clip=0")
    printed = done.communicate(timeout=600)[0]
    assert done.returncode == 1, printed
    name = "tiny.uniform[training.gradient_clip=0,training.learning_rate=1e30]"
    [told] = [line for line in printed.splitlines() if line.startswith(f"sumi: {name} failed:")]
    assert "changed on the command line: training.learning_rate=1e30 training.gradient_clip=0" in printed.splitlines()
    assert "step" in told
    assert "checkpoint" in told
    result = CliRunner().invoke(
        app,
        ["plan", "tiny.uniform", "training.learning_rate=1e30", "training.gradient_clip=0"],
        catch_exceptions=False,
    )
    assert "(attempt 1)" in result.stdout
    # Neither in Dagster nor in MLflow does it touch the cell that the file has.
    with open_instance(project) as instance:
        runs = instance.get_runs(RunsFilter(job_name="cell"))
        ended = {run.tags["dagster/partition"]: run.status.value for run in reversed(runs)}
    assert ended == {"tiny.uniform": "SUCCESS", "tiny.left": "SUCCESS", name: "FAILURE"}
    assert {run.data.tags["sumi.cell"]: run.info.status for run in project.tracking.cell_runs(["tiny"])} == {
        "tiny.uniform": "FINISHED",
        "tiny.left": "FINISHED",
        name: "FAILED",
    }


def test_runs_belong_to_their_job_as_those_of_the_web_interface_do(
    asked_twice_at_once: tuple[Project, list[str]],
) -> None:
    project, _ = asked_twice_at_once
    with open_instance(project) as instance:
        label = {REPOSITORY_LABEL_TAG: "__repository__@pipelines.definitions"}
        for job in ("token_set", "cell", "report"):
            runs = instance.get_runs(RunsFilter(job_name=job, tags=label))
            assert runs, job
            for run in runs:
                assert run.remote_job_origin is not None
                assert (run.remote_job_origin.job_name, run.remote_job_origin.location_name) == (
                    job,
                    "pipelines.definitions",
                )


def test_a_blocked_cell_says_why_and_stops_no_other(asked_twice_at_once: tuple[Project, list[str]]) -> None:
    project, _ = asked_twice_at_once
    for name in ("gone", "lost"):
        text = EXPERIMENT.replace("texts/*.txt", f"{name}.txt").replace("axes:", "axes: {seed: [0]}\nunused:")
        (project.experiments / f"{name}.yaml").write_text(text.partition("unused:")[0])
    result = CliRunner().invoke(app, ["run", "gone", "tiny.uniform", "lost"], catch_exceptions=False)
    for name in ("gone", "lost"):
        assert f"sumi: {name}.s0 is blocked: " in result.stderr
        assert f"'{name}.txt'" in result.stderr
        (project.experiments / f"{name}.yaml").unlink()
    assert "tiny.uniform" in result.stdout
    assert "done already" not in result.stdout
    assert result.exit_code == 1


def test_an_interrupt_stops_the_sweep_and_says_how_to_go_on(asked_twice_at_once: tuple[Project, list[str]]) -> None:
    """Ctrl-C reaches the trainer, no further cell is started, and nothing is left running."""
    project, _ = asked_twice_at_once
    asked = start(project, "run", "tiny", "training.steps=1000000", "training.validate_every=1000000")
    assert asked.stdout is not None
    printed = []
    for line in asked.stdout:
        printed.append(line)
        if "/1000000" in line:
            asked.send_signal(signal.SIGINT)
            break
    printed += asked.communicate(timeout=300)[0].splitlines()
    assert asked.returncode == 130, "\n".join(printed)
    assert printed[-1] == "sumi: interrupted; the same command continues where it was"
    assert sum(line.startswith("cell ") for line in printed) == 1
    with open_instance(project) as instance:
        newest = instance.get_runs(RunsFilter(job_name="cell"), limit=1)[0]
        assert newest.status.value == "CANCELED", "a wish, and no failure"
    (run,) = (run for run in project.tracking.cell_runs(["tiny"]) if run.data.tags["dagster.run_id"] == newest.run_id)
    assert run.info.status == "KILLED"


def test_overrides_are_meant_for_the_cell_that_asks(tmp_path: Path) -> None:
    """Another file, first by name, shares the token set and could not take the override."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "tiny.yaml").write_text(EXPERIMENT)
    seeds = EXPERIMENT[: EXPERIMENT.index("axes:")] + "axes: {seed: [0, 1]}\n"
    (tmp_path / "experiments" / "first.yaml").write_text(seeds)
    write_texts(tmp_path)
    project = Project(tmp_path)
    done = start(project, "run", "tiny.uniform", "seed=1", "training.steps=1", "training.validate_every=1")
    printed = done.communicate(timeout=600)[0]
    assert done.returncode == 0, printed
    assert {artifact.manifest["key"] for artifact in project.store.artifacts()} == {
        "tiny.uniform",  # its data, which no change reaches
        "tiny.uniform[seed=1,training.steps=1,training.validate_every=1]",
        "tiny[seed=1,training.steps=1,training.validate_every=1]",
    }
