"""The report of a sweep with several seeds: rows, differences, what is missing, the pages and what they are made of."""

import csv
import dataclasses
import html
import json
import math
import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest

from sumi_core.base.statistics import holm_adjusted
from sumi_core.evaluation import plots
from sumi_core.reports.comparison_rows import table_rows
from sumi_core.reports.differences import oriented
from sumi_core.reports.findings import certainty, findings
from sumi_core.reports.from_store import Question, compare_cells
from sumi_core.reports.report import build_ablation_report
from sumi_core.reports.row import COLUMNS, Row
from sumi_core.reports.study import StudyError, marks, read_comparison, study_markdown, write_study
from sumi_core.reports.table import compare_rows, seed_groups
from tests.evaluation.test_report import NASTY, report_cell

BEGIN, END = marks("sweep")
QUESTION = Question(
    "sweep",
    "Which <method> is best & why?",
    {"method": ["uniform", "absorbing", "hybrid", "alone"], "seed": ["s0", "s1", "s2"]},
    "sweep.uniform",
    "3 M tokens for every cell",
    "d1ge57",
)
OFFSETS = {"uniform": 0.30, "absorbing": 0.10, "hybrid": 0.297}
LUCK = [0.04, -0.04, 0.0]  # of a seed, with any method, in nats per byte
FAILURE = "pretrained_denoiser: the loss is NaN at step 3"


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Three methods with three seeds each, of which hybrid's second failed, and one method with a single seed."""
    folder = tmp_path_factory.mktemp("evaluations")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("plot_comparison", "plot_loss_by_level", "plot_quality_against_steps"):
            patch.setattr(plots, name, lambda *_: None)  # the evaluations' own pictures are of no use here
        made = []
        for number, (name, extra) in enumerate(OFFSETS.items()):
            for seed, luck in enumerate(LUCK):
                if (name, seed) == ("hybrid", 1):
                    made.append(report_cell(folder, name, state="failed", why=FAILURE, trained=seed))
                    continue
                made.append(report_cell(folder, name, extra + luck, 10 * number + seed, text=NASTY, trained=seed))
        return [*made, report_cell(folder, "alone", 0.2, 90, trained=0)]


@pytest.fixture(scope="module")
def comparison(cells):
    return compare_cells("sweep", "", cells, question=QUESTION)


@pytest.fixture(scope="module")
def report(cells, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return build_ablation_report(QUESTION, cells, folder), folder


def rows_of(comparison):
    return {row.name: row for row in comparison.rows}


def test_seeds_are_one_row_with_both_errors(comparison):
    rows = rows_of(comparison)
    uniform, own = rows["sweep.uniform"], [rows[f"sweep.uniform.s{seed}"] for seed in range(3)]
    figures = [row.bits_per_byte for row in own]
    assert (uniform.kind, uniform.seeds, uniform.seeds_planned) == ("group", 3, 3)
    assert uniform.bits_per_byte == pytest.approx(np.mean(figures))
    assert uniform.stderr_seeds == pytest.approx(np.std(figures, ddof=1) / math.sqrt(3))
    assert uniform.stderr == pytest.approx(math.hypot(uniform.stderr_documents, uniform.stderr_seeds))
    assert uniform.stderr_documents == pytest.approx(np.mean([row.stderr for row in own]), rel=0.02)
    assert [row.group for row in own] == ["sweep.uniform"] * 3
    assert [row.rank for row in own] == [None] * 3, "the group stands for its seeds"
    assert (uniform.seconds, uniform.peak_memory_bytes) == (75.0, 2**29 + 2), "mean cost, largest memory"
    assert uniform.labels == {"method": "uniform"}


def test_the_table_has_a_row_for_each_method(comparison):
    shown = {row["cell"]: row for row in table_rows(comparison)}
    assert [name for name in shown if not name.startswith("[")] == [
        "sweep.absorbing",
        "sweep.alone.s0",
        *sorted(["sweep.hybrid", "sweep.uniform"], key=lambda name: rows_of(comparison)[name].bits_per_byte),
    ]
    assert (shown["sweep.uniform"]["seeds"], shown["sweep.hybrid"]["seeds"], shown["sweep.alone.s0"]["seeds"]) == (
        "3",
        "2 of 3",
        "1",
    )
    assert shown["sweep.uniform"]["to sweep.uniform"] == "reference"


def test_differences_are_paired_by_seed(comparison):
    rows = rows_of(comparison)
    absorbing, hybrid, alone = rows["sweep.absorbing"], rows["sweep.hybrid"], rows["sweep.alone.s0"]
    assert absorbing.difference == pytest.approx(-0.2 / math.log(2), abs=0.01)
    assert (absorbing.paired, absorbing.paired_seeds, absorbing.seeds_compared) == (True, True, 3)
    assert absorbing.difference_stderr_seeds < 0.5 * absorbing.stderr_seeds, "the seeds' luck cancels"
    assert absorbing.difference_low_95 < absorbing.difference < absorbing.difference_high_95 < 0
    assert absorbing.difference_bootstrap_low_95 < absorbing.difference < absorbing.difference_bootstrap_high_95
    assert absorbing.significant
    assert (hybrid.seeds_compared, hybrid.significant) == (2, False)
    assert (alone.seeds_compared, alone.difference_stderr_seeds) == (1, None)
    assert {rows[name].rank for name in ("sweep.uniform", "sweep.hybrid")} <= {2, 3}


def test_what_was_found_and_how_sure_it_is(comparison):
    said, sure = " ".join(findings(comparison)), " ".join(certainty(comparison))
    assert 2 <= len(findings(comparison)) <= 5
    assert "Against sweep.uniform (corrected over the 2 differences to it), in bits" in said
    assert "per byte, better: sweep.absorbing (-0.28" in said
    assert "not told apart: sweep.hybrid (" in said
    assert said.startswith("Of the methods with several seeds, sweep.absorbing has the fewest bits per byte")
    assert "these trained models with one seed differ from sweep.uniform: sweep.alone.s0 (-0.19" in said
    assert "No figures yet for 1 of 10 cells: sweep.hybrid.s1 (failed)." in said
    assert "means over 1 to 3 training seeds" in sure
    assert "One seed only: sweep.alone.s0. These are trained models" in sure
    assert "use the seeds that both have: sweep.hybrid" not in sure, "both of hybrid's seeds went in"


def test_one_seed_keeps_its_figures_and_says_what_they_lack(cells):
    single = [c for c in cells if c.cell.experiment.seed == 0]
    found = compare_cells("sweep", "", single, question=QUESTION)
    assert {row.kind for row in found.rows} == {"cell", "yardstick"}
    assert found.reference == "sweep.uniform.s0", "the one cell of the reference's group"
    assert "seeds" not in table_rows(found)[0]
    rows = rows_of(found)
    assert rows["sweep.uniform.s0"].stderr == rows["sweep.uniform.s0"].stderr_documents
    assert "so differences are between these trained models" in certainty(found)[0]
    assert "neither ranks nor p-values" in certainty(found)[0]
    assert not {"p (Holm)", "rank"} & set(table_rows(found)[0])
    assert "significant" not in " ".join([*findings(found), *certainty(found)])


def test_a_reference_with_fewer_seeds_is_told(cells):
    fewer = [c for c in cells if c.key not in ("sweep.uniform.s1", "sweep.uniform.s2")]
    found = compare_cells("sweep", "", fewer, question=QUESTION)
    assert found.reference == "sweep.uniform.s0"
    absorbing = rows_of(found)["sweep.absorbing"]
    assert (absorbing.seeds, absorbing.seeds_compared, absorbing.difference_stderr_seeds) == (3, 1, None)
    assert "use the seeds that both have: sweep.absorbing (1 of 3)" in " ".join(certainty(found))


def test_a_reference_without_figures_is_told(cells):
    gone = [c for c in cells if not c.key.startswith("sweep.uniform")]
    gone.append(report_cell(None, "uniform", state="missing", why="corpus: never computed", trained=0))
    found = compare_cells("sweep", "", gone, question=QUESTION)
    assert (found.reference, found.reference_missing) == ("sweep.absorbing", True)
    assert "sweep.uniform has no figures, so differences are to the best." in findings(found)


def test_a_group_without_figures_is_a_row_with_its_state(cells):
    failed = [
        report_cell(None, "uniform", state="failed", why=FAILURE, trained=seed) for seed in range(2)
    ]  # neither has figures
    found = compare_cells("sweep", "", [*failed, *(c for c in cells if "absorbing" in c.key)], question=QUESTION)
    row = rows_of(found)["sweep.uniform"]
    assert (row.state, row.bits_per_byte, row.seeds, row.seeds_planned) == ("failed", None, 0, 2)
    assert {r["cell"]: r["bits per byte"] for r in table_rows(found)}["sweep.uniform"] == "failed"


def test_figures_without_likelihoods_have_the_error_of_their_seeds():
    """As when the store was cleaned and MLflow still has the figures."""
    rows = [
        Row("cell", f"x.s{seed}", seed=seed, bits_per_byte=value, stderr=0.02) for seed, value in enumerate([2.0, 2.2])
    ]
    [group, *_] = compare_rows(rows, {}, groups={"x": ["x.s0", "x.s1"]}).rows
    assert (group.bits_per_byte, group.stderr_documents) == pytest.approx((2.1, 0.02))
    assert group.stderr_seeds == pytest.approx(0.1)
    assert group.rank is None


def test_labels_that_stand_for_more_than_a_seed_are_no_group(cells):
    a, b, *_ = [c.cell for c in cells]
    assert seed_groups([a, b]) == {"sweep.uniform": [a.key, b.key]}
    longer = dataclasses.replace(b.experiment, training=dataclasses.replace(b.experiment.training, steps=77))
    assert seed_groups([a, dataclasses.replace(b, experiment=longer)]) == {a.key: [a.key], b.key: [b.key]}
    again = dataclasses.replace(b, experiment=a.experiment)
    assert seed_groups([a, again]) == {a.key: [a.key], b.key: [b.key]}, "the same seed twice is no second seed"


# --- what is written ------------------------------------------------------------------------------------------------


def test_every_column_is_explained(report):
    _, folder = report
    table, text = pd.read_parquet(folder / "table.parquet"), pd.read_csv(folder / "table.csv")
    assert list(table.columns) == list(text.columns)
    assert set(COLUMNS) == {f.name for f in dataclasses.fields(Row)} - {"labels", "readings", "initial_readings"}
    with (folder / "columns.csv").open(encoding="utf-8") as file:
        explained = {row["column"]: row["meaning"] for row in csv.DictReader(file)}
    assert list(explained) == list(table.columns)
    assert all(len(meaning) > 10 for meaning in explained.values())
    assert set(table["kind"]) == {"group", "cell", "yardstick"}
    assert set(table[table["group"] == "sweep.hybrid"]["name"]) == {f"sweep.hybrid.s{seed}" for seed in range(3)}
    assert table.set_index("name").loc["sweep.uniform", "gradient_norm"] == pytest.approx(0.25), "the last tenth"


def test_the_page_needs_no_other_file_and_is_well_formed(report):
    _, folder = report
    page = (folder / "report.html").read_text(encoding="utf-8")
    tree = ElementTree.fromstring(page)  # would refuse an unclosed tag, a stray & or a control character
    pictures = [image.attrib["src"] for image in tree.iter("img")]
    assert len(pictures) == len(list((folder / "plots").iterdir())) == 5
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in pictures)
    assert not list(tree.iter("script"))
    assert not list(tree.iter("link"))
    assert "http" not in page
    assert html.escape(QUESTION.description) in page
    assert "<method>" not in page
    text = "".join(tree.itertext())
    for part in ("What was asked", "What was found", "How sure it is", "How to reproduce it", "sumi run sweep"):
        assert part in text
    assert "3 M tokens for every cell" in text
    assert "commit 0123456789ab" in text
    assert "d1ge57" in text
    assert f"sweep.hybrid.s1 is failed: {FAILURE}" in text
    assert "rm | x\\x1b[31m red\\u202e" in text
    header = [cell.text for cell in next(tree.iter("thead")).iter("th")]
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    assert f"| {' | '.join(header)} |" in markdown, "both pages have the same table"


def test_the_summary_names_methods(report):
    summary, folder = report
    assert (summary["cells"], summary["evaluated"]) == (10, 9)
    assert (summary["best"], summary["best_seeds"], summary["reference"]) == ("sweep.absorbing", 3, "sweep.uniform")
    assert set(summary["bits_per_byte"]) == {"sweep.uniform", "sweep.absorbing", "sweep.hybrid", "sweep.alone.s0"}
    assert summary["findings"] == " ".join(json.loads((folder / "report.json").read_text())["findings"])


def test_bands_over_seeds_change_the_picture(cells, tmp_path, report):
    """The same methods, each with its first seed alone: other curves, and no band."""
    single = [c for c in cells if c.cell.experiment.seed == 0]
    build_ablation_report(QUESTION, single, tmp_path)
    for name in ("loss_by_level.png", "loss_history.png", "bits_per_byte.png", "differences.png"):
        assert (tmp_path / "plots" / name).read_bytes() != (report[1] / "plots" / name).read_bytes(), name


# --- studies --------------------------------------------------------------------------------------------------------


def test_a_study_says_what_the_report_says(report, comparison):
    _, folder = report
    study = study_markdown(folder, "pictures")
    assert "![differences](pictures/differences.png)" in study
    assert " ".join(findings(comparison)) in study
    assert " ".join(certainty(comparison)) in study
    for row in table_rows(comparison):
        assert f"| {row['cell']} |" in study
    assert "```text\nsumi run sweep\n```" in study
    read = read_comparison(json.loads((folder / "report.json").read_text(encoding="utf-8")))
    assert table_rows(read) == table_rows(comparison)
    assert findings(read) == findings(comparison)


def test_a_study_keeps_what_people_wrote_and_mends_what_drifted(report, tmp_path):
    _, folder = report
    document = tmp_path / "which-corruption.md"
    write_study(folder, document)
    first = document.read_text(encoding="utf-8")
    assert first.startswith(f"# which-corruption\n\n{BEGIN}\n\n## sweep\n")
    assert first.endswith(f"{END}\n")
    assert {p.name for p in (tmp_path / "which-corruption" / "sweep").iterdir()} == {
        p.name for p in (folder / "plots").iterdir()
    }
    assert "(which-corruption/sweep/bits_per_byte.png)" in first
    figure = next(row["bits per byte"] for row in table_rows(read_comparison(_data(folder))) if row["cell"] == "[xz]")
    drifted = (
        first.replace("# which-corruption", "# My study\n\nWhat I think.", 1).replace(figure, "0.001")
        + "\nConclusion.\n"
    )
    document.write_text(drifted, encoding="utf-8")
    write_study(folder, document)
    mended = document.read_text(encoding="utf-8")
    assert mended == first.replace("# which-corruption", "# My study\n\nWhat I think.", 1) + "\nConclusion.\n"


def test_a_study_has_a_part_for_each_of_several_sweeps(report, tmp_path):
    _, folder = report
    document = tmp_path / "study.md"
    other = "\n".join([*marks("other"), ""])
    document.write_text("# Study\n" + "\n".join([*marks("sweep"), ""]) + other, encoding="utf-8")
    write_study(folder, document)
    text = document.read_text(encoding="utf-8")
    assert text.endswith(other)
    assert "## sweep" in text


def _data(folder):
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("text", ["# By hand\n", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{BEGIN}\n{END}\n"])
def test_a_document_without_its_marks_is_left_alone(report, tmp_path, text):
    document = tmp_path / "study.md"
    document.write_text(text, encoding="utf-8")
    with pytest.raises(StudyError, match="has no part for sweep"):
        write_study(report[1], document)
    assert document.read_text(encoding="utf-8") == text


def test_a_study_follows_its_report(cells, report, tmp_path):
    """One more seed: the sentence and the table change together."""
    document = tmp_path / "study.md"
    write_study(report[1], document)
    whole = [c for c in cells if c.key != "sweep.hybrid.s1"]
    fresh = tmp_path / "more"
    fresh.mkdir()
    whole.append(report_cell(fresh, "hybrid", 0.297 + LUCK[1], 21, trained=1))
    build_ablation_report(QUESTION, whole, fresh)
    write_study(fresh, document)
    text = document.read_text(encoding="utf-8")
    assert "2 of 3" not in text
    assert "No figures" not in text
    shutil.rmtree(fresh)


def test_a_document_that_is_no_text_is_left_alone(report, tmp_path):
    document = tmp_path / "study.md"
    document.write_bytes(b"caf\xe9\n")
    with pytest.raises(StudyError, match="not UTF-8"):
        write_study(report[1], document)
    assert document.read_bytes() == b"caf\xe9\n"


def test_a_disk_that_fills_up_cuts_no_document(report, tmp_path, monkeypatch):
    document = tmp_path / "study.md"
    write_study(report[1], document)
    before = document.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sumi_core.base.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_study(report[1], document)
    assert document.read_bytes() == before


def test_contrasts_that_were_named_beforehand_are_corrected_for_each_other_alone(cells, tmp_path) -> None:
    pairs = [("sweep.absorbing", "sweep.uniform"), ("sweep.uniform", "sweep.hybrid"), ("sweep.alone", "sweep.uniform")]
    asked = dataclasses.replace(QUESTION, contrasts=[*pairs, ("sweep.gone", "sweep.uniform")])
    made = compare_cells("sweep", "", cells, question=asked)
    found = [(d.first.removesuffix(".s0"), d.second) for d in made.contrasts]
    assert found == pairs, "a method without figures waits"
    first, second, alone = made.contrasts
    assert first.value == pytest.approx(-oriented(made.differences, "sweep.uniform", "sweep.absorbing").value)
    assert sorted([first.p_adjusted, second.p_adjusted]) == pytest.approx(holm_adjusted(sorted([first.p, second.p])))
    assert math.isnan(alone.p_adjusted), "one seed: these trained models"
    sentence = next(line for line in findings(made) if line.startswith("Named beforehand"))
    assert "sweep.alone.s0 − sweep.uniform" in sentence
    assert "of these trained models" in sentence
    build_ablation_report(asked, cells, tmp_path / "report")
    page = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "| first | second | first − second |" in page
    again = read_comparison(json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8")))
    assert [d.value for d in again.contrasts] == pytest.approx([d.value for d in made.contrasts])
