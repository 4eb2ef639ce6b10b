"""Comparisons, states and plans as DataFrames, and tables as LaTeX."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from sumi_core.api import cells, compare, plan, to_latex
from sumi_core.base.options import ConfigError
from sumi_core.lineage.project import Project
from sumi_core.reports.latex import escape_latex
from sumi_core.reports.row import COLUMNS
from sumi_core.stages import STAGES
from tests.lineage.fakes import compute, fake_project, record
from tests.pipelines.homes import furnish
from tests.test_layering import HEAVY, loaded_after


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """demo.s0 and demo.s1, two seeds of one method, are done; demo.s2 and demo.s3 are not computed."""
    with pytest.MonkeyPatch.context() as patch:
        project = fake_project(tmp_path_factory.mktemp("api") / "project", patch)
        furnish(project.root, tmp_path_factory)
        for key in ("demo.s0", "demo.s1"):
            record(project, compute(project, key))
        yield project


def test_a_comparison_has_one_row_per_method_and_the_columns_of_the_command(project: Project) -> None:
    table = compare("demo")
    assert list(table.loc[table["kind"] != "yardstick", "name"]) == ["demo"]
    assert set(table.columns) == {*COLUMNS, "axis.seed"} or set(table.columns) == set(COLUMNS)
    group = table[table["name"] == "demo"].iloc[0]
    every = compare("demo", seeds=True)
    members = every[every["group"] == "demo"].set_index("name")
    assert sorted(members.index) == ["demo.s0", "demo.s1", "demo.s2", "demo.s3"]
    assert group["bits_per_byte"] == pytest.approx(members["bits_per_byte"].mean())
    assert (group["seeds"], group["seeds_planned"]) == (2, 4)


def test_cells_and_plans_say_what_is_done_and_what_is_not(project: Project) -> None:
    states = cells("demo").set_index("name")["state"]
    assert states.to_dict() == {"demo.s0": "done", "demo.s1": "done", "demo.s2": "missing", "demo.s3": "missing"}
    assert set(cells()["name"]) >= set(states.index), "all experiments without a name"
    stages = plan("demo.s0", "demo.s2")
    assert list(stages["cell"].unique()) == ["demo.s0", "demo.s2"]
    of_cell = stages[stages["cell"] == "demo.s2"].set_index("stage")
    assert list(of_cell.index) == [name for name, stage in STAGES.items() if not stage.optional]
    assert of_cell.loc["corpus", "state"] == "done", "demo.s0 has the same corpus"
    assert of_cell.loc["corpus", "folder"].is_dir()
    assert of_cell.loc["pretrained_denoiser", "folder"] is None
    changed = plan("demo.s0", overrides=["training.steps=7"]).set_index("stage")
    assert "training.steps" in changed.loc["pretrained_denoiser", "why"]


def test_a_name_that_is_not_there_is_refused_with_the_nearest(project: Project) -> None:
    for function in (cells, compare, plan):
        with pytest.raises(ConfigError, match="did you mean 'demo'"):
            function("demi")


def table_of(**columns: list[object]) -> pd.DataFrame:
    return pd.DataFrame(columns)


COMPARISON = table_of(
    kind=["cell", "yardstick", "cell"],
    name=["a_left", "xz", "b&c"],
    seeds=[1.0, None, 1.0],
    exact=[True, None, False],
    bits_per_byte=[1.3154, 1.714, 1.847],
    stderr=[0.0262, None, 0.03],
    difference=[None, None, 0.532],
    difference_stderr=[None, None, 0.016],
    p_adjusted=[None, None, None],
    rank=[1.0, None, 2.0],
)


def test_a_comparison_as_latex_joins_errors_signs_and_escapes() -> None:
    assert to_latex(COMPARISON) == (
        "\\begin{tabular}{lrrrr}\n\\toprule\nname & seeds & bits per byte & difference & rank \\\\\n\\midrule\n"
        "a\\_left & 1 & $= 1.315 \\pm 0.026$ & -- & 1 \\\\\n"
        "\\emph{xz} & -- & $1.714$ & -- & -- \\\\\n"
        "b\\&c & 1 & $\\leq 1.847 \\pm 0.030$ & $0.532 \\pm 0.016$ & 2 \\\\\n"
        "\\bottomrule\n\\end{tabular}\n"
    ), "and leaves out p, which no row has"


def test_columns_may_be_chosen_and_named_and_a_caption_makes_a_float() -> None:
    written = to_latex(COMPARISON, {"name": "method", "bits_per_byte": "BPB"}, caption="Cost & gain", label="tab:a")
    assert written.startswith(
        "\\begin{table}\n\\centering\n\\caption{Cost \\& gain}\n\\label{tab:a}\n\\begin{tabular}{lr}\n"
        "\\toprule\nmethod & BPB \\\\\n"
    )
    assert written.endswith("\\end{tabular}\n\\end{table}\n")
    with pytest.raises(ValueError, match="the table has no column loss; it has kind, name"):
        to_latex(COMPARISON, ["loss"])


def test_an_index_with_a_name_is_a_column() -> None:
    table = table_of(nats=[1.0, 2.0]).set_index(pd.Index([0, "all"], name="text"))
    assert "text & nats \\\\\n\\midrule\n0 & $1.000$ \\\\\nall & $2.000$ \\\\" in to_latex(table)


def test_every_special_character_is_escaped() -> None:
    assert escape_latex("a\\b~c^d&%$#_{}") == (
        "a\\textbackslash{}b\\textasciitilde{}c\\textasciicircum{}d\\&\\%\\$\\#\\_\\{\\}"
    )


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs LaTeX")
def test_latex_accepts_it(tmp_path: Path) -> None:
    document = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + to_latex(COMPARISON, caption="a_b")
    (tmp_path / "t.tex").write_text(document + "\\end{document}\n", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


def test_importing_the_api_loads_nothing_heavy() -> None:
    assert not loaded_after("sumi_core.api") & {*HEAVY, "torch", "pandas"}
