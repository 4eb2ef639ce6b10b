"""What Lightning and the callbacks cost: an update of a real training against a plain PyTorch loop of the same model.

    python benchmarks/training_step.py [--preset nano] [--steps 40] [--rounds 5] [--threads 2] [--batch-size 32]

Both train the same denoiser with the same objective on the same batches and noise, clip and step the same optimizer,
in this process, in turns. Ours is ``sumi_core.trainer.run.train`` as every experiment uses it, with its log lines and
history; validation and checkpoints are left out of both, since the plain loop has none. Prints the median over rounds
of the ratio ours / plain, and the spread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from sumi_core.experiments.resolve import resolve
from sumi_core.experiments.schema import Experiment
from sumi_core.stages import DATA_STAGES
from sumi_core.stages.computation import Computation
from sumi_core.stages.store import Store
from sumi_core.trainer.request import Request


def prepare(folder: Path, arguments: argparse.Namespace) -> tuple[Experiment, dict[str, Path]]:
    """Token shards of random words: what a step computes does not depend on what the text says."""
    words = [f"w{i}" for i in range(2000)]
    generator = np.random.default_rng(0)
    rows = (json.dumps({"text": " ".join(generator.choice(words, size=400))}) for _ in range(300))
    (folder / "documents.jsonl").write_text("\n".join(rows) + "\n")
    changes: dict[str, Any] = {
        "corpus": {"source": {"name": "jsonl", "paths": [str(folder / "documents.jsonl")]}},
        "tokenizer": {"name": "bpe", "vocab_size": arguments.vocab_size},
        "shards": {"sequence_length": arguments.length},
        "model": {"preset": arguments.preset},
        "training": {
            "steps": arguments.steps,
            "batch_size": arguments.batch_size,
            "warmup_steps": 5,
            "validate_every": arguments.steps,
            "validation_sequences": 2,
        },
        "runtime": {"threads": arguments.threads, "checkpoint_every": arguments.steps, "device": "cpu"},
    }
    experiment = resolve(changes, "benchmark")
    computation = Computation(Store(folder / "store"), log=lambda text: None)
    return experiment, {name: computation.ensure(experiment, "benchmark", name)[0].folder for name in DATA_STAGES}


def ours(folder: Path, experiment: Experiment, inputs: dict[str, Path]) -> float:
    """Seconds per update of a training."""
    from sumi_core.trainer.run import train

    folders = {name: str(own) for name, own in inputs.items()}
    summary = train(Request("benchmark", experiment.to_dict(), "benchmark", folders, {}, str(folder)))
    tokens = experiment.training.batch_size * experiment.shards.sequence_length
    return tokens / float(summary["tokens_per_second"])


def plain(experiment: Experiment, inputs: dict[str, Path]) -> float:
    """Seconds per update of the loop one would write by hand; the first, as in ours, is left out."""
    import torch
    from torch.nn.utils import clip_grad_norm_

    from sumi_core.base.numerics import deterministic
    from sumi_core.data.loader import StepBatches
    from sumi_core.data.shards import TokenShards
    from sumi_core.data.tokenizers.tokenizer import load_tokenizer
    from sumi_core.data.vocabulary import Vocabulary
    from sumi_core.experiments.build import build_parts
    from sumi_core.models.denoiser import build_denoiser
    from sumi_core.training.optimization import build_lr_schedule, build_optimizer

    training = experiment.training
    tokenizer = load_tokenizer(inputs["tokenizer"])
    parts = build_parts(experiment, Vocabulary(tokenizer.vocab_size, tokenizer.eos_id))
    denoiser = build_denoiser(experiment.model, parts.num_states, seed=experiment.seed)
    optimizer = build_optimizer(denoiser, training)
    schedule = build_lr_schedule(optimizer, training)
    batches = StepBatches(TokenShards(inputs["token_shards"]).split("train"), training.batch_size, experiment.seed)
    started = time.perf_counter()
    with deterministic(experiment.runtime.threads):
        for step in range(training.steps):
            loss = parts.objective.loss(denoiser, batches.batch(step)).value
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(denoiser.parameters(), training.gradient_clip)
            optimizer.step()
            schedule.step()
            if step == 0:
                started = time.perf_counter()
        assert torch.isfinite(loss)
    return (time.perf_counter() - started) / (training.steps - 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="nano", help="model preset")
    parser.add_argument("--steps", type=int, default=40, help="updates per round and side")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--vocab-size", type=int, default=1024)
    arguments = parser.parse_args()
    ratios, mine, theirs = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        experiment, inputs = prepare(folder, arguments)
        plain(experiment, inputs)  # imports and caches, for neither side's account
        for number in range(arguments.rounds):
            mine.append(ours(folder / f"round{number}", experiment, inputs))
            theirs.append(plain(experiment, inputs))
            ratios.append(mine[-1] / theirs[-1])
    print(
        f"plain loop {1000 * statistics.median(theirs):.1f} ms, training {1000 * statistics.median(mine):.1f} ms a step"
    )
    print(f"ratio ours/plain: {statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
