"""The examples of CONTRIBUTING.md: each is a file and a registry line, and does what the text says."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sumi_core.corruption import SCHEDULES
from sumi_core.data import SOURCES
from sumi_core.data.batch import Batch
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.evaluation import MEASUREMENTS, METRICS
from sumi_core.evaluation.measurement import Context, read_plain_findings, write_findings
from sumi_core.evaluation.metrics import Reference, SampleSet
from sumi_core.experiments.build import Parts, build_parts
from sumi_core.experiments.resolve import resolve
from sumi_core.models import ATTENTION_PATTERNS
from sumi_core.models.denoiser import build_denoiser
from sumi_core.models.interface import FromLogits
from sumi_core.objectives.nelbo import Nelbo
from tests.corruption.enumerable import World, chi_square, end_gaps, expected_bound
from tests.registries import REGISTRIES

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n# ([^\n]+)\n(.*?)```", TEXT, re.DOTALL)
FILES = {place: code for place, code in BLOCKS if ": " not in place}
LINES = {place: dict(re.findall(r'"(\w+)": "([\w.]+:\w+)",\n', code)) for place, code in BLOCKS if ": " in place}


def test_every_example_has_its_line() -> None:
    targets = {target.partition(":")[0] for line in LINES.values() for target in line.values()}
    assert targets == {place.removesuffix(".py").replace("/", ".") for place in FILES}
    assert len(FILES) == len(LINES) == 8
    for place in LINES:
        file, registry = place.split(": ")
        assert f"\n{registry} = " in (ROOT / file).read_text(encoding="utf-8")
    assert not [place for place in FILES if (ROOT / place).exists()]  # else the text describes what is there already


@pytest.fixture(autouse=True)
def _added(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Do what the text says: the files exist under their names, the lines stand in their registries."""
    for place, code in FILES.items():
        name = place.removesuffix(".py").replace("/", ".")
        file = tmp_path / f"{name}.py"
        file.write_text(code, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        assert module.__doc__
    for place, line in LINES.items():
        registry = REGISTRIES[place.split(": ")[1]]
        for name, target in line.items():
            monkeypatch.setitem(registry._entries, name, target)


def parts_of(num_tokens: int = 6, **experiment: Any) -> Parts:
    return build_parts(resolve(experiment, "tests"), Vocabulary(num_tokens, num_tokens - 1))


def flat_denoiser(tokens: torch.Tensor, t: torch.Tensor | None) -> torch.Tensor:
    return torch.zeros(*tokens.shape, 6)


def test_the_process_meets_the_entropy_identity() -> None:
    process = parts_of(4, process={"name": "zipf", "offset": 0.5}).process
    assert process is not None
    world = World("uniform")
    world.process, world.pi = process, process.stationary()  # type: ignore[assignment]
    assert world.pi.tolist() == pytest.approx([a / sum([2, 2 / 3, 2 / 5, 2 / 7]) for a in (2, 2 / 3, 2 / 5, 2 / 7)])
    total = sum(expected_bound(world, world.denoiser, 1e-3).values())
    assert total == pytest.approx(world.entropy + sum(end_gaps(world, 1e-3).values()), abs=1e-10)


def test_the_schedule_is_consistent() -> None:
    schedule = SCHEDULES.build("squared", {})
    t = torch.linspace(0, 1, 11, dtype=torch.float64, requires_grad=True)
    alpha = schedule.alpha(t)
    assert (float(alpha[0].detach()), float(alpha[-1].detach())) == (1.0, 0.0)
    (slope,) = torch.autograd.grad(alpha.sum(), t)
    torch.testing.assert_close(schedule.dalpha(t), slope)
    torch.testing.assert_close(schedule.time_of_alpha(alpha), t)
    world = World("uniform", "squared")
    total = sum(expected_bound(world, world.denoiser, 1e-3).values())
    assert total == pytest.approx(world.entropy + sum(end_gaps(world, 1e-3).values()), abs=1e-9)


def test_the_source_reads_lines_and_is_named_by_their_digest(tmp_path: Path) -> None:
    file = tmp_path / "poem.txt"
    file.write_text("one\n\ntwo\n", encoding="utf-8")
    experiment = resolve({"corpus": {"source": {"name": "lines", "path": str(file)}}}, "tests")
    source = SOURCES.build("lines", {"path": experiment.corpus.source["path"]})
    assert [(d.id, d.text) for d in source.documents()] == [("poem.txt:1", "one"), ("poem.txt:3", "two")]
    assert dict(source.skipped) == {"empty document": 1}
    before = source.identity()
    file.write_text("one\n\nthree\n", encoding="utf-8")
    assert source.identity() != before


def test_the_metric_counts_letters() -> None:
    resolve({"evaluation": {"metrics": ["word_length"]}}, "tests")
    samples = SampleSet([np.arange(3), np.arange(3)], [["ab abcd"], ["abc", "abc"]])
    figures = METRICS.build("word_length", {}).compute(samples, Reference(lambda: ()))
    assert figures["word_length"] == 3.0
    assert figures["word_length_stderr"] == 0.0


def test_the_measurement_counts_the_ends_of_texts(tmp_path: Path) -> None:
    config = resolve(
        {"evaluation": {"measurements": ["likelihood", "document_ends"], "sequences": 2}}, "tests"
    ).evaluation
    rows = [[5, 1, 5, 2], [1, 2, 3, 4], [5, 5, 5, 5]]

    class Text(list):  # type: ignore[type-arg]
        """Sequences, of which two of three are chosen: the first and the last."""

    model = SimpleNamespace(tokenizer=SimpleNamespace(eos_id=5))
    measurement = MEASUREMENTS.from_config(config.measurements[1])
    found = measurement.run(model, Context(config, Text(map(np.array, rows)), tmp_path))  # type: ignore[arg-type]
    assert found.summary["document_ends"]["per_sequence"] == 3.0
    (estimate,) = found.estimates
    assert (estimate.group, estimate.name, estimate.value) == ("document_ends", "per_sequence", 3.0)
    assert estimate.stderr == pytest.approx(1 / 2**0.5)
    write_findings(found, tmp_path)
    assert read_plain_findings(tmp_path).definitions == found.definitions


@pytest.mark.parametrize("process", ["uniform", "absorbing"])
def test_the_objective_trains_and_reports_the_tight_bound(process: str) -> None:
    experiment = resolve({"process": process, "objective": "noisy_end", "model": {"preset": "nano"}}, "tests")
    parts = build_parts(experiment, Vocabulary(6, 5))
    denoiser = build_denoiser(experiment.model, parts.num_states)
    batch = Batch(torch.arange(24).reshape(4, 6) % 6, torch.arange(4), torch.arange(4), 4, step=0, seed=0)
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = parts.objective.loss(denoiser, batch).value
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    plain = Nelbo(Nelbo.Options(), process=parts.process, vocabulary=parts.vocabulary)
    torch.testing.assert_close(
        parts.objective.likelihood(denoiser, batch, 1e-3).total, plain.likelihood(denoiser, batch, 1e-3).total
    )


def test_the_sampler_draws_what_is_predicted_in_one_call() -> None:
    parts = parts_of(evaluation={"sampler": "one_shot"})
    drawn = parts.sampler.sample(
        FromLogits(flat_denoiser), num=500, length=4, steps=9, seed=0, prompt=torch.tensor([3])
    )
    assert set(drawn.nfe.tolist()) == {1}
    assert (drawn.tokens[:, 0] == 3).all()
    assert chi_square(drawn.tokens[:, 1:], torch.full((6,), 1 / 6, dtype=torch.float64)) > 1e-3
    alone = parts.sampler.sample(FromLogits(flat_denoiser), num=2, length=4, steps=9, seed=0, prompt=torch.tensor([3]))
    assert alone.tokens.equal(drawn.tokens[:2])


def test_the_attention_pattern_sees_its_neighbourhood_only() -> None:
    attention = {"name": "window", "reach": 16}
    model = resolve({"model": {"attention": attention, "num_layers": 1}}, "tests").model
    denoiser = build_denoiser(model, 6)
    tokens = torch.zeros(1, 80, dtype=torch.int64)
    changed = tokens.clone()
    changed[0, 40] = 1
    moved = (denoiser.logits(tokens) != denoiser.logits(changed)).any(-1)[0]
    assert moved.nonzero().flatten().tolist() == list(range(24, 57))
    pattern = ATTENTION_PATTERNS.from_config(attention)
    assert pattern.attended(80) == pytest.approx(1 + 2 * 16 - 16 * 17 / 80)
    assert pattern.attended(5) == 5.0
