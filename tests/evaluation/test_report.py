"""The comparison of a sweep: what is ranked, what is shown beside it, and what happens to cells without figures."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sumi_core.base.statistics import holm_adjusted
from sumi_core.evaluation.likelihood import likelihood_findings
from sumi_core.evaluation.measurement import Findings, write_findings
from sumi_core.evaluation.result import report_markdown, write_evaluation
from sumi_core.evaluation.samples import Drawn, sample_findings
from sumi_core.evaluation.yardsticks import yardstick_findings
from sumi_core.experiments.schema import Experiment
from sumi_core.experiments.sweeps import Cell
from sumi_core.reports.comparison_rows import table_rows
from sumi_core.reports.differences import Difference, oriented, ranks
from sumi_core.reports.from_store import Question, ReportCell, compare_cells
from sumi_core.reports.pages import comparison_text
from sumi_core.reports.report import build_ablation_report
from sumi_core.reports.row import Row
from sumi_core.reports.table import tied_with_best
from sumi_core.stages.store import Artifact
from tests.evaluation.fakes import likelihoods

COUNT, DRAWS = 120, 4
GENERATOR = np.random.default_rng(0)
BYTES = GENERATOR.integers(80, 120, COUNT)
HARDNESS = GENERATOR.normal(1.4, 0.3, COUNT)
GIT = {"provenance": {"git": {"commit": "0123456789abcdef0123", "dirty": False}}}
NASTY = "He said:\n```\nrm | x\x1b[31m red\u202e\n```"


LABELS = {"objective": "nelbo", "process": "uniform", "schedule": "linear", "sampler": "ancestral"}


def found_of(
    extra: float, seed: int, exact: bool = False, text: str = "some text", texts: str = "t", one_document: bool = False
) -> dict[str, Findings]:
    """What is found of a model that takes ``extra`` nats per byte more than the texts' own hardness."""
    generator = np.random.default_rng(seed)
    draws = 1 if exact else DRAWS
    level = None if exact else (np.arange(COUNT * draws).reshape(COUNT, draws) + 0.5) / (COUNT * draws)
    nats = ((HARDNESS + extra)[:, None] + generator.normal(0, 0.05, (COUNT, draws))) * BYTES[:, None]
    measured = likelihoods(nats, level=level, bytes_=BYTES, tokens=64, exact=exact)
    if one_document:
        measured = dataclasses.replace(measured, document=np.zeros(COUNT, dtype=np.int64))
    steps = [64] if exact else [8, 32]
    described = {f"steps_{s}": {"distinct_1": 0.5 + s / 100, "distinct_1_stderr": 0.02} for s in steps}
    described["validation"] = {"distinct_1": 0.7, "copy_rate_8": math.nan}
    drawn = [Drawn(s, np.full(2, s), np.zeros((2, 64), dtype=np.int64)) for s in steps]
    return {
        "likelihood": likelihood_findings(measured, [f"{texts}{i}" for i in range(COUNT)]),
        "yardsticks": yardstick_findings({"unigram_bytes": 4.4, "unigram_tokens": 4.2, "xz": 2.2}),
        "samples": sample_findings(
            drawn, {s: [text, "another"] for s in steps}, described, ["distinct_n: share of different n-grams."]
        ),
    }


def write_found(folder: Path, key: str, found: dict[str, Findings]) -> tuple[Path, dict]:
    """Write an evaluation of these findings: its folder and its summary."""
    own = folder / key
    own.mkdir()
    measured = {name: folder / f"{key}-{name}" for name in found}
    for name, place in measured.items():
        place.mkdir()
        write_findings(found[name], place)
    return own, json.loads(json.dumps(write_evaluation(own, key, LABELS, measured), allow_nan=False))


def report_cell(
    folder,
    label,
    extra=0.0,
    seed=0,
    exact=False,
    text="some text",
    state="done",
    why="",
    texts="t",
    trained=None,
    one_document=False,
):
    """A cell as the store would hold it, or one that is not evaluated; of one of several seeds, if ``trained`` is its
    training seed."""
    experiment = Experiment(seed=trained or 0)
    if exact:
        experiment.objective, experiment.process = {"name": "autoregressive"}, None
    labels = {"method": label} | ({} if trained is None else {"seed": f"s{trained}"})
    cell = Cell(".".join(["sweep", *labels.values()]), "sweep", labels, experiment)
    label = cell.key
    if state != "done":
        return ReportCell(cell, state, why)
    own, found = write_found(folder, label, found_of(extra, seed, exact, text, texts, one_document))
    history = [(s, s * 1000, "train/loss", 3 / s + extra) for s in range(1, 51)]
    history += [(s, s * 1000, "validation/nats_per_token", 3 / s + 0.2 + extra) for s in range(10, 51, 10)]
    history += [(s, s * 1000, "train/grad_norm", 1.0 if s <= 45 else 0.25) for s in range(1, 51)]
    (folder / f"{label}-training").mkdir()
    pd.DataFrame(history, columns=["step", "tokens", "name", "value"]).to_parquet(
        folder / f"{label}-training" / "history.parquet"
    )
    summary = {"tokens_seen": 4_096_000, "parameters": 1_100_000, "flops": 3e13, "seconds": 75.0}
    summary |= {"supervised_share": 0.5 if label == "sweep.absorbing" else 1.0}
    summary |= {"tokens_per_second": 5e4, "peak_memory_bytes": 2**29 + experiment.seed}
    return ReportCell(
        cell,
        "done",
        "",
        pretrained_denoiser=Artifact("pretrained_denoiser", "f", folder / f"{label}-training", {"summary": summary}),
        evaluation=Artifact("evaluation", "e", own, {"summary": found, **GIT}),
    )


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("evaluations")
    return [
        report_cell(tmp_path, "uniform", 0.30, 1, text=NASTY),
        report_cell(tmp_path, "absorbing", 0.20, 2),
        report_cell(tmp_path, "ar", 0.0, 3, exact=True),
        report_cell(tmp_path, "twin", 0.0, 4, exact=True),
        report_cell(tmp_path, "broken", state="failed", why="pretrained_denoiser: loss became NaN | at step 3"),
    ]


@pytest.fixture(scope="module")
def report(cells, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return build_ablation_report(Question("sweep", "What is asked."), cells, folder), folder


def test_summary_names_the_best_of_these_models(report):
    summary, _ = report
    assert summary["cells"] == 5
    assert summary["evaluated"] == 4
    assert summary["best"] in ("sweep.ar", "sweep.twin")
    assert "tied_with_best" not in summary, "with one seed each there are trained models, and no methods"
    assert summary["bits_per_byte"]["sweep.uniform"] == pytest.approx(
        float(((HARDNESS + 0.3) * BYTES).sum() / BYTES.sum() / math.log(2)), abs=0.01
    )
    json.dumps(summary, allow_nan=False)


def test_rows_are_ordered_with_the_yardsticks_among_them_and_the_missing_last(cells):
    comparison = compare_cells("sweep", "", cells)
    names = [row.name for row in comparison.rows]
    assert sorted(names[:2]) == ["sweep.ar", "sweep.twin"]
    assert names[2:] == ["xz", "sweep.absorbing", "sweep.uniform", "unigram_tokens", "unigram_bytes", "sweep.broken"]
    assert {row.rank for row in comparison.cell_rows} == {None}


def test_differences_are_paired_and_go_to_the_reference(cells):
    comparison = compare_cells("sweep", "", cells, reference="sweep.absorbing")
    rows = {row.name: row for row in comparison.rows}
    uniform = rows["sweep.uniform"]
    assert rows["sweep.absorbing"].difference is None
    assert {row.reference for row in comparison.cell_rows} == {"sweep.absorbing", None}
    assert uniform.difference == pytest.approx(0.1 / math.log(2), abs=0.01)
    assert uniform.difference_stderr < 0.2 * uniform.stderr
    assert 0 < uniform.difference_low_95 < uniform.difference < uniform.difference_high_95
    assert (uniform.paired, uniform.significant, uniform.p_adjusted) == (True, None, None)
    assert rows["sweep.ar"].difference < 0
    assert compare_cells("sweep", "", cells, reference="sweep.broken").reference in ("sweep.ar", "sweep.twin")


def test_p_values_are_corrected_over_what_was_planned_else_over_all_pairs(tmp_path):
    cells = [
        report_cell(tmp_path, name, extra + 0.003 * seed, 10 * number + seed, trained=seed)
        for number, (name, extra) in enumerate({"uniform": 0.3, "absorbing": 0.2, "ar": 0.0}.items())
        for seed in range(3)
    ]
    comparison = compare_cells("sweep", "", cells, reference="sweep.absorbing")
    rows = {row.name: row for row in comparison.rows}
    [pair] = [d for d in comparison.differences if {d.first, d.second} == {"sweep.uniform", "sweep.absorbing"}]
    alone = {name: row for name, row in rows.items() if row.difference is not None}
    pairs = [oriented(comparison.differences, name, "sweep.absorbing") for name in alone]
    corrected = dict(zip(alone, holm_adjusted([d.p for d in pairs]), strict=True))
    assert {name: row.p_adjusted for name, row in alone.items()} == corrected, "over what was planned"
    assert rows["sweep.uniform"].p_adjusted <= pair.p_adjusted < 0.05
    assert [rows[f"sweep.{name}"].rank for name in ("ar", "absorbing", "uniform")] == [1, 2, 3]
    unplanned = {row.name: row for row in compare_cells("sweep", "", cells).rows if row.difference is not None}
    pairs = compare_cells("sweep", "", cells).differences
    best = unplanned["sweep.uniform"].reference
    assert unplanned["sweep.uniform"].p_adjusted == oriented(pairs, "sweep.uniform", best).p_adjusted, "over all pairs"


def test_page_marks_bounds_exact_figures_failures_and_escapes(report):
    _, folder = report
    page = (folder / "report.md").read_text(encoding="utf-8")
    results, costs = [part.splitlines() for part in page.split("\n\n") if part.startswith("| cell | ")][:2]
    lines, cost = ({line.split(" | ")[0].strip("| "): line for line in table} for table in (results, costs))
    assert "| ≤ " in lines["sweep.uniform"]
    assert "| = " in lines["sweep.ar"]
    assert lines["sweep.broken"].startswith("| sweep.broken | failed | – | – |")
    assert "* sweep.broken is failed: pretrained_denoiser: loss became NaN | at step 3" in page
    assert "| [xz] |   2.200 |" in page
    assert "Of these trained models, one seed each, sweep." in page
    assert "In bits per byte, these trained models differ from sweep." in page
    for verdict in ("significant", "p (Holm)", "rank |"):
        assert verdict not in page.partition("## What the figures mean")[0], verdict
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "````text\nHe said:\n```\nrm | x\\x1b[31m red\\u202e\n```\n````" in page
    assert "distinct_n: different word n-grams" in page
    assert "4.1 M | 4.1 M (100%) |" in cost["sweep.ar"]
    assert "| 2.05 M (50%) |" in cost["sweep.absorbing"]
    assert "2.05 M tokens had a loss for sweep.absorbing, 4.1 M for sweep." in page
    assert "1 min 15 s" in cost["sweep.ar"]
    assert "xz" not in " ".join(cost)


def test_plain_text_for_the_terminal(report):
    _, folder = report
    text = (folder / "report.txt").read_text(encoding="utf-8")
    assert text.startswith("sweep: What is asked.\n\ncell ")
    assert "sweep.uniform, first sample at 32 steps:\n  He said:↵" in text
    assert "\x1b" not in text
    table = text.split("\n\n")[1].splitlines()
    assert max(map(len, text.splitlines())) <= 100
    assert table[-1].startswith("sweep.broken ")
    assert "sweep.broken is failed: " in text
    assert "Of these trained models, one seed each, sweep." in " ".join(text.split())


def test_a_reason_is_told_whole_and_wrapped(tmp_path):
    why = "pretrained_denoiser: " + " ".join(f"word{i}" for i in range(200))
    comparison = compare_cells("sweep", "", [report_cell(tmp_path, "broken", state="failed", why=why + "\n\x1b[31m")])
    text = comparison_text(comparison, 60)
    assert max(map(len, text.splitlines())) <= 60
    assert f"sweep.broken is failed: {why} \\x1b[31m" in " ".join(text.split())


def test_page_and_terminal_have_the_same_columns_and_the_overrides(cells, report, tmp_path):
    page = (report[1] / "report.md").read_text(encoding="utf-8")
    headers = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| cell |")]
    header = [*headers[0], *headers[1][1:]]
    comparison = compare_cells("sweep", "", cells)
    assert header == list(table_rows(comparison)[0])
    assert {"supervised", "training FLOPs", f"to {comparison.reference}"} <= set(header)
    text = comparison_text(comparison, 1000)
    assert text.splitlines()[0].split("  ")[0] == "cell"
    for title in header:
        assert title in text.splitlines()[0]
    changed = [dataclasses.replace(c, cell=dataclasses.replace(c.cell, overrides=("a=1", "b=[1, 2]"))) for c in cells]
    build_ablation_report(Question("sweep", ""), changed, tmp_path)
    for name in ("report.md", "report.txt"):
        written = (tmp_path / name).read_text(encoding="utf-8")
        assert "Changed on the command line: a=1 'b=[1, 2]'" in written, name
        assert "Changed" not in (report[1] / name).read_text(encoding="utf-8"), name


def test_tables_hold_every_row(report):
    _, folder = report
    table = pd.read_parquet(folder / "table.parquet")
    assert len(table) == 5 + 3
    assert set(table[table.kind == "cell"]["axis.method"]) == {"uniform", "absorbing", "ar", "twin", "broken"}
    csv = pd.read_csv(folder / "table.csv")
    assert csv["bits_per_byte"].notna().sum() == 4 + 3
    assert list(csv.columns) == list(table.columns)
    assert set(csv.columns) == {f.name for f in dataclasses.fields(Row)} - {
        "labels",
        "readings",
        "initial_readings",
    } | {"axis.method"}
    data = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert len(data["rows"]) == 8
    assert {row["name"]: row["p_adjusted"] for row in data["rows"]}["sweep.uniform"] is None
    assert {d["significant"] for d in data["differences"]} == {None}
    assert data["standing"] in " ".join((folder / "report.md").read_text(encoding="utf-8").split("\n"))
    assert len(data["differences"]) == 6
    assert sorted(p.name for p in (folder / "plots").iterdir()) == [
        "bits_per_byte.png",
        "differences.png",
        "loss_by_level.png",
        "loss_history.png",
        "sample_quality.png",
    ]


def test_a_sweep_without_figures_is_a_valid_report(tmp_path):
    cells = [report_cell(tmp_path, "one", state="missing", why="pretrained_denoiser: never computed")]
    summary = build_ablation_report(Question("sweep", ""), cells, tmp_path)
    assert summary == {"cells": 1, "evaluated": 0}
    assert "sweep.one is missing: pretrained_denoiser: never computed" in (tmp_path / "report.md").read_text(
        encoding="utf-8"
    )
    assert not (tmp_path / "plots").exists()


def test_one_cell_alone_is_not_ranked(tmp_path):
    summary = build_ablation_report(Question("sweep", ""), [report_cell(tmp_path, "one")], tmp_path)
    assert summary["best"] == "sweep.one"
    assert "nothing to compare" in (tmp_path / "report.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("seeds", [(None,), (0, 1)])
def test_cells_measured_on_one_document_have_a_report_without_errors(tmp_path, seeds):
    cells = [
        report_cell(tmp_path, label, extra, 7, one_document=True, trained=seed)
        for label, extra in (("one", 0.0), ("other", 0.3))
        for seed in seeds
    ]
    summary = build_ablation_report(Question("sweep", ""), cells, tmp_path)
    assert summary["best"].startswith("sweep.one")
    assert "nan" not in (tmp_path / "report.txt").read_text(encoding="utf-8")
    json.loads((tmp_path / "report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)


def test_cells_on_other_texts_are_marked_unpaired_and_keep_their_own_yardsticks(tmp_path):
    one, other = report_cell(tmp_path, "one"), report_cell(tmp_path, "other", 0.4, 1, texts="other")
    other.evaluation.manifest["summary"]["yardsticks"]["xz"] = 1.7
    build_ablation_report(Question("sweep", ""), [one, other], tmp_path)
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "(unpaired)" in page
    assert "[xz (sweep.one)]" in page
    assert "[xz (sweep.other)]" in page
    assert "[unigram_bytes]" in page


def test_evaluation_page_says_what_kind_of_figure_it_is():
    bound, exact = (report_markdown("c", list(found_of(0.1, 1, exact=e).values())) for e in (False, True))
    assert "an upper bound (≤)" in bound
    assert "| bits per byte | ≤ " in bound
    assert "reconstruction term" in bound
    page = exact
    assert "| bits per byte | = " in page
    assert "reconstruction term" not in page
    for name in ("unigram_bytes:", "ppmd_5:", "xz:", "distinct_n:"):
        assert f"* {name}" in page


def test_figures_are_flat_numbers_without_nan(tmp_path):
    folder, summary = write_found(tmp_path, "cell", found_of(0.1, 1))
    flat = json.loads((folder / "metrics.json").read_text())
    assert flat["yardsticks.xz"] == 2.2
    assert flat["samples.steps_32.distinct_1"] == pytest.approx(0.82)
    assert "samples.validation.copy_rate_8" not in flat
    assert flat["exact"] == 0.0
    assert all(math.isfinite(value) for value in flat.values())
    assert list(summary)[:4] == list(LABELS)
    table = pd.read_parquet(folder / "metrics.parquet")
    row = table[(table["name"] == "distinct_1") & (table["steps"] == 8)].iloc[0]
    assert (row["group"], row["stderr"]) == ("samples", 0.02)
    assert list(dict.fromkeys(table["group"])) == ["likelihood", "yardstick", "samples", "validation"]


def test_measurements_do_not_overwrite_each_other(tmp_path):
    found = found_of(0.1, 1)
    with pytest.raises(ValueError, match=r"measurement 'again' reports yardsticks, as another does; rename"):
        write_found(tmp_path, "figures", {**found, "again": Findings({"yardsticks": {}})})
    table = found["samples"].tables["samples.parquet"]
    with pytest.raises(ValueError, match=r"two measurements write samples\.parquet"):
        write_found(tmp_path, "files", {**found, "again": Findings(tables={"samples.parquet": table})})


def test_a_sweep_whose_cells_draw_no_samples_has_a_report(tmp_path):
    cells = [report_cell(tmp_path, name, extra) for name, extra in (("one", 0.1), ("two", 0.3))]
    for cell in cells:
        for name in ("samples", "sample_steps", "yardsticks"):
            del cell.evaluation.manifest["summary"][name]
    (tmp_path / "report").mkdir()
    summary = build_ablation_report(Question("sweep"), cells, tmp_path / "report")
    assert summary["best"] == "sweep.one"
    page = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "## Samples" not in page
    assert "unigram_tokens" not in page.partition("## What the figures mean")[0]


def test_reports_are_made_without_heavy_imports():
    """The command line prints reports: it should not wait for torch."""
    code = "import sumi_core.reports.report, sys; print({'torch', 'pandas', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_noisy_cell_is_tied_with_the_best_whatever_its_rank(cells):
    """Beaten by a neighbour, but not for sure by the best: its rank is 2, and it still cannot be told from the best."""
    comparison = compare_cells("sweep", "", cells)
    best, second, noisy = list(comparison.cells)[:3]
    differences = [
        Difference(best, second, -0.1, 0.01, True, 0.001, stderr_seeds=0.01),
        Difference(best, noisy, -0.3, 0.3, False, 0.4, stderr_seeds=0.3),
        Difference(second, noisy, -0.2, 0.01, True, 0.001, stderr_seeds=0.01),
    ]
    places = ranks(differences)
    assert places == {best: 1, second: 2, noisy: 2}
    kept = [dataclasses.replace(r, rank=places[r.name]) for r in comparison.cell_rows if r.name in places]
    assert tied_with_best(dataclasses.replace(comparison, differences=differences, rows=kept)) == [noisy]
