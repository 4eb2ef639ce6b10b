"""Measurements, metrics and samplers from outside: an edit of one measures again what reads it, and nothing else."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sumi_core.base import outside
from sumi_core.lineage.project import Project
from sumi_core.stages.identity import refresh_source_identities
from sumi_core.stages.store import Artifact
from tests.evaluation.test_measurements import evaluate, measured
from tests.pipelines.tiny import enter, tiny_project

METRIC = """
from sumi_core.evaluation.metrics import SampleMetric


class Own(SampleMetric):
    '''own_metric: a constant.'''

    def compute(self, samples, reference):
        return {"own_metric": 1.0}


PARTS = {"metric.own": Own}
"""
SAMPLER = """
from sumi_core.sampling.ancestral import Ancestral


class Own(Ancestral):
    def sample(self, *args, **kwargs):
        drawn = super().sample(*args, **kwargs)
        drawn.tokens.fill_(97)
        return drawn


PARTS = {"sampler.own": Own}
"""
MEASUREMENT = """
from sumi_core.evaluation.measurement import Findings, Measurement


class Own(Measurement):
    inputs = ("token_shards",)

    def run(self, model, context):
        return Findings({"own": 1.0})


PARTS = {"measurement.own": Own}
"""
Write = Callable[[str, str], None]


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[Project]:
    """A copy of the tiny project, which parts of its own may be put into."""
    root = tmp_path / "own"
    shutil.copytree(tiny_project(tmp_path_factory).root, root)
    with pytest.MonkeyPatch.context() as patch:
        enter(Project(root), patch)
        refresh_source_identities()
        yield Project(root)
    forget()


@pytest.fixture
def write(project: Project) -> Write:
    """Write a file of ``parts/``, as a process that starts afterwards sees it."""

    def put(name: str, text: str) -> None:
        (project.root / "parts").mkdir(exist_ok=True)
        (project.root / "parts" / name).write_text(text, encoding="utf-8")
        shutil.rmtree(project.root / "parts" / "__pycache__", ignore_errors=True)
        forget()

    return put


def forget() -> None:
    """Forget the modules of ``parts/``: another process would not have imported them."""
    for name in [name for name in sys.modules if name.startswith("sumi_parts")]:
        del sys.modules[name]
        outside._IMPORTED.pop(name, None)
    refresh_source_identities()


def changed(before: Artifact, after: Artifact) -> list[str]:
    """The measurements that are other ones."""
    return [name for name, own in measured(after).items() if own != measured(before)[name]]


def test_an_edited_metric_is_measured_again(project: Project, write: Write) -> None:
    write("own.py", METRIC)
    first = evaluate(project, "evaluation.metrics=[distinct,own]")
    assert first.summary["samples"]["steps_2"]["own_metric"] == 1
    write("own.py", METRIC.replace("1.0", "2.0"))
    second = evaluate(project, "evaluation.metrics=[distinct,own]")
    assert second.summary["samples"]["steps_2"]["own_metric"] == 2
    assert changed(first, second) == ["samples"]
    write("own.py", METRIC)
    assert evaluate(project, "evaluation.metrics=[distinct,own]").fingerprint == first.fingerprint


def test_an_edited_sampler_draws_again(project: Project, write: Write) -> None:
    write("own.py", SAMPLER)
    first = evaluate(project, "evaluation.sampler=own")
    write("own.py", SAMPLER.replace("97", "98"))
    second = evaluate(project, "evaluation.sampler=own")
    assert (first.summary["sample_text"][0], second.summary["sample_text"][0]) == ("a", "b")
    assert changed(first, second) == ["samples", "film"]


def test_an_edited_measurement_is_measured_again(project: Project, write: Write) -> None:
    listed = "evaluation.measurements=[likelihood,own]"
    write("own.py", MEASUREMENT)
    first = evaluate(project, listed)
    write("own.py", MEASUREMENT.replace("1.0", "2.0"))
    second = evaluate(project, listed)
    assert (first.summary["own"], second.summary["own"]) == (1, 2)
    assert changed(first, second) == ["own"]
    moved = evaluate(project, "evaluation.measurements=[own,likelihood]")
    assert changed(second, moved) == [], "wherever it stands in the list"
