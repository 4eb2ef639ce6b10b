"""The generative frontier: exact worlds, interpolation, errors, and a cell scored by another one and by itself."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from sumi_core.data.vocabulary import Vocabulary
from sumi_core.evaluation.frontier import Frontier, Point, at_entropy, at_temperature, matched_figures, scored
from sumi_core.evaluation.frontier_plot import draw_frontier
from sumi_core.evaluation.measurement import Model
from sumi_core.evaluation.scorer import Scores
from sumi_core.lineage.project import Project
from sumi_core.models.interface import FromLogits
from sumi_core.reports.frontier import frontier_rows, mean_frontier
from sumi_core.sampling import SAMPLERS
from sumi_core.stages.computation import Computation
from sumi_core.stages.identity import refresh_source_identities
from sumi_core.stages.store import Artifact
from tests.evaluation.test_scorer import TABLE, Letters, bigram
from tests.pipelines.tiny import Here

LENGTH = 6


def own_model() -> Model:
    """A model that is the very distribution of the scorer ``bigram``, and writes token by token."""
    unused: Any = None
    sampler = SAMPLERS.build("left_to_right", {"top_k": 3}, process=None, vocabulary=Vocabulary(3, 0))
    denoiser: Any = FromLogits(lambda tokens, level: TABLE.log()[tokens])
    return Model(denoiser, unused, sampler, None, Letters(), torch.device("cpu"))  # type: ignore[arg-type]


def point(model: Model, temperature: float, count: int = 2000) -> Point:
    drawn = at_temperature(model, temperature).sample(model.denoiser, num=count, length=LENGTH, steps=1, seed=3)
    return scored(list(drawn.tokens.numpy()), model.tokenizer, bigram())


def test_texts_of_the_scorers_own_distribution_have_its_entropy_rate() -> None:
    """Exactly: the expected nats and bytes of all sequences, by enumeration."""
    model = own_model()
    every = [np.array(ids) for ids in itertools.product(range(3), repeat=LENGTH)]
    scores = bigram().score(every, model.tokenizer)
    p = np.exp(-scores.nats)
    rate = (p * scores.nats).sum() / math.log(2) / (p * scores.bytes).sum()
    found = point(model, 1.0).figures
    assert abs(found["bits_per_byte"] - rate) < 4 * found["bits_per_byte_stderr"] < 0.1
    entropy = (p * scores.entropy).sum()
    assert abs(found["entropy"] - entropy) < 4 * found["entropy_stderr"]
    assert found["perplexity"] == pytest.approx(math.exp((p * scores.nats).sum() / LENGTH), rel=0.02)


def test_colder_texts_are_more_probable_and_less_varied_and_nothing_else_changes() -> None:
    model = own_model()
    cold, warm = point(model, 0.3).figures, point(model, 1.0).figures
    assert cold["perplexity"] < 0.9 * warm["perplexity"]
    assert cold["entropy"] < 0.9 * warm["entropy"]
    assert at_temperature(model, 0.3).options.top_k == 3
    assert model.sampler.options.temperature == 1.0


# --- at the entropy of validation text ------------------------------------------------------------------------------


def scores(bits: list[float], entropy: list[float]) -> Scores:
    nats = np.array(bits) * math.log(2)
    return Scores(nats, np.full(len(bits), 4), np.full(len(bits), 1), np.array(entropy))


def test_the_curve_is_read_between_two_temperatures() -> None:
    curve = [scores([2.0, 2.0], [1.0, 1.0]), scores([3.0, 5.0], [2.0, 2.0]), scores([9.0, 9.0], [4.0, 4.0])]
    assert at_entropy(curve, 1.5) == (3.0, 2.0)
    assert at_entropy(curve, 3.0) == (6.5, 2.5)
    assert at_entropy(curve, 2.0)[0] == 4.0
    assert all(math.isnan(at_entropy(curve, beyond)[0]) for beyond in (0.9, 4.1))


def test_its_error_is_that_of_a_linear_figure() -> None:
    """With entropies that do not vary, the figure is a mean, whose jackknife error is s/√n."""
    rng = np.random.default_rng(0)
    low, high = rng.normal(2, 0.1, 12), rng.normal(3, 0.2, 12)
    points = [
        Point(t, 8, 8.0, [], scores([*bits], [own] * 12), {}) for t, bits, own in ((0.5, low, 1.0), (1.0, high, 2.0))
    ]
    validation = Point(0.0, 0, 0.0, [], scores([1.0], [1.0]), {"entropy": 1.25, "entropy_stderr": 0.0})
    found = matched_figures(points, validation)[8]
    both = 0.75 * low + 0.25 * high
    assert found.value == pytest.approx(both.mean())
    assert found.stderr == pytest.approx(both.std(ddof=1) / math.sqrt(12))
    moved = Point(0.0, 0, 0.0, [], validation.scores, {"entropy": 1.25, "entropy_stderr": 0.1})
    slope = high.mean() - low.mean()
    assert matched_figures(points, moved)[8].stderr == pytest.approx(math.hypot(found.stderr, 0.1 * slope))
    beyond = Point(0.0, 0, 0.0, [], validation.scores, {"entropy": 9.0, "entropy_stderr": 0.0})
    assert matched_figures(points, beyond) == {}


# --- real cells -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(tiny: Project) -> Project:
    return tiny


MEASURED = "{name: frontier, texts: 4, temperatures: [0.5, 1.0], scorer: {name: cell, of: tiny.left}}"


def evaluate(project: Project, key: str, measured: str = MEASURED) -> Artifact:
    overrides = [f"evaluation.measurements=[likelihood, {measured}]"]
    sweep = project.sweeps(overrides)["tiny"]
    cell = next(cell for cell in sweep.cells if cell.plain == key)
    refresh_source_identities()
    return Computation(project.store, launcher=Here(), log=lambda _: None).ensure_all(cell.experiment, cell.key)[
        "evaluation"
    ]


def test_a_cell_is_scored_by_another_and_by_itself(project: Project) -> None:
    other, itself = evaluate(project, "tiny.uniform"), evaluate(project, "tiny.left")
    table = pd.read_parquet(other.folder / "frontier.parquet")
    assert [*zip(table["kind"], table["temperature"], table["steps"], strict=True)] == [
        *(("samples", temperature, steps) for temperature in (0.5, 1.0) for steps in (2, 4)),
        ("validation", 0.0, 0),
    ]
    assert (table["texts"] == 4).all()
    found = other.summary["frontier"]
    assert (found["scorer_is_model"], itself.summary["frontier"]["scorer_is_model"]) == (False, True)
    assert found["validation"] == itself.summary["frontier"]["validation"], "one scorer, the same text"
    assert found["t0.5"]["steps_2"]["bits_per_byte"] == table["bits_per_byte"][0]
    # What the model says of the text in its own evaluation, it says as a scorer.
    likelihood = itself.summary["bits_per_byte"]
    assert itself.summary["sequences"] == 4
    assert found["validation"]["bits_per_byte"] == pytest.approx(likelihood, abs=1e-5)
    page = (itself.folder / "report.md").read_text()
    assert "Scored by cell tiny.left" in page
    assert "It is the model itself" in page
    assert "It is the model itself" not in (other.folder / "report.md").read_text()
    assert (other.folder / "plots" / "frontier.png").stat().st_size > 1000
    texts = pd.read_parquet(other.folder / "frontier_texts.parquet")
    assert len(texts) == 5 * 4
    own = texts[texts["kind"] == "validation"]
    assert own["nats"].sum() / math.log(2) / own["bytes"].sum() == pytest.approx(found["validation"]["bits_per_byte"])


def test_the_scorer_is_an_input_and_no_folder_of_this_machine_is_recorded(project: Project) -> None:
    evaluation = evaluate(project, "tiny.uniform")
    reference = evaluation.manifest["references"]["evaluation.measurements[1].scorer.of"]
    assert (reference["cell"].partition("[")[0], reference["stage"]) == ("tiny.left", "exported_model")
    own = json.loads((evaluation.folder / "measurements.json").read_text())["frontier"]
    measured = project.store.find("evaluation.frontier", own)
    assert measured is not None
    place = "evaluation.options.scorer.of"
    assert measured.manifest["identity"]["references"][place]["fingerprint"] == reference["fingerprint"]
    for artifact in (evaluation, measured):
        assert str(project.store.root) not in (artifact.folder / "manifest.json").read_text()


def test_a_scorer_of_another_corpus_is_named_as_such(project: Project) -> None:
    """A cell of other data, which the evaluation of this one reads the tokens of: both know bytes."""
    (project.root / "experiments" / "far.yaml").write_text(
        "base: tiny\ncorpus: {validation_fraction: 0.4}\n"
        "process: null\nobjective: autoregressive\nmodel: {attention: causal}\n"
    )
    try:
        evaluation = evaluate(project, "tiny.uniform", MEASURED.replace("tiny.left", "far"))
    finally:
        (project.root / "experiments" / "far.yaml").unlink()
    assert "It was trained on another corpus" in (evaluation.folder / "report.md").read_text()


def test_the_report_of_a_sweep_sets_the_frontiers_side_by_side(project: Project, tmp_path: Path) -> None:
    from sumi_core.reports.artifact import compare_sweep
    from sumi_core.reports.pages import report_markdown
    from sumi_core.reports.report import write_plots

    for key in ("tiny.uniform", "tiny.left"):
        evaluate(project, key)
    sweep = project.sweeps([f"evaluation.measurements=[likelihood, {MEASURED}]"])["tiny"]
    comparison = compare_sweep(project.store, sweep)
    plots = write_plots(comparison, tmp_path)
    assert "frontier" in {path.stem for path in plots}
    page = report_markdown(comparison, plots)
    assert "## Generative frontiers" in page
    assert "scored its own texts" in page
    lines = [line for line in page.splitlines() if line.startswith("| [validation text] |")]
    assert len(lines) == 1, "the same for both"
    assert len([line for line in page.splitlines() if line.startswith("| tiny.uniform") and "| 0.5 |" in line]) == 2


# --- over seeds -----------------------------------------------------------------------------------------------------


def frontier_of(bits: list[float], stderr: float) -> pd.DataFrame:
    """A table of one number of steps and rising temperatures, and validation text last."""
    rows = []
    for place, own in enumerate(bits):
        last = place == len(bits) - 1
        row: dict[str, Any] = {"kind": "validation" if last else "samples", "steps": 0 if last else 8, "texts": 9}
        row |= {"temperature": 0.0 if last else 0.5 + place / 2, "calls": row["steps"]}
        for name in ("bits_per_byte", "perplexity", "entropy", "distinct_2", "repetition_4"):
            row |= {name: own, f"{name}_stderr": stderr}
        rows.append(row)
    return pd.DataFrame(rows)


def test_seeds_are_averaged_with_both_errors_and_an_interval() -> None:
    from scipy.stats import t

    tables = [frontier_of([2.0 + luck, 3.0 + luck, 2.5], 0.03) for luck in (-0.1, 0.0, 0.1)]
    mean = mean_frontier(tables)
    samples = mean[mean["kind"] == "samples"]
    assert [*samples["bits_per_byte"]] == pytest.approx([2.0, 3.0])
    assert [*samples["bits_per_byte_stderr"]] == pytest.approx([math.hypot(0.03, 0.1 / math.sqrt(3))] * 2)
    row = frontier_rows({"a": mean})[0]
    reach = math.hypot(t.ppf(0.975, 8) * 0.03, t.ppf(0.975, 2) * 0.1 / math.sqrt(3))
    assert row["95 % interval"] == f"{2 - reach:.3f} to {2 + reach:.3f}"
    alone = frontier_rows({"a": mean_frontier(tables[:1])})[0]
    assert alone["95 % interval"] == f"{1.9 - t.ppf(0.975, 8) * 0.03:.3f} to {1.9 + t.ppf(0.975, 8) * 0.03:.3f}"
    both = frontier_rows({"a": mean, "b": mean_frontier(tables)})
    assert [own["cell"] for own in both] == ["a", "a", "[validation text]", "b", "b"]


def test_a_plot_has_a_line_for_each_number_of_steps_and_one_star() -> None:
    table = frontier_of([2.0, 3.0, 2.5], 0.03)
    more = pd.concat([table, table[table["kind"] == "samples"].assign(steps=32)], ignore_index=True)
    names = {"one": {"": more}, "two": {"a": more, "b": table}}
    labels = {name: draw_frontier(tables).axes[0].get_legend_handles_labels()[1] for name, tables in names.items()}
    assert labels["one"] == ["8 steps", "32 steps", "validation text"]
    assert labels["two"] == ["a, 8 steps", "a, 32 steps", "b, 8 steps", "validation text"]


def test_temperatures_are_checked() -> None:
    from sumi_core.base.options import ConfigError
    from sumi_core.experiments.resolve import resolve

    of: dict[str, Any] = {"name": "folder", "folder": "x"}
    for temperatures in ([0.5, 0.5], [-1.0]):
        measured = [{"name": "frontier", "scorer": of, "temperatures": temperatures}]
        with pytest.raises(ConfigError, match="temperatures are different numbers of 0 or more"):
            resolve({"evaluation": {"measurements": measured}}, "tests")
    with pytest.raises(ConfigError, match="expected the name of a scorer"):
        resolve({"evaluation": {"measurements": ["frontier"]}}, "tests")
    assert Frontier.Options(scorer=of).temperatures == [0.6, 0.8, 1.0]


def test_a_sampler_without_a_temperature_is_refused() -> None:
    own = {"name": "frontier"}
    refused = Frontier.incompatibility(own, {"evaluation": {"sampler": {"name": "threshold", "threshold": 0.9}}})
    assert refused is not None
    assert refused[0] == "evaluation.sampler"
    assert "'threshold' has no temperature" in refused[1]
    assert Frontier.incompatibility(own, {"evaluation": {"sampler": {"name": "x", "temperature": 1.0}}}) is None
