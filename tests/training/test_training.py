"""Whole trainings: what they log, where they stop, and that the number of processes changes no data."""

from __future__ import annotations

import json
import math
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sumi_core.trainer.request import TrackingAddress
from sumi_core.training.history import read_history, series
from sumi_core.training.outputs import HISTORY, JOURNAL
from tests.training.processes import TrainerProcess, checkpoint_steps, outcome, recorded_step

MakeRequest = Callable[..., Path]
Undisturbed = Callable[..., Path]


def test_history_and_summary_say_the_same(undisturbed: Undisturbed) -> None:
    points = read_history(undisturbed() / HISTORY)
    summary = json.loads((undisturbed() / "training.json").read_text())
    losses = series(points, "train/loss")
    assert [p.step for p in losses] == list(range(3, 61, 3))
    assert all(p.tokens == p.step * 8 * 32 for p in points)
    assert [p.step for p in series(points, "validation/bits_per_byte")] == [16, 32, 48, 60]
    assert losses[-1].value < losses[0].value
    assert summary["tokens_seen"] == 60 * 8 * 32
    assert summary["validation_bits_per_byte"] == series(points, "validation/bits_per_byte")[-1].value
    assert summary["validation_bits_per_byte_stderr"] > 0
    assert summary["train_loss"] == losses[-1].value
    assert summary["flops"] == summary["flops_per_token"] * summary["tokens_seen"]
    assert (summary["mfu"], summary["resumed"], summary["devices"]) == (None, 0, 1)
    assert summary["tokens_per_second"] > 0


def test_loss_points_are_means_over_all_steps_since_the_last(undisturbed: Undisturbed) -> None:
    folders = [undisturbed(runtime__log_every=1, runtime__checkpoint_every=2), undisturbed()]
    single, means = (series(read_history(folder / HISTORY), "train/loss") for folder in folders)
    values = np.array([point.value for point in single]).reshape(-1, 3)
    assert [point.step for point in means] == list(range(3, 61, 3))
    assert [point.value for point in means] == pytest.approx(values.mean(axis=1).tolist(), rel=1e-12)


def test_number_that_is_none_stops_with_step_batch_and_checkpoint(make_request: MakeRequest) -> None:
    request = make_request(
        "broken", training__learning_rate=1e30, training__warmup_steps=0, runtime__checkpoint_every=1
    )
    trainer = TrainerProcess(request)
    assert trainer.wait() == 1
    message = trainer.texts()[-1]
    assert "diverged at step 2" in message
    assert "examples 8–15" in message
    assert "step-00000001-" in message
    assert not (request.parent / "weights.safetensors").exists()
    assert not list(request.parent.glob("**/*.tmp"))


def test_damaged_shard_is_named_before_training(make_request: MakeRequest, tmp_path: Path) -> None:
    request = make_request("damaged")
    asked = json.loads(request.read_text())
    shutil.copytree(asked["inputs"]["token_shards"], tmp_path / "shards")
    (shard,) = (tmp_path / "shards").glob("train-*.tokens.npy")
    shard.write_bytes(shard.read_bytes()[:-2])
    request.write_text(json.dumps({**asked, "inputs": {**asked["inputs"], "token_shards": str(tmp_path / "shards")}}))
    trainer = TrainerProcess(request)
    assert trainer.wait() == 1
    assert shard.name in trainer.texts()[-1]
    assert not (request.parent / JOURNAL).exists()


def test_killed_training_logs_every_step_to_mlflow_once(make_request: MakeRequest, mlflow_uri: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=mlflow_uri)
    run_id = client.create_run(client.create_experiment("kills")).info.run_id
    request = make_request(
        "killed", TrackingAddress(mlflow_uri, run_id), training__steps=160, runtime__checkpoint_every=50
    )
    trainer = TrainerProcess(request)
    trainer.wait_until(lambda: recorded_step(request.parent) >= 36)
    trainer.signal(signal.SIGKILL)
    trainer.wait()
    beyond = max(m.step for m in client.get_metric_history(run_id, "validation/bits_per_byte"))
    assert beyond > max(checkpoint_steps(request.parent), default=0), "nothing would be logged twice"
    assert TrainerProcess(request).wait() == 0
    history = read_history(request.parent / HISTORY)
    for name in ("train/loss", "train/learning_rate", "validation/bits_per_byte"):
        logged = [(m.step, m.value) for m in client.get_metric_history(run_id, name)]
        assert sorted(logged) == [(p.step, p.value) for p in series(history, name)]
    by_tokens = [(m.step, m.value) for m in client.get_metric_history(run_id, "by_tokens/train_loss")]
    assert sorted(by_tokens) == [(p.tokens, p.value) for p in series(history, "train/loss")]


def test_mlflow_that_does_not_answer_ends_no_training(make_request: MakeRequest, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database")
    address = TrackingAddress(f"sqlite:///{tmp_path / 'mlflow.db'}", "0" * 32)
    trainer = TrainerProcess(make_request("untracked", address, training__steps=6))
    assert trainer.wait() == 0
    assert any("not in MLflow for now" in text for text in trainer.texts())


# --- several processes ------------------------------------------------------------------------------------------------


def as_ranks(request: Path, world: int) -> list[TrainerProcess]:
    """The processes torchrun would start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }
    ranks = range(world)
    return [TrainerProcess(request, {**common, "RANK": str(r), "LOCAL_RANK": str(r)}) for r in ranks]


def test_two_processes_train_as_one(make_request: MakeRequest) -> None:
    """The same data, noise levels and noise: gradients of equal shards average to the gradient of the whole batch, up
    to the order of summation. Then two processes are stopped and resumed, which must be exact again."""
    plan = {"training__steps": 48, "training__validate_every": 12, "training__gradient_clip": 0.5}
    alone, together = make_request("alone", **plan), make_request("together", runtime__devices=2, **plan)
    assert TrainerProcess(alone).wait() == 0
    assert [rank.wait() for rank in as_ranks(together, 2)] == [0, 0]
    (one, one_points), (two, two_points) = outcome(alone.parent), outcome(together.parent)
    for name, weight in one.items():
        np.testing.assert_allclose(np.frombuffer(two[name], np.float32), np.frombuffer(weight, np.float32), atol=2e-5)
    assert [(p.step, p.name) for p in two_points] == [(p.step, p.name) for p in one_points]
    assert [p.value for p in two_points] == pytest.approx([p.value for p in one_points], rel=1e-3)

    stopped = make_request("stopped", runtime__devices=2, runtime__checkpoint_every=1000, **plan)
    ranks = as_ranks(stopped, 2)
    ranks[0].wait_until(lambda: recorded_step(stopped.parent) >= 3)
    ranks[1].signal(signal.SIGTERM)  # one rank is told, all stop after the same update
    assert [rank.wait() for rank in ranks] == [143, 143]
    assert [rank.wait() for rank in as_ranks(stopped, 2)] == [0, 0]
    assert outcome(stopped.parent) == outcome(together.parent)


def test_wrong_number_of_processes_is_refused(make_request: MakeRequest) -> None:
    trainer = TrainerProcess(make_request("lonely", runtime__devices=2))
    assert trainer.wait() == 1
    assert "runtime.devices is 2 but 1 trainer processes were started" in trainer.texts()[-1]


def test_bf16_trains_close_to_fp32(undisturbed: Undisturbed) -> None:
    folders = [undisturbed(), undisturbed(training__precision="bf16")]
    full, half = (series(read_history(folder / HISTORY), "train/loss") for folder in folders)
    assert half != full
    assert [p.value for p in half] == pytest.approx([p.value for p in full], rel=0.05)
    assert all(math.isfinite(p.value) for p in half)
