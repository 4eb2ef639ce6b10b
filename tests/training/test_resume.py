"""A training that is killed, stopped or damaged ends with the weights and the history of one that was not."""

from __future__ import annotations

import fcntl
import json
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from sumi_core.training.outputs import CHECKPOINTS, JOURNAL
from tests.training.processes import TrainerProcess, checkpoint_steps, outcome, recorded_step

MakeRequest = Callable[..., Path]
Undisturbed = Callable[..., Path]


def test_killed_at_random_moments_nothing_differs(make_request: MakeRequest, undisturbed: Undisturbed) -> None:
    """With EMA and accumulation; logs, checkpoints and validation fall on different steps, so kills hit every state."""
    steps = {"training__steps": 300}
    request = make_request("killed", **steps)
    moments = []
    for _ in range(3):
        moments.append(recorded_step(request.parent) + random.randrange(3, 40))
        trainer = TrainerProcess(request)
        trainer.wait_until(lambda: recorded_step(request.parent) >= moments[-1])
        trainer.signal(signal.SIGKILL)
        assert trainer.wait() == -signal.SIGKILL
    assert TrainerProcess(request).wait() == 0
    assert outcome(request.parent) == outcome(undisturbed(**steps)), f"killed after steps {moments}"
    assert json.loads((request.parent / "training.json").read_text())["resumed"] == 3


def test_a_training_of_growing_blocks_is_killed_on_both_sides_of_a_boundary(
    make_request: MakeRequest, undisturbed: Undisturbed
) -> None:
    """The block length is a function of the step alone: 20 steps each of blocks of 1, 4, 16 and 32 tokens. Who has
    feedback, and the noise that it is made of, are functions of the address."""
    plan = {
        "training__steps": 80,
        "model__attention": "causal",
        "model__feedback": "self_conditioning",
        "objective": {"name": "joint", "diffusion": {"name": "nelbo", "feedback": "path"}},
        "layout": {"name": "blocks", "length": 32, "read_out": "previous", "growth": [1, 4, 16]},
    }
    request = make_request("growing", **plan)
    for moment in (17, 45):
        trainer = TrainerProcess(request)
        trainer.wait_until(lambda moment=moment: recorded_step(request.parent) >= moment)
        trainer.signal(signal.SIGKILL)
        assert trainer.wait() == -signal.SIGKILL
        assert recorded_step(request.parent) < 80
    assert TrainerProcess(request).wait() == 0
    assert outcome(request.parent) == outcome(undisturbed(**plan))


def test_a_training_whose_pattern_opens_is_killed_while_it_does(
    make_request: MakeRequest, undisturbed: Undisturbed
) -> None:
    """Which pairs see each other is a function of seed and step."""
    plan = {
        "training__steps": 60,
        "model__attention": "bidirectional",
        "layout": {"name": "whole", "anneal": 0.9},
        "runtime__checkpoint_every": 7,
    }
    request = make_request("opening", **plan)
    trainer = TrainerProcess(request)
    trainer.wait_until(lambda: recorded_step(request.parent) >= 16)
    trainer.signal(signal.SIGKILL)
    assert trainer.wait() == -signal.SIGKILL
    assert recorded_step(request.parent) < 54
    assert TrainerProcess(request).wait() == 0
    assert outcome(request.parent) == outcome(undisturbed(**plan))


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_saves_the_step_that_was_running(
    make_request: MakeRequest, undisturbed: Undisturbed, signum: signal.Signals, status: int
) -> None:
    plan = {"training__steps": 120, "runtime__checkpoint_every": 1000, "training__ema_decay": 0.0}
    request = make_request("stopped", **plan)
    trainer = TrainerProcess(request)
    trainer.wait_until(lambda: recorded_step(request.parent) >= 9)
    trainer.signal(signum)
    assert trainer.wait() == status
    assert signum.name in trainer.texts()[-1]
    (saved,) = checkpoint_steps(request.parent)
    assert 9 <= saved < 120
    assert TrainerProcess(request).wait() == 0
    assert outcome(request.parent) == outcome(undisturbed(**plan))


def test_damaged_newest_checkpoint_falls_back_to_the_one_before(
    make_request: MakeRequest, undisturbed: Undisturbed
) -> None:
    steps = {"training__steps": 300}
    request = make_request("damaged", **steps)
    trainer = TrainerProcess(request)
    trainer.wait_until(lambda: len(checkpoint_steps(request.parent)) == 2)
    trainer.signal(signal.SIGKILL)
    trainer.wait()
    before, newest = checkpoint_steps(request.parent)
    path = next((request.parent / CHECKPOINTS).glob(f"step-{newest:08d}-*.ckpt"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    trainer = TrainerProcess(request)
    assert trainer.wait() == 0
    assert any(path.name in text and "damaged" in text for text in trainer.texts())
    assert any(f"going on from step {before}/" in text for text in trainer.texts())
    assert outcome(request.parent) == outcome(undisturbed(**steps))


def test_second_trainer_waits_for_the_first(make_request: MakeRequest) -> None:
    request = make_request("waiting")
    with (request.parent / "trainer.lock").open("a") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        trainer = TrainerProcess(request)
        trainer.wait_until(lambda: any("waiting for it to end" in text for text in trainer.texts()))
        assert not (request.parent / JOURNAL).exists()
    assert trainer.wait() == 0


def test_waiting_trainer_can_be_stopped(make_request: MakeRequest) -> None:
    request = make_request("waiting")
    with (request.parent / "trainer.lock").open("a") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        trainer = TrainerProcess(request)
        trainer.wait_until(lambda: bool(trainer.texts()))
        trainer.signal(signal.SIGTERM)
        assert trainer.wait() == 143


def test_finished_training_is_found_and_left_as_it_is(make_request: MakeRequest) -> None:
    request = make_request("finished")
    folder = request.parent
    assert TrainerProcess(request).wait() == 0

    def content() -> dict[str, bytes]:  # the lock says who held it last
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "trainer.lock"}

    files = content()
    assert set(files) == {
        "request.json",
        "training.json",
        "weights.safetensors",
        "history.parquet",
        "last.ckpt",
    }
    again = TrainerProcess(request)
    assert again.wait() == 0
    assert content() == files
    results = [event["summary"] for event in again.events() if event["kind"] == "result"]
    assert results == [json.loads(files["training.json"])] * 2


def test_checkpoints_of_another_experiment_are_refused(make_request: MakeRequest) -> None:
    request = make_request("first", training__steps=200)
    trainer = TrainerProcess(request)
    trainer.wait_until(lambda: bool(checkpoint_steps(request.parent)))
    trainer.signal(signal.SIGKILL)
    trainer.wait()
    changed = json.loads(request.read_text())
    changed["experiment"]["training"]["learning_rate"] = 1e-4
    changed["recipe"] = "0123456789abcdef"
    request.write_text(json.dumps(changed))
    trainer = TrainerProcess(request)
    assert trainer.wait() == 1
    assert "checkpoints of another experiment" in trainer.texts()[-1]


def test_more_frequent_logs_and_checkpoints_change_no_weight(undisturbed: Undisturbed) -> None:
    often = undisturbed(runtime__log_every=1, runtime__checkpoint_every=2)
    assert outcome(often)[0] == outcome(undisturbed())[0]
