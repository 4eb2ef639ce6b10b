"""``train``: the function that owns a training process, from the lock on its folder to the finished outputs.

Several devices: one process each, started by ``torchrun`` (any launcher that sets RANK, LOCAL_RANK, WORLD_SIZE and the
master's address does); Lightning's DDP averages their gradients. This module starts no process itself.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sumi_core.base.errors import SumiError
from sumi_core.base.locks import locked
from sumi_core.base.numerics import choose_device, deterministic
from sumi_core.base.process import ParentDied, die_with_parent
from sumi_core.experiments.resolve import resolve
from sumi_core.experiments.schema import Experiment
from sumi_core.trainer.request import Request
from sumi_core.training.errors import TrainingError, TrainingInterrupted
from sumi_core.training.events import Report
from sumi_core.training.outputs import CHECKPOINTS, LOCK, finished_summary, tidy
from sumi_core.training.quiet import quiet_lightning
from sumi_core.training.ranks import Rank, from_rank_zero, process_group
from sumi_core.training.signals import StopSignal, stop_signals

if TYPE_CHECKING:
    from sumi_core.training.session import Training


def main(path: Path, report: Report) -> int:
    """Train for the request file at ``path`` and report events. Returns the process's exit status: 0 when finished,
    128 + signal when stopped by one, 1 for a problem that is the user's to solve (reported in one sentence)."""
    try:
        die_with_parent()
        train(Request.read(path), report)
    except SumiError as error:
        report({"kind": "error", "text": str(error)})
        return 1
    except ParentDied:
        return 128 + signal.SIGTERM
    except TrainingInterrupted as stopped:
        report({"kind": "error", "text": f"training was {stopped}"})
        return stopped.exit_code
    return 0


def train(request: Request, report: Report = lambda event: None) -> dict[str, Any]:
    """Train, or go on training, or find the training finished. Returns its summary (``training.json``).

    Holds ``trainer.lock`` in the folder, after waiting for another trainer to end. SIGTERM and SIGINT end the training
    after the update that is running, with a checkpoint. Raises TrainingError (diverged, impossible request),
    TrainingInterrupted, and what reading the inputs raises (ShardError, …).
    """
    rank, folder = Rank.from_environment(), Path(request.folder)
    experiment = resolve(request.experiment, f"training request '{request.key}'")
    if rank.world != experiment.runtime.devices:
        raise TrainingError(
            f"runtime.devices is {experiment.runtime.devices} but {rank.world} trainer processes were started; "
            "start one per device (torchrun --nproc-per-node) or set runtime.devices"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with stop_signals() as stop:
        if not rank.is_zero:  # rank 0 holds the lock for all and reports for all
            return _train(request, experiment, rank, stop, lambda event: None)

        def waiting(holder: str) -> None:
            report({"kind": "log", "text": f"another trainer ({holder}) works in this folder; waiting for it to end"})

        with locked(folder / LOCK, waiting):
            return _train(request, experiment, rank, stop, report)


def _train(request: Request, experiment: Experiment, rank: Rank, stop: StopSignal, report: Report) -> dict[str, Any]:
    from sumi_core.training.checkpoints import newest_whole
    from sumi_core.training.session import Session

    folder, device = Path(request.folder), choose_device(experiment.runtime.device, rank.local)

    def log(text: str) -> None:
        report({"kind": "log", "text": text})

    with deterministic(experiment.runtime.threads), process_group(rank, device.type), quiet_lightning():
        summary = from_rank_zero(finished_summary(folder), rank)
        if summary is None:
            checkpoint = from_rank_zero(newest_whole(folder / CHECKPOINTS, log) if rank.is_zero else None, rank)
            session = Session(_built(request, experiment, rank), rank, device, stop, report)
            session.fit(checkpoint)
            summary = from_rank_zero(session.finish() if rank.is_zero else None, rank)
        if rank.is_zero:
            tidy(folder)
    report({"kind": "result", "summary": summary})
    return dict(summary)


def _built(request: Request, experiment: Experiment, rank: Rank) -> Training:
    """What the request asks to train. Rank 0 compares the tokens with their checksums first."""
    from sumi_core.data.shards import TokenShards
    from sumi_core.data.tokenizers.tokenizer import load_tokenizer
    from sumi_core.data.vocabulary import Vocabulary, read_tables
    from sumi_core.experiments.build import build_parts
    from sumi_core.experiments.size import flops_of_token
    from sumi_core.models.denoiser import build_denoiser
    from sumi_core.training.publishing import MlflowSink
    from sumi_core.training.session import Training

    tokenizer = load_tokenizer(Path(request.inputs["tokenizer"]))
    shards = TokenShards(Path(request.inputs["token_shards"]))
    if rank.is_zero:
        shards.verify()  # before anything is learned from a damaged file
    tables = read_tables({name: Path(folder) for name, folder in request.tables.items()}, tokenizer.vocab_size)
    parts = build_parts(experiment, Vocabulary(tokenizer.vocab_size, tokenizer.eos_id, tables), training=True)
    # This package retries by itself; MLflow's default retries would hold up training for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    return Training(
        denoiser=build_denoiser(experiment.model, parts.num_states, experiment.seed, parts.num_tokens),
        objective=parts.objective,
        train=shards.split("train"),
        validation=shards.split("validation"),
        sequence_length=experiment.shards.sequence_length,
        flops_per_token=flops_of_token(experiment, parts.num_states),
        config=experiment.training,
        runtime=experiment.runtime,
        seed=experiment.seed,
        recipe=request.recipe,
        folder=Path(request.folder),
        sink=MlflowSink(request.tracking.uri, request.tracking.run_id) if request.tracking else None,
    )
