"""What the README shows can be done, and what it says of the code is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pipelines.cli import COMMANDS
from sumi_core.experiments.sweeps import load_sweep
from sumi_core.stages import STAGES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CELLS = {"schedules": 6, "notes": 1}


def experiments(folder: Path) -> dict[str, list[str]]:
    """The cells of the README's experiments, as they are in a project with the shipped bases."""
    blocks = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == len(CELLS)
    (folder / "base").mkdir(parents=True)
    for base in (ROOT / "experiments" / "base").glob("*.yaml"):
        (folder / "base" / base.name).write_text(base.read_text(encoding="utf-8"), encoding="utf-8")
    found = {}
    for name, block in zip(CELLS, blocks, strict=True):
        (folder / f"{name}.yaml").write_text(block, encoding="utf-8")
        found[name] = [cell.key for cell in load_sweep(folder / f"{name}.yaml", folder).cells]
    return found


def test_its_experiments_are_valid_and_have_the_cells_it_names(tmp_path: Path) -> None:
    found = experiments(tmp_path / "experiments")
    assert {name: len(cells) for name, cells in found.items()} == CELLS
    assert "six cells, schedules.linear.s0 to schedules.cosine.s2" in README
    assert (found["schedules"][0], found["schedules"][-1]) == ("schedules.linear.s0", "schedules.cosine.s2")
    assert "Saved as `experiments/schedules.yaml`" in README


def test_its_commands_exist_and_take_names_that_exist(tmp_path: Path) -> None:
    cells = {name for own in experiments(tmp_path / "experiments").values() for name in own} | {"schedules"}
    lines = re.findall(r"^    (sumi .*)$", README, re.MULTILINE)
    assert len(lines) == 5
    for line in lines:
        command, *names = shlex.split(line, comments=True)[1:]
        assert command in COMMANDS
        assert set(names) <= cells
    targets = re.findall(r"^(\w+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"`make (\w+)", README)) <= set(targets)
    assert set(re.findall(r"^    make (\w+)", README, re.MULTILINE)) == {"demo", "test"}


def test_its_table_is_of_the_demo() -> None:
    rows = re.findall(r"^\| ([*\w][^|]*) \| ([=≤ ]*\d\.\d{3})", README, re.MULTILINE)
    models = [name for name, _ in rows if not name.startswith("*")]
    demo = load_sweep(ROOT / "experiments" / "demo.yaml", ROOT / "experiments")
    assert sorted(models) == sorted(demo.axes["method"])
    figures = [float(re.sub(r"[=≤ ]", "", value)) for _, value in rows]
    assert figures == sorted(figures), "best first"
    signs = {name: value[0] for name, value in rows if name in models}
    exact = {cell.labels["method"]: cell.experiment.objective["name"] == "autoregressive" for cell in demo.cells}
    assert signs == {name: "=" if exact[name] else "≤" for name in models}


def test_one_training_seed_is_no_ground_for_a_verdict_on_methods() -> None:
    demo = load_sweep(ROOT / "experiments" / "demo.yaml", ROOT / "experiments")
    assert "seed" not in demo.axes
    text = README.split("## Your own question")[0]
    assert "the differences are those of these trained models" in text
    assert "significant" not in text


def test_its_picture_shows_every_stage() -> None:
    picture = (ROOT / "docs" / "images" / "pipeline.svg").read_text(encoding="utf-8")
    assert "docs/images/pipeline.svg" in README
    assert all(f">{name}</text>" in picture for name in [*STAGES, "ablation_report"])


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(file: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", (ROOT / file).read_text(encoding="utf-8"))
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target
