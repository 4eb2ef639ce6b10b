"""Computing again from the record."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sumi_core.lineage.project import Project
from sumi_core.lineage.reproduction import Figure, Reproduction, is_clock, reproduce
from sumi_core.lineage.trace import trace
from sumi_core.stages.store import Store
from tests.lineage.fakes import DRIFT, PLAIN_STAGES, compute, fake_project
from tests.lineage.test_trace import folder_of


class NoLauncher:
    """The fake trainer needs none."""

    def run(self, request: Path) -> None:
        raise AssertionError("not called")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    project = fake_project(tmp_path / "project", monkeypatch)
    compute(project, "demo.s0")
    return project


def again(
    project: Project, given: str = "demo.s0", *, clean: bool = False, log: list[str] | None = None
) -> Reproduction:
    folder = project.home / "reproduce" / "demo.s0"
    said = log if log is not None else []
    return reproduce(trace(project, given), folder, NoLauncher(), clean=clean, log=said.append)


def test_the_same_machine_gives_the_same_figures(project: Project) -> None:
    DRIFT["seconds"] = 7.0  # clocks never agree
    result = again(project)
    assert result.equal
    assert result.different == []
    assert {figure.stage for figure in result.figures} == set(PLAIN_STAGES)
    assert {f.name for f in result.files} == {
        *("train.parquet", "tokenizer.json", "train-00000.tokens.npy", "weights.safetensors", "model.safetensors"),
        "likelihood.parquet",
    }
    clocks = {figure.name: figure for figure in result.figures if not figure.compared}
    assert set(clocks) == {"seconds", "tokens_per_second"}
    assert clocks["seconds"].difference == 7.0
    assert any(f.name == "yardsticks.xz" and f.old == f.new == 3.0 and f.difference == 0 for f in result.figures)
    assert (project.home / "reproduce" / "demo.s0" / "store" / "corpus").is_dir(), "a store of its own"


def test_a_difference_is_found_and_measured(project: Project) -> None:
    DRIFT["bits_per_byte"] = 0.25
    result = again(project)
    assert not result.equal
    assert [(f.stage, f.name) for f in result.different] == [
        ("evaluation", "bits_per_byte"),
        ("evaluation", "likelihood.parquet"),
    ]
    assert result.different[0].difference == 0.25
    different = json.loads(json.dumps(result.to_dict()))["different"]
    assert different == ["evaluation/bits_per_byte", "evaluation/likelihood.parquet"]


def test_other_weights_are_a_difference(project: Project) -> None:
    DRIFT["weights"] = 1.0
    names = {(f.stage, f.name) for f in again(project).different}
    assert {("pretrained_denoiser", "weights.safetensors"), ("exported_model", "model.safetensors")} <= names


def test_the_recipe_is_the_records_and_not_todays_file(project: Project) -> None:
    given = str(folder_of(project, "evaluation"))
    file = project.experiments / "demo.yaml"
    file.write_text(file.read_text().replace("steps: 4", "steps: 400").replace("threads: 1", "threads: 2"))
    assert again(project, given).equal
    file.unlink()
    assert again(project, given).equal


def test_a_cell_with_changes_is_reproduced_with_them(project: Project) -> None:
    compute(project, "demo.s0", overrides=["training.steps=3"])
    traced = trace(project, "demo.s0", ["training.steps=3"])
    result = reproduce(traced, project.home / "reproduce" / "changed", NoLauncher(), log=lambda line: None)
    assert result.equal
    assert result.key == "demo.s0 training.steps=3"
    made = Store(project.home / "reproduce" / "changed" / "store").find("evaluation", traced.stages[-1].fingerprint)
    assert made is not None
    assert made.manifest["experiment"]["training"]["steps"] == 3


def test_each_stage_runs_as_its_own_manifest_says(project: Project) -> None:
    """The weights were trained with one thread; the evaluation that shares them was asked for with two."""
    file = project.experiments / "demo.yaml"
    changed = file.read_text().replace("threads: 1", "threads: 2").replace("axes", "evaluation: {samples: 3}\naxes")
    file.write_text(changed)
    compute(project, "demo.s0")
    traced = trace(project, "demo.s0")
    threads = {stage.stage: stage.manifest["experiment"]["runtime"]["threads"] for stage in traced.stages}
    assert (threads["pretrained_denoiser"], threads["evaluation"]) == (1, 2)
    assert again(project).equal


def test_a_changed_source_is_told(project: Project) -> None:
    given = str(folder_of(project, "evaluation"))
    Path("corpus.txt").write_text("in the end\n")
    result = again(project, given)
    assert not result.equal
    assert any(line.startswith("corpus: corpus.source.sha256 ") for line in result.recipe)


def test_what_differs_in_the_environment_is_told(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from sumi_core.lineage import reproduction

    now = reproduction.provenance()
    changed = {**now, "python": "9.9.9", "packages": {**now["packages"], "torch": "99.0"}}
    monkeypatch.setattr(reproduction, "provenance", lambda: changed)
    result = again(project)
    assert f"python {now['python']} → 9.9.9" in result.environment
    assert f"torch {now['packages']['torch']} → 99.0" in result.environment
    assert result.equal, "an environment is no figure"


def test_an_interrupted_reproduction_goes_on_and_a_finished_one_begins_anew(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tests.lineage.fakes as fakes

    def broken(context: object) -> dict[str, object]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fakes, "build_evaluation", broken)
        with pytest.raises(KeyboardInterrupt):
            again(project)
    store = project.home / "reproduce" / "demo.s0" / "store"
    made = {path: path.stat().st_mtime_ns for path in store.glob("*/*/manifest.json")}
    assert len(made) == 5
    assert again(project).equal
    assert {path: path.stat().st_mtime_ns for path in made} == made, "not computed twice"
    DRIFT["bits_per_byte"] = 1.0
    assert not again(project).equal, "asked again, everything is computed again"


def test_clean_leaves_nothing_behind(project: Project) -> None:
    assert again(project, clean=True).equal
    assert not (project.home / "reproduce" / "demo.s0").exists()


def test_only_what_was_named_and_what_made_it_is_computed(project: Project) -> None:
    result = again(project, str(folder_of(project, "token_shards")))
    assert {figure.stage for figure in result.figures} == {"corpus", "tokenizer", "token_shards"}
    assert result.equal


def test_a_copied_export_is_reproduced_from_its_own_record(project: Project, tmp_path: Path) -> None:
    """Far from its store there are the figures of training and the weights to compare with."""
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder_of(project, "exported_model"), copy)
    (copy / "manifest.json").unlink()
    record = json.loads((copy / "sumi.json").read_text())
    record["experiment"]["evaluation"]["metrics"].append({"name": "gone"})  # from outside; it made nothing of the model
    (copy / "sumi.json").write_text(json.dumps(record))
    shutil.rmtree(project.store.root)
    result = again(project, str(copy))
    assert result.equal
    assert {figure.name for figure in result.files} == {"model.safetensors"}
    assert any(f.name == "train_loss" and f.difference == 0 for f in result.figures)
    assert result.unrecorded == ["corpus", "tokenizer", "token_shards"]
    assert "torch 1.0 → " in "\n".join(result.environment)


def test_lost_inputs_are_computed_again_too(project: Project) -> None:
    """An export whose inputs are gone still tells the training it came from."""
    given = str(folder_of(project, "exported_model"))
    for stage in ("corpus", "tokenizer", "token_shards", "pretrained_denoiser"):
        shutil.rmtree(folder_of(project, stage))
    result = again(project, given)
    assert result.equal
    assert {figure.stage for figure in result.figures} == {"pretrained_denoiser", "exported_model"}


def test_figures_are_equal_only_when_they_are() -> None:
    nan = float("nan")
    assert Figure("s", "n", nan, nan).equal
    assert Figure("s", "n", [1.0, nan], [1.0, nan]).equal
    assert not Figure("s", "n", 1.0, 1.0 + 2**-52).equal
    assert not Figure("s", "n", nan, 1.0).equal
    assert not Figure("s", "n", None, 0.0).equal
    assert not Figure("s", "n", "a", "b").equal
    assert Figure("s", "n", "a", "b").difference is None
    assert Figure("s", "n", True, False).difference is None


def test_only_clocks_are_left_out() -> None:
    times = ("steps_8.seconds", "speed.times.ancestral.steps_8.batch_1.speedup")
    clocks = ("seconds", "tokens_per_second", "mfu", "peak_memory_bytes", "resumed", *times)
    figures = ("bits_per_byte", "train_loss", "flops", "weights_bytes", "time_epsilon", "sequences", "parameters")
    assert all(is_clock(name) for name in clocks)
    assert not any(is_clock(name) for name in figures)
