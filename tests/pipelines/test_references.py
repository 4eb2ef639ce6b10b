"""Real cells that start from each other: weights to the last bit, FLOPs, resuming, and what Dagster shows."""

from __future__ import annotations

import io
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from dagster import DagsterInstance
from safetensors.torch import load_file

from sumi_core.experiments.resolve import resolve
from sumi_core.experiments.size import experiment_size
from sumi_core.lineage.project import Project
from sumi_core.stages.base import MissingInput
from sumi_core.stages.computation import Computation
from sumi_core.stages.store import Artifact, Store
from sumi_core.trainer.request import Request
from sumi_core.trainer.run import _built, train
from sumi_core.training.errors import TrainingInterrupted
from sumi_core.training.ranks import Rank
from tests.pipelines.tiny import EXPERIMENT, Here, enter, write_texts

KEY, TRAINING, WEIGHTS = "model.initialiser.of", "pretrained_denoiser", "weights.safetensors"
BASE = EXPERIMENT[: EXPERIMENT.index("axes:")]


class Recording(Here):
    """Trains in this process, and keeps what each training was asked for and the weights it would start from."""

    def __init__(self) -> None:
        self.asked: dict[str, Request] = {}
        self.started: dict[str, dict[str, torch.Tensor]] = {}

    def run(self, request: Path) -> None:
        asked = Request.read(request)
        self.asked[asked.key] = asked
        built = _built(asked, resolve(asked.experiment, "a request"), Rank(0, 1))
        self.started[asked.key] = {name: value.clone() for name, value in built.denoiser.weights().items()}
        super().run(request)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    root = tmp_path_factory.mktemp("references")
    (root / "experiments" / "base").mkdir(parents=True)
    (root / "experiments" / "base" / "tiny.yaml").write_text(BASE.replace("description", "# description"))
    (root / "experiments" / "causal.yaml").write_text(
        "base: base/tiny\nprocess: null\nobjective: autoregressive\nmodel: {attention: causal}\n"
    )
    (root / "experiments" / "converted.yaml").write_text(
        "base: base/tiny\nmodel: {initialiser: {name: cell, of: causal}}\naxes: {process.name: [uniform, absorbing]}\n"
    )
    (root / "experiments" / "annealed.yaml").write_text(
        "base: base/tiny\nprocess: absorbing\nlayout: {name: whole, anneal: 1}\n"
        "model: {initialiser: {name: cell, of: causal, mask_row: mean}}\n"
        "evaluation: {measurements: [likelihood, initial_readings]}\n"
    )
    (root / "experiments" / "recipe.yaml").write_text(
        "base: base/tiny\n"
        "phases:\n"
        "  pretraining: {process: absorbing}\n"
        "  midtraining: {shards.sequence_length: 64, training.steps: 6}\n"
    )
    write_texts(root)
    with pytest.MonkeyPatch.context() as patch:
        enter(Project(root), patch)
        yield Project(root)


@pytest.fixture(scope="module")
def launcher() -> Recording:
    return Recording()


def experiment_of(project: Project, key: str) -> Any:
    sweeps = project.sweeps()
    assert not sweeps.broken, sweeps.broken
    return next(cell.experiment for sweep in sweeps.values() for cell in sweep.cells if cell.key == key)


@pytest.fixture(scope="module")
def made(project: Project, launcher: Recording) -> dict[str, Artifact]:
    """The training of every cell, each computed after what it starts from."""
    computation = Computation(project.store, launcher=launcher, log=lambda _: None)
    found = {}
    for key in ("converted.uniform", "converted.absorbing", "annealed", "recipe.midtraining"):
        found[key] = computation.ensure_all(experiment_of(project, key), key)[TRAINING]
    for key in ("causal", "recipe.pretraining"):
        whole = computation.whole(experiment_of(project, key), TRAINING)
        assert whole is not None
        found[key] = whole
    return found


@pytest.mark.parametrize(
    ("child", "parent", "rows"),
    [
        ("converted.uniform", "causal", (257, 257)),  # attention and objective change
        ("converted.absorbing", "causal", (258, 257)),  # a mask is new
        ("annealed", "causal", (258, 257)),
        ("recipe.midtraining", "recipe.pretraining", (257, 258)),  # a mask goes, texts are longer
    ],
)
def test_a_child_starts_at_its_parents_weights_to_the_last_bit(
    made: dict[str, Artifact], launcher: Recording, child: str, parent: str, rows: tuple[int, int]
) -> None:
    start, weights = launcher.started[child], load_file(made[parent].folder / WEIGHTS)
    assert start.keys() == weights.keys()
    assert (len(start["lm_head.weight"]), len(weights["lm_head.weight"])) == rows
    for name, value in start.items():
        shared = min(len(value), len(weights[name]))
        assert value[:shared].equal(weights[name][:shared]), name
    end = load_file(made[child].folder / WEIGHTS)
    assert not end["model.norm.weight"].equal(start["model.norm.weight"]), "it was trained on"


def test_figures_at_step_0_are_those_of_the_weights_that_the_training_began_with(
    project: Project, made: dict[str, Artifact], launcher: Recording
) -> None:
    """Read again from another start, a training at its first step gives them: the bound of what ``launcher`` kept."""
    from sumi_core.models.denoiser import Denoiser
    from sumi_core.stages.evaluation import open_model

    computation = Computation(project.store, log=lambda _: None)
    experiment = experiment_of(project, "annealed")
    evaluation, export = (computation.whole(experiment, name) for name in ("evaluation", "exported_model"))
    assert evaluation is not None
    assert export is not None
    initial = open_model(experiment, export.folder, project.store).initial()
    assert isinstance(initial, Denoiser)
    kept = launcher.started["annealed"]
    assert all(value.equal(kept[name]) for name, value in initial.weights().items())
    assert kept["lm_head.weight"][257].equal(kept["lm_head.weight"][:257].mean(0))
    start = evaluation.summary["initial_readings"]["diffusion"]
    assert abs(start - evaluation.summary["bits_per_byte"]) > 1e-4, "it was trained on"
    with pytest.raises(MissingInput, match="'causal', are not in the store; run 'causal' again"):
        open_model(experiment, export.folder).initial()


def test_flops_of_parents_are_counted_in_the_total(project: Project, made: dict[str, Artifact]) -> None:
    for child, parent in (("converted.uniform", "causal"), ("recipe.midtraining", "recipe.pretraining")):
        own, before = made[child].summary, made[parent].summary
        assert before["total_flops"] == before["flops"] > 0
        assert own["total_flops"] == own["flops"] + before["flops"]
    planned = experiment_size(experiment_of(project, "converted.uniform"), 257)
    recorded = made["converted.uniform"].summary
    assert (planned.flops, planned.total_flops) == (recorded["flops"], recorded["total_flops"])


class Interrupting(Here):
    """Is interrupted after its second step, the first time, and then goes on."""

    def run(self, request: Path) -> None:
        def report(event: dict[str, Any]) -> None:
            if "step 2/4 · validation" in event.get("text", "") and not stopped:
                stopped.append(event)
                os.kill(os.getpid(), signal.SIGTERM)

        stopped: list[dict[str, Any]] = []
        with pytest.raises(TrainingInterrupted):
            train(Request.read(request), report)
        assert stopped
        super().run(request)


def test_a_child_that_was_interrupted_goes_on_exactly(
    project: Project, made: dict[str, Artifact], tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    shutil.copytree(project.store.root, store.root)
    shutil.rmtree(store.folder(TRAINING, made["converted.uniform"].fingerprint))
    computation = Computation(store, launcher=Interrupting(), log=lambda _: None)
    again, found = computation.ensure(experiment_of(project, "converted.uniform"), "converted.uniform", TRAINING)
    assert not found
    assert again.summary["resumed"] == 1
    assert (again.folder / WEIGHTS).read_bytes() == (made["converted.uniform"].folder / WEIGHTS).read_bytes()
    assert again.summary["train_loss"] == made["converted.uniform"].summary["train_loss"]


def test_records_and_exports_are_whole_and_hold_no_folder_of_this_machine(
    project: Project, made: dict[str, Artifact], launcher: Recording
) -> None:
    asked = launcher.asked["converted.uniform"]
    folder = asked.experiment["model"]["initialiser"]["of"]["folder"]
    assert folder == str(made["causal"].folder.resolve())
    for artifact in project.store.artifacts():
        assert folder not in (artifact.folder / "manifest.json").read_text()
        if artifact.stage == "exported_model":
            assert folder not in (artifact.folder / "sumi.json").read_text()
    from sumi_core.export.loading import load_exported

    (export,) = (
        a for a in project.store.artifacts() if a.stage == "exported_model" and a.manifest["key"] == "converted.uniform"
    )
    opened = load_exported(export.folder)
    assert opened.experiment == experiment_of(project, "converted.uniform")
    assert opened.sumi["training"]["total_flops"] == made["converted.uniform"].summary["total_flops"]


def test_dagster_shows_what_a_partition_starts_from(project: Project, made: dict[str, Artifact]) -> None:
    from assets.factory import _references

    fingerprint = made["causal"].fingerprint
    assert _references(project, made["causal"]) == {}
    assert _references(project, made["converted.uniform"]) == {
        KEY: f"{TRAINING} of causal",
        f"{KEY} fingerprint": fingerprint,
    }


def test_a_report_shows_the_total_where_it_is_more(project: Project, made: dict[str, Artifact]) -> None:
    from sumi_core.base.text import short_count
    from sumi_core.reports.artifact import compare_sweep
    from sumi_core.reports.comparison_rows import table_rows

    rows = {row["cell"]: row for row in table_rows(compare_sweep(project.store, project.sweeps()["converted"]))}
    for key in ("converted.uniform", "converted.absorbing"):
        assert rows[key]["total FLOPs"] == short_count(made[key].summary["total_flops"])
        assert rows[key]["training FLOPs"] == short_count(made[key].summary["flops"]) != rows[key]["total FLOPs"]
    plain = table_rows(compare_sweep(project.store, project.sweeps()["causal"]))
    assert not any("total FLOPs" in row for row in plain)


# --- the order of runs ----------------------------------------------------------------------------------------------


def test_runs_wait_for_what_they_start_from_and_a_failure_stops_those_after_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pipelines.execution as execution
    from sumi_core.experiments.sweeps import select_cells
    from sumi_core.lineage.plan import plan_with_ancestors

    monkeypatch.setenv("SUMI_STORE", str(project.root / "nothing"))
    cells = select_cells(project.sweeps(), ["converted", "recipe.midtraining"])
    plans = plan_with_ancestors(cells, project.store)
    ran: list[str] = []

    def run_job(instance: object, job: str, key: str, overrides: object, asking: str = "") -> str | None:
        if job == "cell":
            ran.append(key)
        return "no memory" if key == "causal" else None

    monkeypatch.setattr(execution, "run_job", run_job)
    monkeypatch.setattr(execution, "TOKEN_SET_OF_CELL", {planned.cell.key: "tokens" for planned in plans})
    outcome = execution.execute(DagsterInstance.ephemeral(), plans)
    assert ran == ["causal", "recipe.pretraining", "recipe.midtraining"]
    assert outcome.failed == {
        "causal": "no memory",
        "converted.uniform": "'causal', which it starts from, failed",
        "converted.absorbing": "'causal', which it starts from, failed",
    }


class FakeProcess:
    """A cell's process that takes a moment; ``log`` holds what began and ended, in order."""

    log: ClassVar[list[str]] = []

    def __init__(self, command: list[str], **options: object) -> None:
        self.key, self.stdout = command[3], io.StringIO()
        self.log.append(f"{self.key} begins")

    def wait(self) -> int:
        time.sleep(0.05)
        self.log.append(f"{self.key} ends")
        return 0

    def terminate(self) -> None:
        raise AssertionError("nothing went wrong")


def test_cells_at_the_same_time_keep_that_order(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    import pipelines.execution as execution
    from sumi_core.experiments.sweeps import select_cells, with_ancestors

    monkeypatch.setattr(execution.subprocess, "Popen", FakeProcess)
    # Children first: the order of the plans is not relied on.
    cells = with_ancestors(select_cells(project.sweeps(), ["recipe.midtraining", "converted"]))[::-1]
    outcome = execution.Outcome()
    execution._run_cells_at_once(cells, 3, outcome)
    log = FakeProcess.log
    assert sorted(entry.split()[0] for entry in log if "begins" in entry) == sorted(cell.key for cell in cells)
    for cell in cells:
        for parent in cell.parents:
            assert log.index(f"{parent.key} ends") < log.index(f"{cell.key} begins")
    assert log.index("recipe.pretraining begins") < log.index("causal ends"), "those that can run at once do"
    assert outcome.failed == {}
