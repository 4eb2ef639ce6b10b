"""Stages: one computation per fingerprint, in order, with everything recorded that made it."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
from pathlib import Path

import pytest

from sumi_core.base import provenance as provenance_module
from sumi_core.base.hashing import canonical_json, fingerprint
from sumi_core.base.provenance import git_state, packages, provenance, uncommitted
from sumi_core.experiments.schema import UNSAID
from sumi_core.lineage.project import Project
from sumi_core.stages import CELL_STAGES, DATA_STAGES, STAGES
from sumi_core.stages.base import MissingInput, StageContext
from sumi_core.stages.computation import Computation
from sumi_core.stages.identity import (
    experiment_fingerprints,
    refresh_source_identities,
    stage_fingerprint,
    stage_identity,
)
from tests.lineage import fakes
from tests.lineage.fakes import PLAIN_CELL_STAGES, PLAIN_STAGES, cell_of, fake_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return fake_project(tmp_path / "project", monkeypatch)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stage functions that ran, in order."""
    made: list[str] = []

    def counted(name: str):
        original = getattr(fakes, f"build_{name}")

        def build(context: StageContext) -> object:
            made.append(name)
            return original(context)

        return build

    for name in STAGES:
        monkeypatch.setattr(fakes, f"build_{name}", counted(name))
    return made


def computation(project: Project, **provenance: str) -> Computation:
    return Computation(project.store, log=lambda line: None, provenance=dict(provenance))


# --- the table ------------------------------------------------------------------------------------------------------


def test_the_table_is_in_order_and_complete() -> None:
    seen: list[str] = []
    for name, stage in STAGES.items():
        assert stage.name == name
        assert set(stage.inputs) <= set(seen)
        seen.append(name)
    assert (*DATA_STAGES, *CELL_STAGES) == tuple(STAGES)
    for name in DATA_STAGES:  # cells that differ in a model must not differ in data
        assert not {"model", "process", "schedule", "objective", "training", "seed"} & set(STAGES[name].reads)


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_has_a_function_of_its_context(name: str) -> None:
    function = STAGES[name].run
    assert list(inspect.signature(function).parameters) == ["context"]
    assert function.__doc__


# --- identity -------------------------------------------------------------------------------------------------------


def test_a_fingerprint_is_that_of_the_identity(project: Project) -> None:
    experiment = cell_of(project, "demo.s0").experiment
    for name, own in experiment_fingerprints(experiment).items():
        identity = stage_identity(experiment, name)
        assert own == fingerprint(identity) == stage_fingerprint(experiment, name)
        assert list(identity["config"]) == [section for section in STAGES[name].reads if section not in UNSAID]
        assert list(identity["inputs"]) == list(STAGES[name].inputs)


def test_cells_share_what_does_not_differ(project: Project) -> None:
    first, second = (experiment_fingerprints(cell_of(project, f"demo.s{n}").experiment) for n in (0, 1))
    assert [name for name in PLAIN_STAGES if first[name] != second[name]] == list(PLAIN_CELL_STAGES)


@pytest.mark.parametrize("name", PLAIN_STAGES)
def test_a_new_code_version_renames_the_stage_and_all_that_is_made_from_it(
    project: Project, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    experiment = cell_of(project, "demo.s0").experiment
    before = experiment_fingerprints(experiment)
    monkeypatch.setitem(STAGES, name, dataclasses.replace(STAGES[name], version="next"))
    after = experiment_fingerprints(experiment)
    downstream = {name}
    for other, stage in STAGES.items():
        if downstream & set(stage.inputs) and other in PLAIN_STAGES:
            downstream.add(other)
    assert {other for other in PLAIN_STAGES if before[other] != after[other]} == downstream


def test_a_changed_source_is_seen_after_looking_again(project: Project) -> None:
    experiment = cell_of(project, "demo.s0").experiment
    before = experiment_fingerprints(experiment)
    (project.root / "corpus.txt").write_text("in the end\n")
    assert experiment_fingerprints(experiment) == before
    refresh_source_identities()
    after = experiment_fingerprints(experiment)
    assert all(before[name] != after[name] for name in PLAIN_STAGES)


# --- computing ------------------------------------------------------------------------------------------------------


def test_everything_is_computed_once_and_then_found(project: Project, calls: list[str]) -> None:
    cell = cell_of(project, "demo.s0")
    made = computation(project).ensure_all(cell.experiment, cell.key)
    assert calls == list(PLAIN_STAGES) == list(made)
    again = computation(project)
    for name in PLAIN_STAGES:
        artifact, cached = again.ensure(cell.experiment, cell.key, name)
        assert cached
        assert (artifact.fingerprint, artifact.folder) == (made[name].fingerprint, made[name].folder)
        assert repr(artifact.manifest) == repr(made[name].manifest)  # its text, since nan is not equal to itself
    other = cell_of(project, "demo.s1")
    computation(project).ensure_all(other.experiment, other.key)
    assert calls == [*PLAIN_STAGES, *PLAIN_CELL_STAGES]


def test_a_manifest_says_what_made_the_output(project: Project) -> None:
    cell = cell_of(project, "demo.s0")
    made = computation(project, dagster_run_id="run-7").ensure_all(cell.experiment, cell.key)
    for name, artifact in made.items():
        manifest = artifact.manifest
        assert fingerprint(manifest["identity"]) == manifest["fingerprint"] == artifact.fingerprint
        assert manifest["key"] == "demo.s0"
        assert manifest["experiment"] == cell.experiment.to_dict()
        assert manifest["inputs"] == {upstream: made[upstream].fingerprint for upstream in STAGES[name].inputs}
        assert manifest["provenance"]["dagster_run_id"] == "run-7"
        assert manifest["provenance"]["git"] == git_state()
        assert manifest["provenance"]["packages"]["torch"] == packages()["torch"]
        assert manifest["seconds"] >= 0
        assert project.store.verify(artifact) == []
    assert made["token_shards"].summary == {"train_tokens": 17}


def test_a_missing_input_is_told(project: Project, calls: list[str]) -> None:
    cell = cell_of(project, "demo.s0")
    with pytest.raises(MissingInput) as caught:
        computation(project).ensure(cell.experiment, cell.key, "tokenizer")
    assert str(caught.value) == (
        "tokenizer of 'demo.s0' needs its corpus, which is not computed; materialize corpus first, "
        "or let `sumi run demo.s0` do both"
    )
    assert calls == []


def test_a_failure_is_remembered_and_a_success_forgets_it(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = cell_of(project, "demo.s0")
    own = stage_fingerprint(cell.experiment, "corpus")

    def broken(context: StageContext) -> None:
        (context.folder / "half.txt").write_text("half")
        raise ValueError("no such verse")

    with monkeypatch.context() as patch:
        patch.setattr(fakes, "build_corpus", broken)
        for attempt in (1, 2):
            with pytest.raises(ValueError, match="no such verse"):
                computation(project).ensure(cell.experiment, cell.key, "corpus")
            failure = project.store.failure("corpus", own)
            assert failure is not None
            assert (failure["error"], failure["attempts"]) == ("ValueError: no such verse", attempt)
            assert (failure["key"], list(project.store.root.glob("*/*.partial"))) == ("demo.s0", [])
    computation(project).ensure(cell.experiment, cell.key, "corpus")
    assert project.store.failure("corpus", own) is None


def test_a_resumable_stage_finds_what_an_interrupted_one_left(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = cell_of(project, "demo.s0")
    earlier = computation(project)
    for name in DATA_STAGES:
        earlier.ensure(cell.experiment, cell.key, name)
    original = fakes.build_pretrained_denoiser
    found: list[list[str]] = []

    def interrupted(context: StageContext) -> None:
        (context.folder / "last.ckpt").write_text("step 3")
        raise KeyboardInterrupt

    def resumed(context: StageContext) -> object:
        found.append([path.name for path in context.folder.iterdir()])
        return original(context)

    monkeypatch.setattr(fakes, "build_pretrained_denoiser", interrupted)
    with pytest.raises(KeyboardInterrupt):
        computation(project).ensure(cell.experiment, cell.key, "pretrained_denoiser")
    assert (
        project.store.failure("pretrained_denoiser", stage_fingerprint(cell.experiment, "pretrained_denoiser")) is None
    )
    monkeypatch.setattr(fakes, "build_pretrained_denoiser", resumed)
    _, cached = computation(project).ensure(cell.experiment, cell.key, "pretrained_denoiser")
    assert not cached
    assert found == [["last.ckpt"]]


def test_provenance_tells_code_packages_and_machine() -> None:
    told = provenance()
    assert set(told) >= {"git", "uncommitted", "python", "packages", "platform", "machine", "host", "cpus", "argv"}
    assert set(told["git"]) == {"commit", "dirty"}
    assert told["packages"].keys() >= {"torch", "numpy", "mlflow", "dagster"}
    canonical_json(told["packages"])


def test_uncommitted_sources_are_kept_as_a_patch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What git would lose: edits of known files, and Python files that it does not know; of the project around."""

    def git(*arguments: str) -> None:
        settings = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *settings, *arguments], check=True, capture_output=True)

    def found() -> str:
        uncommitted.cache_clear()
        return "".join(provenance_module._changes(tmp_path))

    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "own.yaml").write_text("seed: 1\n")
    (tmp_path / ".gitignore").write_text("ignored.py\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    monkeypatch.setenv("SUMI_PROJECT", str(tmp_path))
    assert found() == ""
    (tmp_path / "experiments" / "own.yaml").write_text("seed: 2\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "tempered.py").write_text("RATE = 1\n")
    (tmp_path / "ignored.py").write_text("no\n")
    (tmp_path / "notes.txt").write_text("no\n")
    patch = found()
    assert "-seed: 1\n+seed: 2\n" in patch
    assert "+++ b/parts/tempered.py\n@@ -0,0 +1 @@\n+RATE = 1\n" in patch
    assert "no\n" not in patch
    uncommitted.cache_clear()
    assert "+RATE = 1" in (uncommitted() or "")
    monkeypatch.setattr(provenance_module, "_MOST", 60)
    uncommitted.cache_clear()
    cut = uncommitted()
    assert cut is not None
    assert len(cut) < 120
    assert cut.splitlines()[-1].startswith("# cut here: ")
    uncommitted.cache_clear()
