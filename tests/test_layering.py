"""What may import what: the science knows nothing of the orchestrator, and light things stay light."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sumi_core.base.registry import Part, Registry, load
from tests.registries import REGISTRIES

ROOT = Path(__file__).parents[1]
HEAVY = ("lightning", "mlflow", "transformers", "datasets", "matplotlib", "dagster")


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def modules(package: str) -> list[str]:
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sources(package)]
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


def loaded_after(*imports: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after some imports."""
    code = f"import sys, json, importlib\nfor n in {list(imports)!r}: importlib.import_module(n)\n"
    code += "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(json.loads(done.stdout.splitlines()[-1]))


def broken_contracts(root: Path) -> list[str]:
    """The contracts of pyproject.toml that the packages below ``root`` break, as `make lint` reports them."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment)
    assert "Contracts: " in done.stdout, done.stdout + done.stderr
    broken = [line.removesuffix(" BROKEN") for line in done.stdout.splitlines() if line.endswith(" BROKEN")]
    assert bool(broken) == bool(done.returncode)
    return broken


def test_the_linter_keeps_the_layers() -> None:
    assert broken_contracts(ROOT) == []


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("sumi_core/corruption/uniform.py", "import sumi_core.experiments.schema", "Imports point downwards"),
        (
            "sumi_core/models/layers.py",
            "def late() -> None:\n    import sumi_core.corruption.uniform",
            "Imports point downwards",
        ),
        (
            "sumi_core/data/batch.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from sumi_core.models.layers import Block",
            "Imports point downwards",
        ),
        ("sumi_core/evaluation/metrics.py", "import sumi_core.training.history", "Imports point downwards"),
        ("sumi_core/lineage/plan.py", "import dagster", "No orchestrator and no web framework in the science"),
        ("sumi_core/sampling/sampler.py", "import lightning", "No Lightning below the training"),
        ("assets/resources.py", "import pipelines.jobs", "The science knows nothing of the orchestrator"),
        (
            "sumi_core/corruption/schedules.py",
            "import sumi_core.corruption.fitted",
            "No circle among the files and folders of a package",
        ),
    ],
)
def test_an_arrow_up_or_a_circle_fails_the_linter(file: str, line: str, contract: str, tmp_path: Path) -> None:
    for package in ("sumi_core", "assets", "pipelines"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / file).open("a", encoding="utf-8") as source:
        source.write(f"\n{line}\n")
    assert contract in broken_contracts(tmp_path)


def test_importing_all_of_the_science_loads_nothing_of_the_orchestrator() -> None:
    loaded = loaded_after(*modules("sumi_core"))
    assert "torch" in loaded
    assert not loaded & {"dagster", "dagster_pipes", "assets", "pipelines"}


def test_what_every_command_imports_stays_light() -> None:
    loaded = loaded_after(
        "sumi_core.experiments.resolve",
        "sumi_core.experiments.sweeps",
        "sumi_core.stages.identity",
        "sumi_core.lineage.project",
    )
    assert not loaded & {*HEAVY, "torch"}


def all_parts() -> list[tuple[Registry, str]]:
    return [(registry, name) for registry in REGISTRIES.values() for name in registry.names()]


@pytest.mark.parametrize(("registry", "name"), all_parts(), ids=[f"{r.kind}: {n}" for r, n in all_parts()])
def test_every_registered_part_is_of_its_kind_and_says_what_it_is(registry: Registry, name: str) -> None:
    part = registry.get(name)
    assert issubclass(part, load(registry.base))
    assert part.__doc__
    assert dataclasses.is_dataclass(registry.options(name))


@pytest.mark.parametrize("registry", REGISTRIES.values(), ids=REGISTRIES)
def test_a_registry_is_in_order_points_into_its_own_package_and_names_no_part_twice(registry: Registry) -> None:
    entries, package = registry._entries, registry.base.split(".")[1]
    assert list(entries) == sorted(entries)
    assert len(set(entries.values())) == len(entries)
    assert all(target.startswith(f"sumi_core.{package}.") for target in entries.values())
    assert issubclass(load(registry.base), Part)


def test_files_stay_small_enough_to_read_in_one_sitting() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for package in ("sumi_core", "assets", "pipelines")
        for path in sources(package)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert long == {}
