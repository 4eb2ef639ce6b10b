"""The state of every cell: what is done, what would be computed and why, and that no damage hides the others."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sumi_core.lineage.plan import CellPlan, changed_fields, plan
from sumi_core.lineage.project import Project
from sumi_core.reports.artifact import build_sweep_report
from sumi_core.stages.identity import refresh_source_identities, stage_fingerprint
from tests.lineage.fakes import PLAIN_CELL_STAGES, PLAIN_STAGES, cell_of, compute, fake_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return fake_project(tmp_path / "project", monkeypatch)


def plans(project: Project, *overrides: str) -> dict[str, CellPlan]:
    refresh_source_identities()
    return {planned.cell.plain: planned for planned in plan(project.sweeps(overrides)["demo"].cells, project.store)}


def states(planned: CellPlan) -> dict[str, str]:
    return {stage.stage: stage.state for stage in planned.stages}


# --- states ---------------------------------------------------------------------------------------------------------


def test_what_is_computed_is_done_and_the_rest_missing(project: Project) -> None:
    compute(project, "demo.s0")
    told = plans(project)
    assert set(states(told["demo.s0"]).values()) == {"done"}
    assert (told["demo.s0"].state, told["demo.s0"].why) == ("done", "every stage is whole")
    assert list(told["demo.s0"].artifacts) == list(PLAIN_STAGES)
    assert [stage.stage for stage in told["demo.s1"].pending] == list(PLAIN_CELL_STAGES)
    assert (told["demo.s1"].state, told["demo.s1"].why) == ("missing", "pretrained_denoiser: never computed")


def test_a_changed_field_makes_what_depends_on_it_stale(project: Project) -> None:
    compute(project, "demo.s0")
    told = plans(project, "training.steps=9")["demo.s0"]
    assert (told.state, told.why) == ("missing", "pretrained_denoiser: training.steps 4 → 9")
    assert told.stages[-1].why == "its input exported_model changes"


def test_what_changed_is_told_of_every_cell_that_shares_an_output(project: Project) -> None:
    for key in ("demo.s0", "demo.s1"):
        compute(project, key)
    told = plans(project, "corpus.validation_fraction=0.2")
    words = {key: told[key].why for key in ("demo.s0", "demo.s1")}
    assert set(words.values()) == {"corpus: corpus.validation_fraction 0.05 → 0.2"}
    assert told["demo.s3"].stages[0].why == told["demo.s0"].stages[0].why
    assert told["demo.s3"].stages[-1].why == "never computed"


def test_a_changed_corpus_is_told(project: Project) -> None:
    compute(project, "demo.s0")
    (project.root / "corpus.txt").write_text("in the end\n")
    told = plans(project)["demo.s0"]
    assert told.state == "stale"
    assert "sha256" in told.why
    assert len(told.why) < 200


def test_a_corpus_that_is_gone_blocks_its_cells_and_says_so(project: Project) -> None:
    compute(project, "demo.s0")
    (project.root / "corpus.txt").unlink()
    told = plans(project)["demo.s0"]
    assert (told.state, told.why) == ("blocked", "corpus: corpus.txt: No such file or directory")
    assert {stage.fingerprint for stage in told.stages} == {""}
    assert [stage.why for stage in told.stages[1:]] == ["waits for the above"] * 5


def test_a_report_shows_cells_whose_corpus_is_gone_beside_the_others(project: Project) -> None:
    (project.root / "experiments" / "demo.yaml").write_text(
        "runtime: {threads: 1}\ntraining: {steps: 4, warmup_steps: 0}\n"
        "axes:\n  data:\n"
        "    here: {corpus.source: {name: text, path: corpus.txt}}\n"
        "    gone: {corpus.source: {name: text, path: gone.txt}}\n"
    )
    refresh_source_identities()
    report, _ = build_sweep_report(project.store, project.sweeps()["demo"], lambda line: None)
    told = {row["name"]: row for row in json.loads((report.folder / "report.json").read_text())["rows"]}
    assert (told["demo.here"]["state"], told["demo.gone"]["state"]) == ("missing", "blocked")
    assert told["demo.gone"]["why"] == "corpus: gone.txt: No such file or directory"


@pytest.mark.parametrize("content", ["", '{"stage": "corp', '{"summary": [], "files": {}}'])
def test_a_damaged_output_is_a_state_of_its_stage_alone(project: Project, content: str) -> None:
    cell = compute(project, "demo.s0")
    compute(project, "demo.s1")
    own = stage_fingerprint(cell.experiment, "pretrained_denoiser")
    manifest = project.store.folder("pretrained_denoiser", own) / "manifest.json"
    manifest.write_text(content)
    told = plans(project)
    assert told["demo.s1"].state == "done"
    assert [name for name, state in states(told["demo.s0"]).items() if state != "done"] == ["pretrained_denoiser"]
    assert (told["demo.s0"].state, told["demo.s0"].why) == (
        "damaged",
        f"pretrained_denoiser: {manifest} is damaged; `sumi doctor --fix` sets its folder aside, then run again",
    )


def test_an_old_manifest_without_what_is_compared_now_is_no_obstacle(project: Project) -> None:
    with project.store.building("corpus", "0" * 16) as build:
        build.finish({"summary": {}, "key": "demo.s0"})
    told = plans(project)["demo.s0"]
    assert (told.state, told.why[:21]) == ("stale", "corpus: corpus None →")


BUILDS_FOR_EVER = """
import sys, time
from pathlib import Path
from sumi_core.stages.store import Store
with Store(Path(sys.argv[1])).building("pretrained_denoiser", sys.argv[2], resumable=True):
    print("building", flush=True)
    time.sleep(600)
"""


def test_running_interrupted_and_failed(project: Project) -> None:
    store, own = project.store, stage_fingerprint(cell_of(project, "demo.s0").experiment, "pretrained_denoiser")
    command = [sys.executable, "-c", BUILDS_FOR_EVER, str(store.root), own]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "building"
        assert plans(project)["demo.s0"].state == "running"
        process.send_signal(signal.SIGKILL)
    told = plans(project)["demo.s0"]
    assert told.why == "pretrained_denoiser: an earlier run was interrupted; it continues where it was"
    store.record_failure("pretrained_denoiser", own, "demo.s0", "the loss is nan")
    told = plans(project)["demo.s0"]
    assert (told.state, told.why) == ("failed", "pretrained_denoiser: the loss is nan (attempt 1)")


# --- differences in words -------------------------------------------------------------------------------------------


def files(**digests: str) -> dict[str, Any]:
    return {"source": {"corpus.source": {"files": [{"name": n, "bytes": 1, "sha256": d} for n, d in digests.items()]}}}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (files(a="1"), files(a="2"), ["1 file changed (a)"]),
        (files(a="1", b="1"), files(b="1"), ["1 file removed (a)"]),
        (files(a="1"), files(a="1", b="1", c="1"), ["2 files added (b, c)"]),
        (
            files(**{f"{n:03}": "1" for n in range(1000)}),
            files(**{f"{n:03}": "2" for n in range(997)}),
            ["997 files changed, 3 removed (000, 001, 002, …)"],
        ),
        (files(a="1"), {"source": {}}, ["corpus.source {'files': [{'name': 'a', 'bytes': 1, 's… → None"]),
        ({"version": "1"}, {"version": "2"}, ["code version 1 → 2"]),
        (
            {"config": {str(n): 0 for n in range(9)}},
            {"config": {str(n): 1 for n in range(9)}},
            ["0 0 → 1", "1 0 → 1", "2 0 → 1", "3 0 → 1", "and 5 more changes"],
        ),
    ],
)
def test_differences_are_counted_and_cut(old: dict[str, Any], new: dict[str, Any], words: list[str]) -> None:
    assert changed_fields(old, new) == words


def test_the_same_files_in_another_order_are_a_difference_too() -> None:
    [word] = changed_fields(files(a="1", b="2"), files(b="2", a="1"))
    assert word.startswith("corpus.source.files [")
