"""Every experiment file of the repository: it resolves, its model has the size it should, and it runs end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sumi_core.config import Experiment, ModelConfig
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.lineage.store import Store
from sumi_core.models.denoiser import build_denoiser
from sumi_core.parts import build_parts
from sumi_core.stages import Computation, refresh_source_identities, stages_of
from sumi_core.sweeps import Cell, load_sweep, load_sweeps
from sumi_core.training.request import Request
from sumi_core.training.run import train

FOLDER = Path(__file__).parents[2] / "experiments"
SWEEPS = load_sweeps(FOLDER)
CELLS = [cell for sweep in SWEEPS.values() for cell in sweep.cells]
BASES = sorted(FOLDER.glob("base/*.yaml"))
each_cell = pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.key)


def test_every_file_is_covered() -> None:
    files = {file for file in FOLDER.rglob("*.yaml") if file.parent.name != "base"}
    assert {sweep.file for sweep in SWEEPS.values()} == files
    assert {"demo", "smoke"} <= SWEEPS.keys()
    assert all(sweep.description for sweep in SWEEPS.values())


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.stem)
def test_every_base_is_an_experiment_by_itself(base: Path) -> None:
    assert len(load_sweep(base, FOLDER).cells) == 1


def parameters(model: ModelConfig, num_states: int) -> int:
    """Weights of a LLaMA block without biases, counted by hand."""
    width, head = model.hidden_size, model.hidden_size // model.num_heads
    attention = 2 * width * width + 2 * width * model.num_kv_heads * head + (2 * head if model.qk_norm else 0)
    block = attention + 3 * width * model.intermediate_size + 2 * width
    embeddings = num_states * width * (1 if model.tie_embeddings else 2)
    return embeddings + model.num_layers * block + width


@each_cell
def test_the_model_has_the_size_it_should(cell: Cell) -> None:
    model, num_tokens = cell.experiment.model, cell.experiment.tokenizer.get("vocab_size", 257)
    parts = build_parts(cell.experiment, Vocabulary(num_tokens, num_tokens - 1))
    with torch.device("meta"):
        denoiser = build_denoiser(model, parts.num_states)
    expected = parameters(model, parts.num_states)
    if model.time_conditioning == "none":
        assert denoiser.num_parameters() == expected
    else:
        assert denoiser.num_parameters() > expected


@each_cell
def test_the_parts_fit_together_over_a_small_vocabulary(cell: Cell) -> None:
    parts = build_parts(cell.experiment, Vocabulary(7, 6))
    assert parts.num_tokens == 7
    assert (parts.process is None) == (not parts.objective.needs_process)
    assert parts.num_states == (parts.process.num_states if parts.process else 7)
    drawn = parts.sampler.sample(
        lambda tokens, t: torch.zeros(*tokens.shape, parts.num_states), num=2, length=5, steps=3, seed=0
    )
    assert drawn.tokens.shape == (2, 5)
    assert int(drawn.tokens.max()) < 7


class InThisProcess:
    """Trains where the test runs: a process of its own would spend seconds on imports."""

    def run(self, request: Path) -> None:
        train(Request.read(request))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for all cells, so that what they share is computed once."""
    return Store(tmp_path_factory.mktemp("shipped") / "store")


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.default_rng(0)
    words = ["in", "the", "beginning", "was", "a", "word", "and", "light", "upon", "water"]
    lines = [json.dumps({"text": " ".join(generator.choice(words, size=50))}) for _ in range(80)]
    file = tmp_path_factory.mktemp("documents") / "documents.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


def reduced(cell: Cell, documents: Path) -> Experiment:
    """The cell over made-up documents, two steps of a small model, every choice of a part kept."""
    overrides = [
        f"corpus.source={{name: jsonl, paths: ['{documents}']}}",
        "corpus.validation_fraction=0.3",
        "shards.sequence_length=16",
        "model={hidden_size: 16, intermediate_size: 24, num_layers: 1, num_heads: 2, num_kv_heads: 1}",
        "training={steps: 2, warmup_steps: 1, batch_size: 4, accumulation: 1, validate_every: 1}",
        "training.validation_sequences=4",
        "evaluation={sequences: 4, times_per_sequence: 2, sampling_steps: [2], samples: 2}",
        "runtime={device: cpu, threads: 1, data_workers: 1, log_every: 1, checkpoint_every: 1}",
    ]
    if "vocab_size" in cell.experiment.tokenizer:
        overrides.append("tokenizer.vocab_size=280")
    sweep = load_sweep(SWEEPS[cell.sweep].file, FOLDER, overrides)
    assert not sweep.refused
    return next(other.experiment for other in sweep.cells if other.key == cell.key)


@each_cell
def test_every_stage_runs_in_small(cell: Cell, store: Store, documents: Path) -> None:
    refresh_source_identities()
    computation = Computation(store, launcher=InThisProcess(), log=lambda line: None)
    made = computation.ensure_all(reduced(cell, documents), cell.key)
    assert tuple(made) == stages_of(cell.experiment)
    summary = made["evaluation"].summary
    assert 0.5 < summary["bits_per_byte"] < 30
    assert made["exported_model"].summary["max_logit_difference"] < 1e-4
