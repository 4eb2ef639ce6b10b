"""Measurements: each is computed once for what it reads, and an evaluation is the union of what they left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
import pytest
from pydantic import Field

from sumi_core.base.errors import StoreError
from sumi_core.base.options import ConfigError
from sumi_core.base.registry import Part
from sumi_core.evaluation import MEASUREMENTS
from sumi_core.evaluation.config import EvaluationConfig
from sumi_core.evaluation.measurement import Context, Findings, Measurement, Model, named_estimates
from sumi_core.evaluation.samples import Samples
from sumi_core.evaluation.yardsticks import Yardsticks
from sumi_core.experiments.resolve import resolve
from sumi_core.lineage.project import Project
from sumi_core.stages import evaluation as evaluation_stage
from sumi_core.stages.computation import Computation
from sumi_core.stages.evaluation import MEASURED, STAGE
from sumi_core.stages.identity import refresh_source_identities, stage_fingerprint
from sumi_core.stages.measurements import is_measurement, measurement_identity, measurement_kind
from sumi_core.stages.store import Artifact
from tests.pipelines.tiny import Here

DEFAULT = ["likelihood", "gradient_noise", "yardsticks", "samples", "film", "corruption_picture"]
OTHERS = ["likelihood", "gradient_noise", "samples", "film", "corruption_picture"]  # those that depend on the model


@pytest.fixture(scope="module")
def project(tiny: Project) -> Project:
    return tiny


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The measurements that ran, in order."""
    made: list[str] = []
    for name in MEASUREMENTS.names():
        cls = MEASUREMENTS.get(name)

        def counted(self: Measurement, model: Model, context: Context, name=name, real=cls.run) -> Findings:
            made.append(name)
            found: Findings = real(self, model, context)
            return found

        monkeypatch.setattr(cls, "run", counted)
    return made


def evaluate(project: Project, *overrides: str, key: str = "tiny.uniform", upstream: bool = False) -> Artifact:
    """The evaluation of a cell, upstream stages included where they may be missing."""
    cell = next(cell for cell in project.sweeps(overrides)["tiny"].cells if cell.plain == key)
    refresh_source_identities()
    computation = Computation(project.store, launcher=Here(), log=lambda line: None)
    if upstream:
        return computation.ensure_all(cell.experiment, key)["evaluation"]
    return computation.ensure(cell.experiment, key, "evaluation")[0]


def measured(evaluation: Artifact) -> dict[str, str]:
    found: dict[str, str] = json.loads((evaluation.folder / MEASURED).read_text())
    return found


# --- what is computed anew ------------------------------------------------------------------------------------------


def test_the_default_evaluation_has_every_measurement_that_any_model_has() -> None:
    assert [own["name"] for own in resolve({}, "tests").evaluation.measurements] == DEFAULT
    on_request = [
        "audit",
        "by_position",
        "calibration",
        "chain_rule",
        "coding",
        "drafts",
        "frontier",
        "initial_readings",
        "mauve",
    ]
    on_request += ["readings", "speed", "tasks"]
    assert sorted(DEFAULT + on_request) == MEASUREMENTS.names()
    assert "text" not in MEASUREMENTS, "the store calls the likelihood of other texts so"


def test_only_what_reads_a_changed_setting_is_measured_again(project: Project, runs: list[str]) -> None:
    first = evaluate(project, "evaluation.seed=21")
    assert runs == OTHERS[:4], "yardsticks and picture read no seed: those of the cell's first evaluation are found"
    for change, again in (
        ("evaluation.samples=3", ["samples"]),
        ("evaluation.times_per_sequence=3", ["likelihood"]),
        ("evaluation.gradient_sequences=3", ["gradient_noise"]),
        ("evaluation.metrics=[distinct]", ["samples"]),
        ("evaluation.sequences=3", [name for name in DEFAULT if name != "film"]),
    ):
        runs.clear()
        other = evaluate(project, "evaluation.seed=21", change)
        assert (change, runs) == (change, again)
        kept = {name: own for name, own in measured(first).items() if name not in again}
        assert kept.items() <= measured(other).items()
        assert other.fingerprint != first.fingerprint
        if "likelihood" not in again:
            assert other.summary["bits_per_byte"] == first.summary["bits_per_byte"]


def test_a_measurement_is_added_and_left_out_without_the_others(
    project: Project, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = evaluate(project, "evaluation.seed=22", "evaluation.measurements=[likelihood,yardsticks]")
    assert runs == ["likelihood"]
    assert "samples" not in few.summary
    assert not (few.folder / "samples.parquet").exists()
    assert STAGE.checks[0].run(few).description.startswith("not applicable: 512 tokens")
    monkeypatch.setattr(evaluation_stage, "_TOO_FEW", 0)
    assert STAGE.checks[0].run(few).passed == (
        few.summary["bits_per_byte"] < few.summary["yardsticks"]["unigram_tokens"]
    )
    runs.clear()
    more = evaluate(project, "evaluation.seed=22", "evaluation.measurements=[likelihood,samples,yardsticks]")
    assert runs == ["samples"]
    assert list(measured(more)) == ["likelihood", "samples", "yardsticks"]
    assert measured(few).items() <= measured(more).items(), "wherever they stand in the list"


def test_an_option_of_one_measurement_is_no_business_of_the_others(project: Project, runs: list[str]) -> None:
    first = evaluate(project)
    assert runs == []
    listed = [*DEFAULT]
    listed[1] = "{name: gradient_noise, pairs: 3}"
    other = evaluate(project, f"evaluation.measurements=[{','.join(listed)}]")
    assert runs == ["gradient_noise"]
    assert first.summary["gradient_noise"]["gradients"] == 16
    assert other.summary["gradient_noise"]["gradients"] == 6


def test_cells_with_the_same_tokens_share_what_depends_on_no_model(project: Project, runs: list[str]) -> None:
    uniform = evaluate(project)
    runs.clear()
    left = evaluate(project, "seed=5", "training.steps=2", key="tiny.left", upstream=True)
    assert runs == OTHERS
    assert measured(left)["yardsticks"] == measured(uniform)["yardsticks"]
    assert left.summary["yardsticks"] == uniform.summary["yardsticks"]
    assert left.summary["exact"]
    assert "gradient_noise" not in left.summary, "an exact likelihood draws no noise"


def test_a_killed_evaluation_finds_what_it_had_measured(
    project: Project, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Measurement, model: Model, context: Context) -> Findings:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Samples, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate(project, "evaluation.seed=23")
    assert runs == ["likelihood", "gradient_noise"]
    assert list(project.store.root.glob("evaluation*/*.partial")) == []
    runs.clear()
    evaluate(project, "evaluation.seed=23")
    assert runs == ["samples", "film"]


@pytest.mark.parametrize("damage", ["edited", "missing", "broken"])
def test_a_damaged_measurement_is_not_published_again(project: Project, damage: str) -> None:
    """A figure edited in place keeps its size: only its SHA-256 shows it."""
    alone, with_another = ("evaluation.measurements=[likelihood]", "evaluation.measurements=[likelihood,yardsticks]")
    sequences = "evaluation.sequences=6"
    first = evaluate(project, alone, sequences)
    own = project.store.folder(measurement_kind("likelihood"), measured(first)["likelihood"])
    kept = shutil.copytree(own, own.parent / "kept.partial")
    if damage == "edited":
        text = (own / "findings.json").read_text()
        (own / "findings.json").write_text(text.translate(str.maketrans("1", "2")))
    elif damage == "missing":
        (own / "metrics.parquet").unlink()
    else:
        (own / "findings.json").write_text("broken")
    try:
        with pytest.raises(StoreError, match=r"likelihood/.*; `sumi doctor --deep --fix` sets its output aside"):
            evaluate(project, with_another, sequences)
    finally:
        shutil.rmtree(own)
        kept.rename(own)


def test_a_new_code_version_of_one_is_another_evaluation_that_keeps_the_rest(
    project: Project, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(project)
    monkeypatch.setattr(Yardsticks, "version", "next")
    other = evaluate(project)
    assert runs == ["yardsticks"]
    assert other.fingerprint != first.fingerprint
    assert other.summary == first.summary


def test_the_identity_names_what_is_read_and_nothing_else() -> None:
    experiment = resolve({}, "tests")
    inputs = dict.fromkeys(STAGE.inputs, "f")
    for name in DEFAULT:
        cls = MEASUREMENTS.get(name)
        assert set(cls.inputs) <= set(STAGE.inputs)
        assert set(cls.reads) <= set(EvaluationConfig.__dataclass_fields__)
        identity = measurement_identity(experiment, name, inputs, {"evaluation.metrics[0].corpus": 1}, {})
        assert set(identity["config"]) == {"options", *cls.reads}
        assert set(identity["inputs"]) == set(cls.inputs)
        assert ("source" in identity) == ("metrics" in cls.reads)
        assert "code" not in identity, "Sumi's own parts have versions"
        assert is_measurement(measurement_kind(name))
    assert not any(is_measurement(stage) for stage in STAGE.inputs)


def test_outputs_say_what_made_them(project: Project) -> None:
    evaluation = evaluate(project)
    for name, own in measured(evaluation).items():
        artifact = project.store.find(measurement_kind(name), own)
        assert artifact is not None
        assert project.store.verify(artifact) == []
        assert artifact.manifest["key"].startswith("tiny.")
        assert artifact.manifest["inputs"].items() <= evaluation.manifest["inputs"].items()
        if name != "corruption_picture":
            assert artifact.summary.items() <= evaluation.summary.items()


def test_cells_cannot_be_compared_without_a_likelihood() -> None:
    for listed in ([], ["samples"]):
        with pytest.raises(ConfigError) as caught:
            resolve({"evaluation": {"measurements": listed}}, "a.yaml")
        problem = "cells are compared by their likelihood; list likelihood too"
        assert str(caught.value) == f"a.yaml: evaluation.measurements: {problem}"


# --- a measurement of one's own -------------------------------------------------------------------------------------


class Letters(Measurement):
    """How often a byte occurs in the validation text."""

    reads = ("sequences",)
    inputs = ("token_shards",)

    @dataclass
    class Options(Part.Options):
        letter: Annotated[int, Field(ge=0, le=255, description="the byte that is counted")] = 101

    def run(self, model: Model, context: Context) -> Findings:
        figures = {"share": float((pd.Series([*map(list, context.tokens)]).explode() == self.options.letter).mean())}
        table = pd.DataFrame({"letter": [self.options.letter]})
        return Findings(
            {"letters": figures},
            named_estimates("letters", figures),
            {"letters.parquet": table},
            texts=("## Letters",),
            definitions=("share: of a byte among the tokens.",),
        )


def test_a_new_measurement_is_a_class_and_a_line(
    project: Project, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MEASUREMENTS._entries, "letters", f"{__name__}:Letters")
    first = evaluate(project)
    found = evaluate(project, f"evaluation.measurements=[{','.join(DEFAULT)},letters]")
    assert runs == []
    share = found.summary["letters"]["share"]
    assert 0 < share < 0.5
    assert found.summary == {**first.summary, "letters": {"share": share}}
    assert json.loads((found.folder / "metrics.json").read_text())["letters.share"] == share
    table = pd.read_parquet(found.folder / "metrics.parquet")
    assert table[table["group"] == "letters"]["value"].tolist() == [share]
    assert pd.read_parquet(found.folder / "letters.parquet")["letter"].tolist() == [101]
    page = (found.folder / "report.md").read_text(encoding="utf-8")
    assert page.index("## Samples") < page.index("## Letters") < page.index("* share: of a byte")


def test_a_setting_that_is_not_declared_cannot_be_read(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be missing from the fingerprint, and a result for another value of it would be found."""
    monkeypatch.setattr(Samples, "reads", tuple(key for key in Samples.reads if key != "metrics"))
    told = "Samples reads evaluation.metrics, which its `reads` does not list; add it there"
    with pytest.raises(AttributeError, match=told):
        evaluate(project, "evaluation.seed=24")
    monkeypatch.setattr(Yardsticks, "inputs", ("token_shards",))
    with pytest.raises(AttributeError, match="Yardsticks uses the train texts; list corpus in its `inputs`"):
        evaluate(project, "evaluation.seed=25")


USES: dict[str, Callable[[Model, Context], object]] = {
    "denoiser": lambda model, context: model.denoiser,
    "objective": lambda model, context: model.objective,
    "process": lambda model, context: model.process,
    "sampler": lambda model, context: model.sampler,
    "tokenizer": lambda model, context: model.tokenizer,
    "told": lambda model, context: model.told,
    "device": lambda model, context: model.device,
    "tokens": lambda model, context: context.tokens,
    "bytes": lambda model, context: context.text.bytes(0),
    "train_texts": lambda model, context: context.train_texts(),
    "source": lambda model, context: context.source(),
    "train_counts": lambda model, context: context.train_counts(),
}


@pytest.mark.parametrize(
    ("inputs", "reads", "allowed"),
    [
        (("token_shards",), ("sampler",), {"tokenizer", "tokens", "bytes", "train_counts"}),
        (("exported_model",), (), {"denoiser", "objective", "process", "told", "tokenizer"}),
        (("exported_model",), ("sampler",), {"denoiser", "objective", "process", "sampler", "told", "tokenizer"}),
        (("corpus",), (), {"train_texts", "source"}),
        (("tokenizer",), (), {"tokenizer"}),
    ],
)
def test_what_is_not_declared_cannot_be_used(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    inputs: tuple[str, ...],
    reads: tuple[str, ...],
    allowed: set[str],
) -> None:
    """What was found with the weights of one model would be found for every other one."""
    found: dict[str, str] = {}

    def run(self: Measurement, model: Model, context: Context) -> Findings:
        for name, use in USES.items():
            try:
                use(model, context)
            except AttributeError as error:
                found[name] = str(error)
        return Findings({"letters": {}})

    monkeypatch.setitem(MEASUREMENTS._entries, "letters", f"{__name__}:Letters")
    monkeypatch.setattr(Letters, "run", run)
    monkeypatch.setattr(Letters, "inputs", inputs)
    monkeypatch.setattr(Letters, "reads", ("sequences", *reads))
    monkeypatch.setattr(Letters, "version", f"{inputs} {reads}")
    evaluate(project, "evaluation.measurements=[likelihood,letters]", "evaluation.seed=26")
    assert USES.keys() - found.keys() == {"device", *allowed}
    if "exported_model" not in inputs:
        assert found["denoiser"] == "Letters uses the model's denoiser; list exported_model in its `inputs`"
    elif not reads:
        assert found["sampler"] == "Letters uses the model's sampler; list sampler in its `reads`"


def test_the_fingerprint_of_the_evaluation_knows_its_measurements() -> None:
    plain, other = ({}, {"evaluation": {"measurements": ["likelihood"]}})
    prints = [stage_fingerprint(resolve(own, "tests"), "evaluation") for own in (plain, other)]
    assert prints[0] != prints[1]
    trained = [stage_fingerprint(resolve(own, "tests"), "exported_model") for own in (plain, other)]
    assert trained[0] == trained[1]


def test_a_plot_says_nothing_of_the_cell_that_was_measured_first(project: Project) -> None:
    """Cells share a measurement, and its title must be true of all: the same bytes whatever the cell is called."""
    folder = Path(project.store.root / "evaluation.likelihood" / measured(evaluate(project))["likelihood"])
    assert [path.name for path in (folder / "plots").iterdir()] == ["loss_by_level.png"]
    assert "tiny" not in (folder / "findings.json").read_text()
