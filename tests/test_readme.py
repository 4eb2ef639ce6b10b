"""What the README shows can be done."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import COMMANDS
from sumi_core.corruption import CLOCKS, PARAMETERISATIONS, PROCESSES, SCHEDULES
from sumi_core.data import CLUSTERINGS, SOURCES, TOKENIZERS
from sumi_core.experiments.resolve import resolve
from sumi_core.experiments.sweeps import load_sweep, load_sweeps
from sumi_core.experiments.token_sets import token_set_names
from sumi_core.experiments.yaml_files import parse_yaml
from sumi_core.models import INITIALISERS, PRESETS
from sumi_core.objectives import OBJECTIVES
from sumi_core.stages import STAGES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SWEEPS = load_sweeps(ROOT / "experiments")


@pytest.mark.parametrize("number", range(3))
def test_its_experiments_are_valid(number: int, tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 3
    folder = tmp_path / "experiments"
    (folder / "base").mkdir(parents=True)
    for base in (ROOT / "experiments" / "base").glob("*.yaml"):
        (folder / "base" / base.name).write_text(base.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "schedules.yaml").write_text(blocks[number], encoding="utf-8")
    cells = [cell.key for cell in load_sweep(folder / "schedules.yaml", folder).cells]
    assert cells[0] == ("schedules.linear.s0", "schedules.pretraining.s0", "schedules")[number]
    assert len(cells) == (6, 4, 1)[number]


def test_its_table_of_commands_is_complete() -> None:
    assert tuple(re.findall(r"^\| `sumi ([\w-]+)", README, re.MULTILINE)) == COMMANDS


def test_its_names_exist() -> None:
    named = set(re.findall(r"`([\w-]+)`", README))
    assert {*SOURCES.names(), *TOKENIZERS.names(), *PRESETS} - {"text"} <= named
    chain = " → ".join([*STAGES, "ablation_report"])
    for stage in (name for name, stage in STAGES.items() if stage.optional):
        chain = chain.replace(f"{stage} → ", f"({stage} →) ")
    assert chain in README
    parts = [PROCESSES, CLOCKS, SCHEDULES, PARAMETERISATIONS, OBJECTIVES, CLUSTERINGS, INITIALISERS]
    assert {name for registry in parts for name in registry.names()} <= named
    sources = re.findall(r"`(\{name: [^`…]*\})`", README)
    assert len(sources) == 3
    for written in sources:
        source: Any = parse_yaml(written, "README.md")
        resolve({"corpus": {"source": source}}, "README.md")


def test_its_partitions_exist() -> None:
    cells = {cell.key: cell.experiment for sweep in SWEEPS.values() for cell in sweep.cells}
    keys = {*cells, *SWEEPS, *token_set_names(cells.items()).values()}
    partitions = re.findall(r"--partition (\S+)", README)
    assert len(partitions) == 4
    assert set(partitions) <= keys


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
