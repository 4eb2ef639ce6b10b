"""Every experiment file of the repository: it resolves, its model has the size it should, and it runs end to end."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from sumi_core.base.hashing import canonical_json
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.experiments.build import build_parts
from sumi_core.experiments.references import ancestors
from sumi_core.experiments.schema import Experiment
from sumi_core.experiments.size import experiment_size
from sumi_core.experiments.sweeps import Cell, Sweep, load_sweep, load_sweeps
from sumi_core.export.stock import why_not_stock
from sumi_core.models.config import ModelConfig
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import FromLogits
from sumi_core.stages import TOKEN_TABLES
from sumi_core.stages.computation import Computation
from sumi_core.stages.identity import refresh_source_identities, stages_of
from sumi_core.stages.store import Store
from sumi_core.trainer.request import Request
from sumi_core.trainer.run import train

FOLDER = Path(__file__).parents[2] / "experiments"
SWEEPS = load_sweeps(FOLDER)
CELLS = [group[0] for sweep in SWEEPS.values() for group in sweep.groups.values()]
BASES = sorted(FOLDER.glob("base/*.yaml"))


@functools.cache
def reduced(name: str, documents: Path) -> dict[str, Experiment]:
    """The cells of a sweep over made-up documents, two steps of a small model, or one for each block length: every
    choice of a part is kept. Cells that are named for their size are left out."""
    sweep = SWEEPS[name]
    blocks = [_block_lengths(cell) for cell in sweep.cells]
    steps = max(2, *map(len, blocks))
    of_tasks = {cell.experiment.corpus.source["name"] for cell in sweep.cells} == {"task"}
    made_up = f"corpus.source={{name: jsonl, paths: ['{documents}']}}"
    overrides = [
        "corpus.source.instances=80" if of_tasks else made_up,  # a task is measured on its own instances
        "corpus.validation_fraction=0.3",
        "model={hidden_size: 16, intermediate_size: 24, num_layers: 1, num_heads: 2, num_kv_heads: 1}",
        f"training={{steps: {steps}, warmup_steps: 1, batch_size: 4, accumulation: 1, validate_every: 1}}",
        "training.validation_sequences=4",
        "evaluation={sequences: 4, times_per_sequence: 2, sampling_steps: [2], samples: 2}",
        "runtime={device: cpu, threads: 1, data_workers: 1, log_every: 1, checkpoint_every: 1}",
    ]
    if (
        not of_tasks and len({cell.experiment.shards.sequence_length for cell in sweep.cells}) == 1
    ):  # else cells are named for it
        overrides.append(f"shards.sequence_length={max(16, *map(max, blocks))}")
    if "vocab_size" in sweep.cells[0].experiment.tokenizer:
        overrides.append("tokenizer.vocab_size=280")
    made = load_sweep(sweep.file, FOLDER, overrides)
    assert all("is named for a key that these overrides change" in str(why) for why in made.refused.values())
    for cell in made.cells:
        if "clusters" in cell.experiment.clusters:  # as many as the few tokens allow
            cell.experiment.clusters["clusters"] = 8
    return {cell.plain: cell.experiment for cell in made.cells}


def _block_lengths(cell: Cell) -> list[int]:
    layout = cell.experiment.layout
    return [layout["length"], *layout["growth"], *layout["also"]] if layout["name"] == "blocks" else [1]


def _starts_elsewhere(sweep: Sweep) -> bool:
    """Whether cells start from those of another file, which are not reduced along with these."""
    refs = [ref.cell.partition(".")[0] for cell in sweep.cells for ref in ancestors(cell.experiment)]
    return any(own != sweep.name for own in refs)


def _kind(value: Any) -> Any:
    """A choice without its numbers, which are only told from 0: another exponent or length runs the same code."""
    if isinstance(value, Mapping):
        return {key: _kind(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_kind(inner) for inner in value]
    return bool(value) if isinstance(value, int | float) else value


def different(sweeps: Mapping[str, Sweep]) -> Iterator[Cell]:
    """A cell for each choice of parts of the data, and one for each of all else: seeds, sizes and other numbers make no
    other."""
    seen: set[str] = set()
    for sweep in sweeps.values():
        if _starts_elsewhere(sweep):
            continue
        small = reduced(sweep.name, Path("documents.jsonl"))
        for cell in sweep.cells:
            if cell.key not in small:
                continue
            choices = {**small[cell.key].identity(), "seed": None}
            data = canonical_json([choices.pop(section) for section in ("corpus", "tokenizer", "shards")])
            rest = canonical_json(_kind(choices))
            if not {data, rest} <= seen:
                yield cell
            seen |= {data, rest}


each_cell = pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.key)
each_different_cell = pytest.mark.parametrize("cell", [*different(SWEEPS)], ids=lambda cell: cell.key)


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


def vocabulary(size: int) -> Vocabulary:
    """Tokens of which everything is known that a process may ask."""
    return Vocabulary(size, size - 1, {name: torch.arange(size) for name in TOKEN_TABLES})


@each_cell
def test_the_model_has_the_size_it_should(cell: Cell) -> None:
    model, num_tokens = cell.experiment.model, cell.experiment.tokenizer.get("vocab_size", 257)
    parts = build_parts(cell.experiment, vocabulary(num_tokens))
    with torch.device("meta"):
        denoiser = Denoiser(model, parts.num_states, seed=None)
    expected = parameters(model, parts.num_states)
    if model.feedback and model.feedback["name"] == "self_conditioning":
        expected += 3 * model.hidden_size * model.intermediate_size + model.hidden_size
    expected += model.hidden_size * model.marker
    if model.time_conditioning == "none":
        assert denoiser.num_parameters() == expected
    else:
        assert denoiser.num_parameters() > expected


@each_different_cell
def test_the_parts_fit_together_over_a_small_vocabulary(cell: Cell) -> None:
    parts = build_parts(cell.experiment, vocabulary(7))
    assert parts.num_tokens == 7
    assert (parts.process is None) == (not parts.objective.needs_process)
    assert parts.num_states == (parts.process.num_states if parts.process else 7)
    drawn = parts.sampler.sample(
        FromLogits(lambda z, t: torch.zeros(*z.shape, parts.num_states)), num=2, length=5, steps=3, seed=0
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


@pytest.fixture
def _unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots are composed and not rendered, which is most of a small evaluation; what they look like is tested where
    one experiment is evaluated (``tests/evaluation``)."""
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: Path(path).write_bytes(b"a picture"))


@each_different_cell
@pytest.mark.usefixtures("_unrendered")
def test_every_stage_runs_in_small(cell: Cell, store: Store, documents: Path) -> None:
    refresh_source_identities()
    computation = Computation(store, launcher=InThisProcess(), log=lambda line: None)
    experiment = reduced(cell.sweep, documents)[cell.key]
    made = computation.ensure_all(experiment, cell.key)
    assert tuple(made) == stages_of(experiment)
    summary = made["evaluation"].summary
    assert 0.5 < summary["bits_per_byte"] < 30
    if why_not_stock(experiment.model) is None:
        assert made["exported_model"].summary["max_logit_difference"] < 1e-4


def test_ablations_compare_groups_of_seeds_at_one_budget() -> None:
    """What makes a difference between two cells one of method: seeds enough for an error, and nothing else unequal."""
    ablations = [sweep for sweep in SWEEPS.values() if sweep.file.parent.name == "ablations"]
    assert {sweep.name for sweep in ablations} >= {"corruption", "schedule", "objective", "structure"}
    for sweep in ablations:
        seeds = 2 if sweep.name.startswith("smoke-") else 3
        assert sweep.reference in sweep.groups
        assert {len(cells) for cells in sweep.groups.values()} == {seeds}
        assert {experiment_size(cell.experiment, 0).tokens for cell in sweep.cells} == {sweep.options.budget.tokens}
        assert (sweep.options.cron is None) == sweep.name.startswith("smoke-")


@pytest.mark.parametrize("name", ["corruption", "schedule", "objective", "structure"])
def test_a_smoke_ablation_asks_what_the_real_one_asks(name: str) -> None:
    real, smoke = SWEEPS[name], SWEEPS[f"smoke-{name}"]
    assert [*smoke.groups] == [f"smoke-{group}" for group in real.groups]
    assert smoke.reference == f"smoke-{real.reference}"
    for ours, theirs in zip(smoke.groups.values(), real.groups.values(), strict=True):
        a, b = ours[0].experiment, theirs[0].experiment
        for section in ("process", "schedule", "clock", "parameterisation", "objective"):
            assert getattr(a, section) == getattr(b, section)
