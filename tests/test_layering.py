"""What may import what: the science knows nothing of the orchestrator, and light things stay light."""

from __future__ import annotations

import ast
import dataclasses
import json
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sumi_core.registry import Registry
from tests.registries import REGISTRIES

ROOT = Path(__file__).parents[1]
HEAVY = ("lightning", "mlflow", "transformers", "datasets", "matplotlib", "dagster")


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def modules(package: str) -> list[str]:
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sources(package)]
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


def imported(path: Path) -> Iterator[str]:
    """Every module a file imports, at the top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield str(node.module)


def at_the_top(path: Path) -> Iterator[str]:
    """Every module that a file imports when it is imported itself: not in functions, not for type checkers only."""

    def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                yield from statements(node.orelse)
                continue
            yield node
            for name in ("body", "orelse", "finalbody", "handlers"):
                yield from statements(getattr(node, name, []))

    for node in statements(ast.parse(path.read_text(encoding="utf-8")).body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)  # where that is a module


def circle(imports: Mapping[str, Collection[str]]) -> list[str]:
    """Modules that import each other in a circle, the first one repeated at the end; empty when there is none."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(imports[name]):
            if found := visit(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(imports) if (found := visit(name, []))), [])


def loaded_after(*imports: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after some imports."""
    code = f"import sys, json, importlib\nfor n in {list(imports)!r}: importlib.import_module(n)\n"
    code += "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("sumi_core", ("dagster", "dagster_pipes", "assets", "pipelines", "tests")),
        ("assets", ("pipelines", "tests")),
        ("pipelines", ("tests",)),
    ],
)
def test_no_file_imports_what_stands_above_it(package: str, forbidden: tuple[str, ...]) -> None:
    found = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(package)
        for name in imported(path)
        if name.partition(".")[0] in forbidden
    }
    assert found == set()


def test_no_modules_of_the_science_import_each_other_in_a_circle() -> None:
    files = dict(zip(modules("sumi_core"), [p for p in sources("sumi_core") if p.stem != "__main__"], strict=True))
    imports = {name: {other for other in at_the_top(path) if other in files} - {name} for name, path in files.items()}
    assert imports["sumi_core.project"] >= {"sumi_core.sweeps", "sumi_core.lineage.store"}
    assert circle(imports) == []


@pytest.mark.parametrize("package", ["sumi_core/data", "sumi_core/config.py", "sumi_core/sweeps.py"])
def test_nothing_below_a_project_asks_for_one(package: str) -> None:
    """Not even inside a function: where the project lies is told by `sumi_core.paths`."""
    files = [ROOT / package] if package.endswith(".py") else sources(package)
    assert {str(file) for file in files if "sumi_core.project" in imported(file)} == set()


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b", "d"}, "b": {"c"}, "c": {"d"}, "d": set()}) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": {"b"}}) == ["b", "c", "d", "b"]


def test_importing_all_of_the_science_loads_nothing_of_the_orchestrator() -> None:
    loaded = loaded_after(*modules("sumi_core"))
    assert "torch" in loaded
    assert not loaded & {"dagster", "dagster_pipes", "assets", "pipelines"}


def test_what_every_command_imports_stays_light() -> None:
    loaded = loaded_after("sumi_core.config", "sumi_core.sweeps", "sumi_core.stages", "sumi_core.project")
    assert not loaded & {*HEAVY, "torch"}


def all_parts() -> list[tuple[Registry[Any], str]]:
    return [(registry, name) for registry in REGISTRIES.values() for name in registry.names()]


@pytest.mark.parametrize(("registry", "name"), all_parts(), ids=[f"{r.kind}: {n}" for r, n in all_parts()])
def test_every_registered_part_can_be_imported_and_says_what_it_is(registry: Registry[Any], name: str) -> None:
    part = registry.get(name)
    assert isinstance(part, type)
    assert part.__doc__
    assert dataclasses.is_dataclass(registry.options(name))


def test_registries_are_in_order_and_no_part_has_two_names() -> None:
    for registry in REGISTRIES.values():
        entries = registry._entries
        assert list(entries) == sorted(entries)
        assert len(set(entries.values())) == len(entries)


def test_files_stay_small_enough_to_read_in_one_sitting() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for package in ("sumi_core", "assets", "pipelines")
        for path in sources(package)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert long == {}
