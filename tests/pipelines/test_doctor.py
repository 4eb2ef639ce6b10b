"""`sumi doctor`: every kind of damage made on purpose, told, and repaired where that loses nothing."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sumi_core.base.errors import StoreError
from sumi_core.lineage.artifact_checks import check_store
from sumi_core.lineage.checkup import Finding, check_disk, check_experiments, check_sqlite, check_versions
from sumi_core.lineage.project import Project
from sumi_core.stages import STAGES
from sumi_core.stages.store import Store
from tests.lineage.store_files import read_only
from tests.pipelines.findings import FINGERPRINT, doctor, levels, repair
from tests.pipelines.homes import ADDRESSES

# --- everything at once -----------------------------------------------------------------------------------------------


def test_nothing_is_wrong_with_a_fresh_project(project: Project) -> None:
    status, output = doctor()
    assert status == 0
    assert {line.split()[0] for line in output.splitlines()} <= {"ok", "info"}, output


def test_nothing_is_wrong_before_anything_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ADDRESSES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "experiments").mkdir()
    monkeypatch.setenv("SUMI_PROJECT", str(tmp_path))
    status, output = doctor()
    assert status == 0
    assert "there is no instance" in output
    assert not (tmp_path / ".sumi").exists(), "a look creates nothing"


def test_something_bad_gives_status_1_and_a_repair_gives_0(project: Project) -> None:
    artifact = whole(project.store)
    (artifact / "manifest.json").write_text('{"stage": "corp')
    status, output = doctor()
    assert status == 1
    [told] = [line for line in output.splitlines() if f"{artifact / 'manifest.json'} is damaged" in line]
    assert told.count("doctor --fix") == 1
    status, output = doctor("--fix")
    assert status == 0
    assert "fixed" in output
    assert not artifact.exists()
    assert artifact.with_name(f"{FINGERPRINT}.damaged-1").is_dir(), "set aside, not deleted"
    assert doctor()[0] == 0


# --- versions, files, disk, databases ---------------------------------------------------------------------------------


def test_versions_are_compared_with_the_ranges_and_the_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = levels(check_versions(tmp_path))
    assert "bad" not in told
    assert re.fullmatch(r"python \S+, \d+ packages compared with what Sumi needs", told["ok"][-1])
    (tmp_path / "constraints.txt").write_text("# tested\ntorch==1.0.0\nomegaconf==0.1 ; python_version > '3'\n")
    told = levels(check_versions(tmp_path))["info"][0]
    assert "torch" in told
    assert "pinned 1.0.0" in told
    assert "omegaconf" in told
    assert levels(check_versions(tmp_path))["ok"][-1].endswith(
        ", 2 compared with the tested versions of constraints.txt"
    )

    real = sys.modules["importlib.metadata"].version
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.6.2" if name == "lightning" else real(name))
    assert any("lightning 2.6.2 is not" in message for message in levels(check_versions(tmp_path))["bad"])


def test_every_wrong_experiment_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("modle: {}\n")
    (tmp_path / "two.yaml").write_text("axes: {}\n")
    told = levels(check_experiments(tmp_path))["bad"]
    assert [Path(message.split(":")[0]).name for message in told] == ["one.yaml", "two.yaml"]


def test_a_nearly_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    for free, level in ((100 << 20, "bad"), (2 << 30, "warn"), (50 << 30, "ok")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        assert list(levels(check_disk(tmp_path))) == [level]


def test_damaged_databases_are_told(project: Project, tmp_path: Path) -> None:
    database = project.home / "mlflow.db"
    assert levels(check_sqlite(database, "mlflow")) == {}
    truncated = tmp_path / "truncated.db"
    truncated.write_bytes(database.read_bytes()[: database.stat().st_size // 2])
    assert list(levels(check_sqlite(truncated, "mlflow"))) == ["bad"]
    nonsense = tmp_path / "nonsense.db"
    nonsense.write_bytes(b"this is no database " * 1000)
    assert "cannot be read" in levels(check_sqlite(nonsense, "mlflow"))["bad"][0]
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: full)
        [finding] = check_sqlite(nonsense, "mlflow")
    assert finding.message.endswith("nonsense.db cannot be read while the disk is full")
    assert "move" not in finding.remedy
    two = tmp_path / "two.db"
    shutil.copy(database, two)
    with sqlite3.connect(two) as connection:
        connection.execute("INSERT INTO alembic_version VALUES ('another')")
    connection.close()
    assert "2 schema revisions" in levels(check_sqlite(two, "mlflow"))["bad"][0]
    with sqlite3.connect(two) as connection:
        connection.execute("DELETE FROM alembic_version")
    connection.close()
    assert "no schema revision" in levels(check_sqlite(two, "mlflow"))["bad"][0]


def test_a_damaged_dagster_database_is_not_opened(project: Project) -> None:
    database = project.dagster_home / "schedules" / "schedules.db"
    with sqlite3.connect(database) as connection:
        connection.execute("INSERT INTO alembic_version VALUES ('another')")
    connection.close()
    status, output = doctor()
    assert status == 1
    assert f"{database} names 2 schema revisions" in output


# --- artifacts --------------------------------------------------------------------------------------------------------


def whole(store: Store, stage: str = "corpus", fingerprint: str = FINGERPRINT) -> Path:
    with store.building(stage, fingerprint) as build:
        (build.folder / "train.txt").write_text("in the beginning")
        return build.finish({"summary": {}, "inputs": {}}).folder


def test_interrupted_work_that_resumes_is_no_fault_and_is_kept(project: Project) -> None:
    partial = project.store.root / "pretrained_denoiser" / f"{FINGERPRINT}.partial"
    partial.mkdir(parents=True)
    told = levels(check_store(project.store))
    assert told["info"] == [f"pretrained_denoiser {FINGERPRINT} was interrupted"]
    assert {"warn", "bad"}.isdisjoint(told)
    assert repair(check_store(project.store)) == []
    assert partial.is_dir()


def test_measurements_are_outputs_like_any_other(project: Project) -> None:
    kind, other = "evaluation.likelihood", FINGERPRINT[::-1]
    with project.store.building(kind, other) as build:
        (build.folder / "findings.json").write_text("{}")
        whole = build.finish({"summary": {}, "inputs": {}}).folder
    partial = project.store.root / kind / f"{FINGERPRINT}.partial"
    partial.mkdir()
    told = levels(check_store(project.store, deep=True))
    assert told["info"] == [f"{kind} {FINGERPRINT} was interrupted"]
    assert {"warn", "bad"}.isdisjoint(told)
    assert repair(check_store(project.store)) == [f"removed {partial}"]
    (whole / "findings.json").write_text("changed")
    assert levels(check_store(project.store))["bad"] == [f"{whole / 'findings.json'} has 7 bytes instead of 2"]


def test_debris_is_removed_unless_somebody_works_on_it(project: Project) -> None:
    partial = project.store.root / "evaluation" / f"{FINGERPRINT}.partial"
    bare = project.store.root / "corpus" / "fedcba9876543210"
    for folder in (partial, bare):
        folder.mkdir(parents=True)
        (folder / "file").write_text("half")
    locks = project.store.root / "evaluation" / ".locks"
    locks.mkdir()
    with (locks / f"{FINGERPRINT}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        told = levels(check_store(project.store))
        assert told["info"] == [f"evaluation {FINGERPRINT} is being computed now"]
        assert told["warn"] == [f"{bare} has no manifest: what a killed removal left"]
        assert repair(check_store(project.store)) == [f"removed {bare}"]
        assert partial.is_dir()
    assert repair(check_store(project.store)) == [f"removed {partial}"]
    assert not partial.exists()
    assert not bare.exists()


def test_what_an_interrupted_report_left_is_debris(project: Project) -> None:
    """The next report has another fingerprint, so that nothing would ever take the folder over."""
    partial = project.store.partial("ablation_report", FINGERPRINT)
    partial.mkdir(parents=True)
    assert levels(check_store(project.store))["warn"] == [f"{partial} is what an interrupted ablation_report left"]
    with project.store.building("ablation_report", FINGERPRINT, resumable=True):
        assert repair(check_store(project.store)) == []
    assert repair(check_store(project.store)) == [f"removed {partial}"]
    assert not partial.exists()


@pytest.mark.parametrize("stage", ["corpus", "pretrained_denoiser"])
def test_doctor_and_store_agree_on_a_failed_stage(project: Project, stage: str) -> None:
    store, resumable = project.store, STAGES[stage].resumable
    with contextlib.suppress(ZeroDivisionError), store.building(stage, FINGERPRINT, resumable=resumable):
        store.record_failure(stage, FINGERPRINT, "demo.one", "the loss\nis nan")
        raise ZeroDivisionError
    assert store.condition(stage, FINGERPRINT).state == "failed"
    (finding,) = (found for found in check_store(store) if found.level == "info")
    assert finding.message == f"{stage} {FINGERPRINT} of demo.one failed: the loss is nan (attempt 1)"
    assert finding.remedy == f"`sumi run demo.one` {'continues where it was' if resumable else 'tries again'}"
    with store.building(stage, FINGERPRINT, resumable=resumable) as build:
        assert levels(check_store(store))["info"] == [f"{stage} {FINGERPRINT} is being computed now"]
        build.finish({"summary": {}})
    assert "info" not in levels(check_store(store))


def test_a_repair_that_fails_is_told_and_hides_no_other(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = whole(project.store)
    (folder / "manifest.json").write_text("{")
    debris = project.store.root / "corpus" / "fedcba9876543210"
    debris.mkdir()

    def refuse(path: Path, target: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        status, output = doctor("--fix")
    assert status == 1
    assert f"[Errno {errno.EROFS}] Read-only file system: '{folder}'" in output
    assert not debris.exists()
    assert doctor("--fix")[0] == 0


def test_a_read_only_project_is_looked_over(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = whole(project.store)
    (project.experiments / "one.yaml").write_text("description: one\n")
    (folder / "manifest.json").write_text("{")
    with monkeypatch.context() as patch:
        read_only(patch, project.root)
        status, output = doctor("--fix")
    assert status == 1, "the damaged output"
    told = "\n".join(line for line in output.splitlines() if not line.startswith("ok"))
    assert f"{project.home} cannot be written: nothing can be computed or repaired" in told
    assert f"runs were not checked: Dagster needs to write to {project.dagster_home}" in told
    assert f"runs were not checked: MLflow needs to write to {project.home}" in told
    assert "databases in" in output, "they were read"
    assert "1 files with 1 cells are valid" in output
    assert folder.is_dir()


def test_an_area_that_cannot_be_looked_at_hides_no_other(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> Iterator[Finding]:
        raise StoreError("no locks here")
        yield

    monkeypatch.setattr("pipelines.health.check_dagster", broken)
    status, output = doctor()
    assert status == 1
    assert (
        "bad   dagster      no locks here; correct that, then run `sumi doctor` again for the rest"
        in output.splitlines()
    )
    assert any(line.startswith("ok    mlflow") for line in output.splitlines())


def test_a_repair_looks_again_before_it_removes(project: Project) -> None:
    """Between the finding and the repair somebody may have begun."""
    partial = project.store.root / "evaluation" / f"{FINGERPRINT}.partial"
    partial.mkdir(parents=True)
    found = [finding for finding in check_store(project.store) if finding.fix is not None]
    with project.store.building("evaluation", FINGERPRINT) as build:
        (build.folder / "file").write_text("new work")
        assert [finding.fix() for finding in found if finding.fix] == [f"{partial} was seen to already"]
        assert (build.folder / "file").exists()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe"), "manifest.json is damaged"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json is damaged"),
        (lambda folder: (folder / "train.txt").write_text("shorter"), "train.txt has 7 bytes instead of 16"),
        (lambda folder: (folder / "train.txt").unlink(), "train.txt is missing"),
        (lambda folder: folder.rename(folder.with_name("f" * 16)), f"holds the output {FINGERPRINT}, not its own"),
    ],
)
def test_damaged_outputs_are_told(project: Project, damage: object, told: str) -> None:
    damage(whole(project.store))  # type: ignore[operator]
    assert told in levels(check_store(project.store))["bad"][0]


def test_only_a_deep_look_finds_a_flipped_byte(project: Project) -> None:
    folder = whole(project.store)
    (folder / "train.txt").write_text("in the beginninG")
    assert "bad" not in levels(check_store(project.store))
    assert "differs from its recorded SHA-256" in levels(check_store(project.store, deep=True))["bad"][0]
