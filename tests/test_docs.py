"""What the pages of docs/ say of the code: their experiments are valid, their names exist, pictures are current."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import COMMANDS
from sumi_core import api
from sumi_core.corruption import CLOCKS, CORRUPTION_PRESETS, PARAMETERISATIONS, PROCESSES, SCHEDULES
from sumi_core.data import CLUSTERINGS, SOURCES, TASKS, TOKENIZERS
from sumi_core.evaluation import MEASUREMENTS, METRICS
from sumi_core.experiments.resolve import resolve
from sumi_core.experiments.sweeps import load_sweep, load_sweeps
from sumi_core.experiments.token_sets import token_set_names
from sumi_core.experiments.yaml_files import parse_yaml
from sumi_core.layouts import LAYOUTS
from sumi_core.models import ATTENTION_PATTERNS, INITIALISERS, PRESETS
from sumi_core.objectives import OBJECTIVES
from sumi_core.sampling import SAMPLERS
from sumi_core.stages import STAGES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
CELLS = [1, 12, 4]  # of the experiments that experiments.md writes, in its order
PARTS = {
    "corpus.source.task": TASKS,
    "process": PROCESSES,
    "clock": CLOCKS,
    "schedule": SCHEDULES,
    "parameterisation": PARAMETERISATIONS,
    "layout": LAYOUTS,
    "objective": OBJECTIVES,
    "clusters": CLUSTERINGS,
    "model.attention": ATTENTION_PATTERNS,
    "model.initialiser": INITIALISERS,
    "evaluation.sampler": SAMPLERS,
    "evaluation.measurements": MEASUREMENTS,
    "evaluation.metrics": METRICS,
}


@pytest.mark.parametrize("number", range(len(CELLS)))
def test_experiments_are_valid(number: int, tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGES["experiments.md"], re.DOTALL)
    assert len(blocks) == len(CELLS)
    folder = tmp_path / "experiments"
    (folder / "base").mkdir(parents=True)
    for base in (ROOT / "experiments" / "base").glob("*.yaml"):
        (folder / "base" / base.name).write_text(base.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "schedules.yaml").write_text(blocks[number], encoding="utf-8")
    cells = [cell.key for cell in load_sweep(folder / "schedules.yaml", folder).cells]
    assert len(cells) == CELLS[number]
    if number == 1:
        assert cells[0] == "schedules.linear.narrow.s0"
        assert f"`{cells[0]}`" in PAGES["experiments.md"]


def test_every_command_stands_in_the_table_in_the_order_of_the_help() -> None:
    written = re.findall(r"^\| `sumi ([\w-]+)", PAGES["command-line.md"], re.MULTILINE)
    assert written == list(COMMANDS)


def test_every_part_stands_in_the_row_of_its_section() -> None:
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.*) \|$", PAGES["experiments.md"], re.MULTILINE))
    for section, registry in PARTS.items():
        assert set(registry.names()) <= set(re.findall(r"`([\w-]+)`", rows[section])), section
    assert set(CORRUPTION_PRESETS) <= set(re.findall(r"`([\w-]+)`", rows["corruption"]))
    named = set(re.findall(r"`([\w-]+)`", PAGES["experiments.md"]))
    assert {*SOURCES.names(), *TOKENIZERS.names(), *PRESETS} <= named


def test_every_measurement_has_a_row_of_its_page_that_leads_to_where_it_is_shown() -> None:
    page = PAGES["measurements.md"]
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| \[.*\]\((.*)\) \|$", page, re.MULTILINE))
    assert sorted(rows) == sorted(MEASUREMENTS.names())
    sections = re.findall(r"^## `(\w+)`$", page, re.MULTILINE)
    assert sections == [name for name, place in rows.items() if place == f"#{name}"]
    for name in sections:
        shown = page.split(f"## `{name}`")[1].split("\n## ")[0]
        assert re.search(r"^(\| |    |```)", shown, re.MULTILINE), f"{name} has no output"


def test_the_sources_are_written_as_a_config_takes_them() -> None:
    written = re.findall(r"`(\{name: [^`…]*\})` \|$", PAGES["experiments.md"], re.MULTILINE)
    assert len(written) == 5
    for text in written:
        source: Any = parse_yaml(text, "experiments.md")
        resolve({"corpus": {"source": source}}, "experiments.md")


def test_partitions_exist() -> None:
    sweeps = load_sweeps(ROOT / "experiments")
    cells = {cell.key: cell.experiment for sweep in sweeps.values() for cell in sweep.cells}
    keys = {*cells, *sweeps, *token_set_names(cells.items()).values()}
    partitions = re.findall(r"--partition (\S+)", PAGES["command-line.md"])
    assert len(partitions) == 4
    assert set(partitions) <= keys


def test_the_stages_are_described_in_their_order() -> None:
    assert re.findall(r"^\d\. \*\*(\w+)\*\*", PAGES["concepts.md"], re.MULTILINE) == [*STAGES, "ablation_report"]


@pytest.mark.parametrize("page", [*PAGES, "../CONTRIBUTING.md"])
def test_files_that_a_page_names_exist(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for path in re.findall(r"`((?:sumi_core|assets|pipelines|tests|experiments|docs)/[\w/.-]*)`", text):
        assert (ROOT / path).exists(), f"{page} names {path}"


def test_what_where_to_change_what_points_at_is_there() -> None:
    """`file`: `Name` means that the file has the name."""
    pairs = re.findall(r"`([\w/]+\.py)`: `(\w+)`", PAGES["where-to-change-what.md"])
    assert len(pairs) >= 3
    for file, name in pairs:
        assert re.search(rf"\b{name}\b", (ROOT / file).read_text(encoding="utf-8")), (file, name)


def test_docstrings_refer_to_sections_that_exist() -> None:
    sections = set(re.findall(r"^## (\d+)\. ", PAGES["mathematics.md"], re.MULTILINE))
    assert sections == {str(number) for number in range(1, len(sections) + 1)}
    cited = set()
    for package in ("sumi_core", "tests"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert "design: " + "math" not in text, path
            for numbers in re.findall(r"docs/mathematics\.md (\d+(?: and \d+)?)", text):
                cited |= set(re.findall(r"\d+", numbers))
    assert cited >= set("1245678")
    assert cited <= sections


def test_the_api_page_names_every_function() -> None:
    for name in api.__all__:
        assert re.search(rf"\b{name}\b", PAGES["python-api.md"]), name
    code = re.findall(r"```python\n(.*?)```", PAGES["python-api.md"], re.DOTALL)
    assert len(code) == 2
    for block in code:
        compile(block, "python-api.md", "exec")


def test_the_glossary_is_in_order_and_names_no_concept_twice() -> None:
    names = re.findall(r"^\| ([^|]+) \| ", PAGES["glossary.md"], re.MULTILINE)[1:]
    assert names == sorted(set(names))


def test_the_pipeline_picture_is_drawn_from_the_stages() -> None:
    spec = importlib.util.spec_from_file_location("draw_pipeline", DOCS / "draw_pipeline.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    drawn = (DOCS / "images" / "pipeline.svg").read_text(encoding="utf-8")
    assert drawn == module.drawing(), "run python docs/draw_pipeline.py"


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"([\w/-]+\.md)$", text, re.MULTILINE))
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert listed == there


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code cells, in order, in a project whose `smoke` is smaller still."""
    from sumi_core.lineage.project import Project
    from sumi_core.stages.computation import Computation
    from tests.pipelines.tiny import EXPERIMENT, Here, enter, write_texts

    (tmp_path / "experiments").mkdir()
    small = EXPERIMENT.split("axes:")[0]
    (tmp_path / "experiments" / "smoke.yaml").write_text(small, encoding="utf-8")
    write_texts(tmp_path)
    project = Project(tmp_path)
    enter(project, monkeypatch)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    cell = project.sweeps()["smoke"].cells[0]  # trained here: a process of its own would import everything once more
    Computation(project.store, launcher=Here(), log=lambda line: None).ensure_all(cell.experiment, cell.key)
    spec = importlib.util.spec_from_file_location("execute", ROOT / "examples" / "execute.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "execute", module)
    spec.loader.exec_module(module)
    committed = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text(encoding="utf-8"))
    kinds = outputs_of(committed)
    assert "image/png" in {kind for cell in kinds for kind in cell}
    assert outputs_of(module.execute(committed)) == kinds, "the committed outputs are of this code"


def outputs_of(notebook: dict[str, Any]) -> list[list[str]]:
    """The media types that each code cell shows."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    return [[kind for output in cell["outputs"] for kind in output.get("data", ["text"])] for cell in code]
