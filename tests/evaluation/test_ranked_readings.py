"""What comparisons say where methods are ranked by different readings: exact figures and bounds."""

import pandas as pd

from sumi_core.reports.comparison_rows import table_rows
from sumi_core.reports.findings import findings
from sumi_core.reports.from_store import Question
from sumi_core.reports.report import build_ablation_report
from sumi_core.reports.row import Row
from sumi_core.reports.study import study_markdown
from sumi_core.reports.table import compare_rows
from tests.evaluation.test_report import report_cell


def ranked(*rows):
    """A comparison of methods given as (name, reading, exact, bits per byte)."""
    made = [Row("cell", n, reading=reading, exact=exact, bits_per_byte=bits) for n, reading, exact, bits in rows]
    return compare_rows(made, {})


def caution(found):
    said = [sentence for sentence in findings(found) if "readings" in sentence]
    assert all("reading" in row for row in table_rows(found)) == bool(said)
    return " ".join(said)


AR = ("ar", "autoregressive", True, 1.5)
WHOLE = ("whole", "diffusion", False, 1.8)
BLOCKS = ("blocks", "blocks_16", False, 1.7)
LOOSE, SMALLER = "may be loose", "of two bounds the smaller one"


def test_figures_of_one_reading_are_ranked_without_a_word():
    assert not caution(ranked(WHOLE, ("other", "diffusion", False, 1.6)))
    assert not caution(ranked(AR, ("other", "autoregressive", True, 1.6)))
    assert not caution(ranked(WHOLE, ("missing", "blocks_4", None, None))), "what has no figure is not ranked"


def test_a_bound_beside_an_exact_figure_or_another_bound_is_cautioned_about():
    assert LOOSE in caution(ranked(AR, WHOLE))
    assert SMALLER not in caution(ranked(AR, WHOLE))
    assert SMALLER in caution(ranked(BLOCKS, WHOLE))
    assert LOOSE not in caution(ranked(BLOCKS, WHOLE))
    both = caution(ranked(AR, BLOCKS, WHOLE))
    assert LOOSE in both
    assert SMALLER in both
    assert "autoregressive =: ar; blocks_16 ≤: blocks; diffusion ≤: whole" in both
    assert [row["reading"] for row in table_rows(ranked(AR, BLOCKS, WHOLE))] == [
        "autoregressive",
        "blocks_16",
        "diffusion",
    ]


def test_a_report_of_different_readings_says_so_and_a_study_of_it_too(tmp_path):
    made = report_cell(tmp_path, "absorbing", 0.1, 3)
    exact = report_cell(tmp_path, "ar", 0.0, 4, exact=True)
    build_ablation_report(Question("sweep", ""), [made, exact], tmp_path)
    table = pd.read_parquet(tmp_path / "table.parquet").set_index("name")
    assert table["reading"][["sweep.absorbing", "sweep.ar"]].tolist() == ["diffusion", "autoregressive"]
    for text in ((tmp_path / "report.md").read_text(encoding="utf-8"), study_markdown(tmp_path)):
        assert LOOSE in text
        assert "| autoregressive |" in text
