"""A conversion that is killed at every turn, from its parent's training to its evaluation, ends with the figures of one
that was not."""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import pytest

from sumi_core.experiments.sweeps import load_sweeps
from sumi_core.stages.computation import Computation
from sumi_core.stages.store import Store
from tests.pipelines.tiny import Here, write_texts
from tests.training.processes import _CONTEXT, PATIENCE_SECONDS, outcome

PARENT, CHILD = "conversion.autoregressive.s0", "conversion.converted.s0"
EXPERIMENT = """\
corpus: {source: {name: text, paths: ["texts/*.txt"], licence: public domain}, validation_fraction: 0.3}
tokenizer: byte
shards: {sequence_length: 32}
model: {hidden_size: 16, intermediate_size: 24, num_layers: 1, num_heads: 2, num_kv_heads: 1, attention: causal}
training: {steps: 9, batch_size: 4, warmup_steps: 1, validate_every: 3, validation_sequences: 4, ema_decay: 0.9}
evaluation:
  {sequences: 4, times_per_sequence: 2, sampling_steps: [2], samples: 2, measurements: [likelihood, samples]}
runtime: {device: cpu, threads: 1, data_workers: 1, log_every: 1, checkpoint_every: 2}
phases:
  autoregressive: {process: null, objective: autoregressive}
  converted:
    process: absorbing
    objective: {name: joint, diffusion_weight: 1}
    layout: {name: blocks, length: 8, read_out: previous, growth: [1, 4]}
    evaluation.measurements: [likelihood, {name: readings, block_lengths: [1]}, samples, drafts,
      {name: initial_readings, block_lengths: [1]}]
axes: {seed: [0]}
"""
#: Functions, and the call at which they kill their process, in the order in which a conversion comes by.
PLACES = [
    ("sumi_core.objectives.autoregressive.Autoregressive.loss", 2),  # before the first checkpoint
    ("sumi_core.objectives.autoregressive.Autoregressive.loss", 6),
    ("sumi_core.evaluation.likelihood.TextLikelihood.run", 1),  # of the parent
    ("sumi_core.models.foreign.Tensors.read", 4),  # some of the parent's weights are in the child, others not yet
    ("sumi_core.objectives.joint.Joint.loss", 2),
    ("sumi_core.objectives.joint.Joint.loss", 6),  # blocks have grown twice
    ("sumi_core.objectives.joint.Joint.loss", 4),
    ("sumi_core.export.writing.max_logit_difference", 1),
    ("sumi_core.evaluation.readings.Readings.run", 1),
    ("sumi_core.evaluation.samples.Samples.run", 1),
]


def convert(store: Store) -> None:
    """Parent and child, in this process and in the project that it is in."""
    cells = {cell.key: cell for cell in load_sweeps(Path("experiments"))["conversion"].cells}
    computation = Computation(store, launcher=Here(), log=lambda _: None)
    for key in (PARENT, CHILD):
        computation.ensure_all(cells[key].experiment, key)


def forked(work: Callable[[], None]) -> int:
    """How a process that does some work ends: 0, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def convert_and_die(store: Store, place: str, number: int) -> None:
    """Convert, and be killed by the ``number``-th call of a function."""
    where, _, name = place.rpartition(".")
    try:
        owner = import_module(where)
    except ModuleNotFoundError:
        module, _, cls = where.rpartition(".")
        owner = getattr(import_module(module), cls)
    original, calls = getattr(owner, name), []

    def counted(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **options)

    with patch.object(owner, name, counted):
        convert(store)


def _work(root: str, calm: str, killed: str) -> None:
    """Everything in a process that has imported it all once: undisturbed, then from kill to kill."""
    os.chdir(root)
    os.environ["SUMI_PROJECT"] = root
    store = Store(Path(killed))
    convert(Store(Path(calm)))
    ends = [
        forked(lambda place=place, number=number: convert_and_die(store, place, number)) for place, number in PLACES
    ]
    ends.append(forked(lambda: convert(store)))
    Path(root, "ends.json").write_text(json.dumps(ends))


def figures(store: Store) -> dict[tuple[str, str], Any]:
    """What must not depend on interruptions: weights and histories, and of evaluations every number and table."""
    found: dict[tuple[str, str], Any] = {}
    for artifact in store.artifacts():
        place = (artifact.manifest["key"], artifact.stage)
        if artifact.stage == "pretrained_denoiser":
            found[place] = outcome(artifact.folder)
        elif artifact.stage == "evaluation":
            tables = {path.name: pd.read_parquet(path).to_json() for path in artifact.folder.glob("*.parquet")}
            found[place] = (artifact.summary, tables)
    return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_a_conversion_that_is_killed_at_every_turn_has_the_undisturbed_figures(tmp_path: Path) -> None:
    root, calm, killed = tmp_path / "project", tmp_path / "calm", tmp_path / "killed"
    (root / "experiments").mkdir(parents=True)
    (root / "experiments" / "conversion.yaml").write_text(EXPERIMENT)
    write_texts(root)
    process = _CONTEXT.Process(target=_work, args=(str(root), str(calm), str(killed)))
    process.start()
    process.join(4 * PATIENCE_SECONDS)
    assert process.exitcode == 0
    assert json.loads((root / "ends.json").read_text()) == [-signal.SIGKILL] * len(PLACES) + [0]
    wanted, found = figures(Store(calm)), figures(Store(killed))
    assert sorted(wanted) == [
        (key, stage) for key in (PARENT, CHILD) for stage in ("evaluation", "pretrained_denoiser")
    ]
    summary, tables = wanted[CHILD, "evaluation"]
    assert {"likelihood.parquet", "readings.parquet", "samples.parquet", "drafts.parquet"} <= tables.keys()
    assert {"bits_per_byte", "readings", "drafts"} <= summary.keys()
    parent, start = wanted[PARENT, "evaluation"][0], summary["initial_readings"]
    assert start["autoregressive"] == pytest.approx(parent["bits_per_byte"], abs=1e-6)
    assert start["blocks_1"] == pytest.approx(start["autoregressive"], abs=5 * start["blocks_1_stderr"])
    assert abs(summary["readings"]["autoregressive"] - start["autoregressive"]) > 1e-3, "it was trained on"
    assert found == wanted
