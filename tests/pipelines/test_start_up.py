"""Commands that read start without the libraries that compute: what each may load, in a process of its own."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sumi_core.lineage.project import Project
from sumi_core.reports.artifact import build_sweep_report
from sumi_core.stages import STAGES
from sumi_core.stages.computation import Computation
from sumi_core.stages.identity import refresh_source_identities
from tests.lineage import fakes
from tests.pipelines.homes import ADDRESSES, furnish

HEAVY = {
    "dagster",
    "datasets",
    "lightning",
    "matplotlib",
    "mlflow",
    "numpy",
    "pandas",
    "pyarrow",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "tokenizers",
    "torch",
    "transformers",
}
REPOSITORY = Path(__file__).parents[2]
TABLES = {"numpy", "pandas", "pyarrow", "scipy"}  # what a comparison computes with

# Runs the command as `sumi` does, then prints which of some libraries have run.
COMMAND = """
import json, sys
from pipelines.cli import main
heavy = json.loads(sys.argv.pop(1))
try:
    main()
finally:
    print(json.dumps([name for name in heavy if type(sys.modules.get(name)).__name__ in ("module", "_LazyModule")]))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Everything is done and in MLflow: real parts, so that another process finds it, and stages that take no time."""
    root = tmp_path_factory.mktemp("start") / "project"
    (root / "experiments").mkdir(parents=True)
    (root / "experiments" / "demo.yaml").write_text(
        "description: two seeds\n"
        "corpus: {source: {name: text, paths: [corpus.txt]}}\n"
        "tokenizer: byte\n"
        "training: {steps: 4, warmup_steps: 0}\n"
        "axes: {seed: [0, 1]}\n"
    )
    (root / "corpus.txt").write_text("in the beginning\n")
    with pytest.MonkeyPatch.context() as patch:
        for name in ADDRESSES:
            patch.delenv(name, raising=False)
        patch.setenv("SUMI_PROJECT", str(root))
        patch.setattr(fakes, "build_corpus", _corpus)
        for name, stage in STAGES.items():
            patch.setitem(STAGES, name, dataclasses.replace(stage, run=functools.partial(fakes._run, name)))
        refresh_source_identities()
        project = furnish(root, tmp_path_factory)
        sweep = project.sweeps()["demo"]
        for cell in sweep.cells:
            Computation(project.store, log=lambda _: None).ensure_all(cell.experiment, cell.key)
            fakes.record(project, cell)
        report, _ = build_sweep_report(project.store, sweep, lambda line: None)
        project.tracking.record_report(sweep, report)
        yield project


def _corpus(context: object) -> dict[str, int]:
    (context.folder / "train.parquet").write_text("in the beginning")  # type: ignore[attr-defined]
    return {"documents": 1}


def run(root: Path, *arguments: str) -> tuple[str, set[str]]:
    """What a command prints in a project, and which heavy libraries it ran."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, json.dumps(sorted(HEAVY)), *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "SUMI_PROJECT": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    *printed, loaded = done.stdout.splitlines()
    return "\n".join(printed), set(json.loads(loaded))


@pytest.mark.parametrize(
    ("arguments", "told", "may_load"),
    [
        (["--help"], "Commands:", set()),
        (["score", "--help"], "what each token of a text costs", set()),
        (["list"], "demo  2/2 done", set()),
        (["plan", "demo"], "0 outputs to compute", set()),
        (["lineage", "demo.s1"], "every SHA-256 verified", set()),
        (["compare", "demo"], "demo.s1", TABLES),
        (["run", "demo"], "2 cells: done already", TABLES),
        (["doctor"], "2 MLflow runs, none left behind", {"dagster", "sqlalchemy"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_loads_no_more_than_it_needs(
    project: Project, arguments: list[str], told: str, may_load: set[str]
) -> None:
    printed, loaded = run(project.root, *arguments)
    assert told in printed
    assert loaded <= may_load


def test_every_cell_that_is_shipped_is_listed_without_heavy_libraries(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "experiments", tmp_path / "experiments")
    printed, loaded = run(tmp_path, "list")
    assert [name for name in ("demo", "tri-mode", "conversion", "structure") if f"{name}  0/" not in printed] == []
    assert loaded == set()


def test_every_part_that_is_shipped_is_read_without_torch_and_numpy() -> None:
    code = """
from sumi_core.base.lazy import defer
defer("torch", "numpy")
import sys
import sumi_core.experiments.schema
from sumi_core.base.registry import Registry
for registry in Registry.by_key.values():
    for name in registry.names():
        registry.options(name)
print([name for name in ("torch", "numpy") if type(sys.modules[name]).__name__ == "module"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout == "[]\n", done.stderr


def test_what_is_deferred_is_whole_once_it_is_looked_into(tmp_path: Path) -> None:
    package = tmp_path / "later"
    package.mkdir()
    (package / "__init__.py").write_text("print('runs')\nfrom later.inner import number\n")
    (package / "inner.py").write_text("number = 7\n")
    code = """
from sumi_core.base.lazy import defer, load_deferred
defer("later", "missing")
import sys, later
print("imported", later.__name__, "missing" in sys.modules)
%s
print(later.number, type(later).__name__)
"""
    for first_look in ("later.number", "import later.inner", "from later import inner", "load_deferred()"):
        done = subprocess.run(
            [sys.executable, "-c", code % first_look],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"},
        )
        assert done.stdout == "imported later False\nruns\n7 module\n", done.stderr
