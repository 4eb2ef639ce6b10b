"""`sumi list` and `sumi plan`: what is wrong with one experiment hides no other, and a line stays a line."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pipelines.cli import app
from sumi_core.base.numerics import DeviceError
from sumi_core.base.options import ConfigError
from sumi_core.base.text import short_duration
from sumi_core.experiments.cells import Sweep
from sumi_core.experiments.files import ExperimentFiles
from sumi_core.experiments.size import experiment_size
from sumi_core.lineage.estimate import Estimate
from sumi_core.lineage.project import Project
from sumi_core.stages.base import StageContext
from sumi_core.stages.identity import refresh_source_identities, stage_fingerprint
from tests.lineage import fakes
from tests.lineage.fakes import cell_of, compute, fake_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return fake_project(tmp_path / "project", monkeypatch)


def sumi(*arguments: str) -> Result:
    refresh_source_identities()
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def lines(*arguments: str) -> list[str]:
    result = sumi(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_a_broken_file_is_named_by_list_and_hides_nothing(project: Project) -> None:
    broken = project.experiments / "torn.yaml"
    broken.write_text("modle: {}\n")
    told = lines("list")
    assert told[0].startswith("demo  0/4 done")
    assert told[-1] == f"torn  cannot be read: {broken}: modle: unknown key; did you mean 'model'?"
    assert lines("plan", "demo.s0")[-1] == "6 outputs to compute for 1 of 1 cells"
    with pytest.raises(ConfigError, match=r"torn\.yaml: modle: unknown key"):
        sumi("plan", "torn")
    with pytest.raises(ConfigError, match=r"no experiment or cell has this name; did you mean 'demo'\?"):
        sumi("plan", "dmo")


def test_dagster_loads_beside_a_broken_file_and_names_it(project: Project) -> None:
    (project.experiments / "torn.yaml").write_text("modle: {}\n")
    (project.experiments / "demo.yaml").write_text("axes: {seed: [0, 1]}\n")  # another process knows no fake parts
    code = "from assets.partitions import CELLS_BY_KEY; print(*CELLS_BY_KEY)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["demo.s0", "demo.s1"]
    assert "torn.yaml: modle: unknown key; did you mean 'model'?" in done.stderr


@pytest.mark.parametrize("stage", ["corpus", "pretrained_denoiser"])
def test_list_compare_and_doctor_agree_on_a_failed_stage(
    project: Project, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def broken(context: StageContext) -> None:
        raise ValueError("no such verse")

    monkeypatch.setattr(fakes, f"build_{stage}", broken)
    with pytest.raises(ValueError, match="no such verse"):
        compute(project, "demo.s0")
    reason = f"{stage}: ValueError: no such verse (attempt 1)"
    [listed] = [line for line in lines("list") if line.split()[0] == "demo.s0"]
    assert listed.split(maxsplit=2)[1:] == ["failed", reason]
    assert f"demo.s0 failed: {reason}" in " ".join(sumi("compare", "demo.s0").stdout.replace(" is ", " ").split())
    own = stage_fingerprint(cell_of(project, "demo.s0").experiment, stage)
    told = sumi("doctor").stdout
    assert f"{stage} {own} of demo.s0 failed: ValueError: no such verse (attempt 1)" in told
    assert f"{own} was interrupted" not in told


def test_a_corpus_that_is_gone_and_a_damaged_output_are_states(project: Project) -> None:
    cell = compute(project, "demo.s0")
    (project.experiments / "gone.yaml").write_text("corpus: {source: {name: text, path: gone.txt}}\n")
    manifest = project.store.folder("evaluation", stage_fingerprint(cell.experiment, "evaluation")) / "manifest.json"
    manifest.write_text("{")
    told = {line.split()[0]: line for line in lines("list") if line.startswith("  ")}
    assert told["gone"].split(maxsplit=2)[1:] == ["blocked", "corpus: gone.txt: No such file or directory"]
    assert told["demo.s0"].split()[1] == "damaged"
    assert "missing     3 cells" in told["demo.s1"]
    assert any(line.startswith("  blocked  tokenizer") for line in lines("plan", "gone"))
    assert f"{manifest} is damaged" in "".join(lines("plan", "demo.s0"))


def test_a_long_reason_is_one_line_in_the_list_and_whole_in_the_plan(project: Project) -> None:
    own = stage_fingerprint(cell_of(project, "demo.s0").experiment, "corpus")
    reason = "the corpus is odd\n" * 50
    (project.store.root / "corpus").mkdir(parents=True)
    project.store.record_failure("corpus", own, "demo.s0", reason)
    [told] = [line for line in lines("list") if line.split()[0] == "demo.s0"]
    assert "failed" in told
    assert told.endswith("…")
    assert len(told) < 220
    assert "(attempt 1)" in sumi("plan", "demo.s0").stdout


def test_a_plan_tells_the_size_before_anything_is_computed(project: Project) -> None:
    first = lines("plan", "demo.s0", "model={hidden_size: 64, num_layers: 1, tie_embeddings: true}")[0]
    parameters = 64 + 257 * 64 + (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 352 + 2 * 64)
    assert (parameters, 16 * parameters) == (96_512, 1_544_192)
    per_token = 6 * (257 * 64 + 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 352) + 12 * 64 * 128
    assert per_token * 4 * 32 * 128 == pytest.approx(11.1e9, rel=0.005)
    assert first == (
        "demo.s0[model={hidden_size: 64, num_layers: 1, tie_embeddings: true}]  "
        "96.5 k parameters, 16.4 k tokens (4.1 k a step), 11.1 G FLOPs; training holds 1.54 MB and activations"
    )


def test_a_plan_puts_what_a_cell_starts_from_before_it_and_adds_its_flops(project: Project) -> None:
    (project.experiments / "child.yaml").write_text(
        "base: demo\nseed: 1\nmodel: {initialiser: {name: cell, of: demo}}\n"
    )
    told = lines("plan", "child")
    heads = [line for line in told if not line.startswith("  ")]
    assert [line.split()[0] for line in heads[:-1]] == ["demo.s1", "child"]
    own = re.search(r", ([\d.]+) G FLOPs; training", heads[0])
    both = re.search(r", ([\d.]+) G FLOPs \(([\d.]+) G with those of what it starts from\); training", heads[1])
    assert own is not None
    assert both is not None
    assert both[1] == own[1]
    assert float(both[2]) == pytest.approx(2 * float(own[1]), rel=0.01)
    assert heads[-1] == "9 outputs to compute for 2 of 2 cells"
    compute(project, "demo.s1")
    assert [line.split()[0] for line in lines("plan", "child") if not line.startswith("  ")] == ["child", "3"]


def test_a_size_beyond_the_machine_is_told_and_one_beyond_counting_refused(project: Project) -> None:
    wide = ["model.hidden_size=65536", "model.num_layers=1000"]
    assert "more than this machine's" in lines("plan", "demo.s0", *wide)[0]
    absurd = ["model.hidden_size=1000000000000", "training.steps=1000000000000"]
    with pytest.raises(ConfigError) as caught:
        sumi("plan", "demo.s0", *absurd)
    assert "\n" not in str(caught.value)


def test_the_line_of_a_run_can_be_planned(project: Project) -> None:
    result = sumi("plan", "demo.s0", "-j", "2")
    assert result.exit_code == 0
    assert "--jobs does not change a plan" in result.stderr
    assert "6 outputs to compute" in result.stdout


def test_cells_that_were_never_computed_are_one_line_unless_they_are_asked_for(project: Project) -> None:
    compute(project, "demo.s0")
    told = lines("list")
    assert told[0].startswith("demo  1/4 done")
    assert [line.split()[0] for line in told[1:]] == ["demo.s0", "demo.s1"]
    assert told[2].startswith("  demo.s1 … demo.s3")
    assert "3 cells; " in told[2]
    assert [line.split()[0] for line in lines("list", "demo")[1:]] == [f"demo.s{seed}" for seed in range(4)]


def test_only_the_files_that_a_name_can_mean_are_resolved(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.experiments / "other.yaml").write_text("description: another\n")
    (project.experiments / "more").mkdir()
    (project.experiments / "more" / "demo-two.yaml").write_text("description: one more\n")
    resolved: list[str] = []
    original = ExperimentFiles.sweep

    def sweep(files: ExperimentFiles, file: Path) -> Sweep:
        resolved.append(file.stem)
        return original(files, file)

    monkeypatch.setattr(ExperimentFiles, "sweep", sweep)
    for pattern, wanted in {
        "demo": ["demo"],
        "demo.s1": ["demo"],
        "demo*": ["demo", "demo-two"],
        "*.s1": ["demo", "demo-two", "other"],
        "more/*": ["demo-two"],
        "other": ["other"],
    }.items():
        resolved.clear()
        lines("plan", pattern)
        assert sorted(resolved) == wanted, pattern
    with pytest.raises(ConfigError, match=r"no experiment or cell has this name; did you mean 'other'\?"):
        sumi("plan", "othr")


def test_states_have_colours_in_a_terminal_only(project: Project) -> None:
    (project.experiments / "demo.yaml").write_text("axes: {seed: [0, 1]}\n")  # another process knows no fake parts
    command = [sys.executable, "-m", "pipelines.cli", "list"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    (project.experiments / "gone.yaml").write_text("corpus: {source: {name: text, paths: [gone.txt]}}\n")
    seen = {}
    for name, more in {"terminal": {}, "no colour": {"NO_COLOR": "1"}}.items():
        reader, writer = pty.openpty()
        subprocess.run(command, stdout=writer, env={**environment, **more}, check=True, timeout=60)
        os.close(writer)
        seen[name] = b""
        with contextlib.suppress(OSError):  # the terminal is closed
            while part := os.read(reader, 65536):
                seen[name] += part
        os.close(reader)
    assert b"\x1b[31mblocked" in seen["terminal"]
    assert b"\x1b" not in seen["no colour"]
    assert b"blocked" in seen["no colour"]
    assert "\x1b" not in subprocess.run(command, env=environment, capture_output=True, text=True).stdout


def test_list_names_what_was_computed_with_changes(project: Project) -> None:
    project.changed_cells.remember(project.sweeps(["training.steps=5"])["demo"].cells[:2])
    told = lines("list", "demo.s0")
    assert told[-1] == "  computed with changes: demo.s0[training.steps=5]"
    assert lines("list", told[-1].rpartition(" ")[2])[0].startswith("demo[training.steps=5]  0/1 done")


def test_a_plan_says_how_long_the_training_takes_and_by_what(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sumi_core.lineage.estimate.has_gpu", lambda: False)
    assumed = lines("plan", "demo.s0", "training.steps=100000", "runtime.threads=2")[-2].strip()
    size = experiment_size(cell_of(project, "demo.s0", ["training.steps=100000"]).experiment, 257)
    seconds = size.flops / (2 * 20e9)
    expected = f"training takes about {short_duration(seconds)}, one cell after another, at an assumed 20 GFLOP/s"
    assert assumed.startswith(expected)
    original = fakes.build_pretrained_denoiser

    def timed(context: StageContext) -> dict[str, Any]:
        return {**original(context), "flops_per_token": 5e6, "tokens_per_second": 1e3}

    monkeypatch.setattr(fakes, "build_pretrained_denoiser", timed)
    compute(project, "demo.s0")
    told = lines("plan", "demo.s0", "training.steps=100000")[-2].strip()
    expected = f"training takes about {short_duration(size.flops / 5e9)}, one cell after another, at the speed of"
    assert told == f"{expected} demo.s0 here"
    assert not any("training takes" in line for line in lines("plan", "demo.s0"))
    monkeypatch.setattr("pipelines.commands.plan.estimate_training", lambda *_: Estimate(0.4, "by a guess"))
    assert lines("plan", "demo.s1")[-2] == "  training takes under a second, one cell after another, by a guess"


def test_a_plan_notices_a_gpu_that_is_not_there(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for there in (True, False):
        monkeypatch.setattr("pipelines.commands.plan.has_gpu", lambda there=there: there)
        told = sumi("plan", "demo.s0", "runtime.device=cuda").stderr
        assert ("runtime.device is cuda, and this machine has no GPU; set it to cpu or auto" in told) is not there
        assert "GPU" not in sumi("plan", "demo.s0").stderr
    compute(project, "demo.s0")
    told = sumi("plan", "demo.s0", "runtime.device=cuda").stderr
    assert "this machine has no GPU; set it to cpu or auto: all is cached, but samples need one too" in told


def test_a_run_without_the_gpu_that_it_wants_computes_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(device: str) -> None:
        raise DeviceError(f"runtime.device is {device} but this machine has no GPU number 0; set it to cpu")

    monkeypatch.setattr("pipelines.commands.run.has_gpu", lambda: False)
    monkeypatch.setattr("pipelines.commands.run.choose_device", refuse)
    result = CliRunner().invoke(app, ["run", "demo.s0", "runtime.device=cuda"], catch_exceptions=False)
    assert result.exit_code == 1
    assert (
        result.stderr
        == "sumi: demo.s0 is blocked: runtime.device is cuda but this machine has no GPU number 0; set it to cpu\n"
    )
    assert list(project.store.artifacts()) == []


def test_a_model_is_exported_into_a_folder_of_its_own(project: Project, tmp_path: Path) -> None:
    compute(project, "demo.s0")
    folder = tmp_path / "models" / "first"
    assert lines("export", "demo.s0", str(folder)) == [str(folder)]
    assert json.loads((folder / "sumi.json").read_text())["key"] == "demo.s0"
    assert "every SHA-256 verified" in sumi("lineage", str(folder)).stdout
    with pytest.raises(ConfigError, match="is there already and not an empty folder; name another"):
        sumi("export", "demo.s0", str(folder))
    own = stage_fingerprint(cell_of(project, "demo.s0").experiment, "exported_model")
    (project.store.folder("exported_model", own) / "model.safetensors").write_text("torn")
    with pytest.raises(ConfigError, match="differs from its recorded SHA-256"):
        sumi("export", "demo.s0", str(tmp_path / "second"))
    assert not (tmp_path / "second").exists()
