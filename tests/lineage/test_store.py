"""The artifact store under the events it exists for: two at once, kill -9 at any moment, damage."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sumi_core.base.errors import StoreError
from sumi_core.base.hashing import file_sha256
from sumi_core.base.locks import locked
from sumi_core.stages.store import Store
from tests.lineage.store_files import NAME, STAGE, Start, debris, make

# --- other processes --------------------------------------------------------------------------------------------------

PRELUDE = """
import os, sys, time
from pathlib import Path
from sumi_core.stages.store import Store
store = Store(Path(sys.argv[1]))
def say(line):
    print(line, flush=True)
"""


@pytest.fixture
def start(store: Store) -> Iterator[Start]:
    """Run Python code beside the test; whatever still runs at its end is killed."""
    running: list[subprocess.Popen[str]] = []

    def run(code: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PRELUDE + textwrap.dedent(code), str(store.root)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


BUILDS_FOR_EVER = f"""
with store.building("{STAGE}", "{NAME}", resumable=RESUMABLE) as build:
    (build.folder / "half.txt").write_text("half")
    say("building")
    time.sleep(600)
"""


@pytest.mark.parametrize("resumable", [False, True])
def test_kill_9_leaves_no_whole_output(store: Store, start: Start, resumable: bool) -> None:
    process = start(BUILDS_FOR_EVER.replace("RESUMABLE", str(resumable)))
    assert heard(process) == "building"
    assert store.is_busy(STAGE, NAME)
    kill(process)
    assert store.find(STAGE, NAME) is None
    assert list(store.artifacts()) == []
    assert not store.is_busy(STAGE, NAME)
    assert debris(store) == [f"{NAME}.partial"]
    with store.building(STAGE, NAME, resumable=resumable) as build:
        left = [p.name for p in build.folder.iterdir()]
        build.finish({"summary": {}})
    assert left == (["half.txt"] if resumable else [])
    assert debris(store) == []


@pytest.mark.parametrize("moment", ["file_sha256", "write_atomically", "os.rename"])
def test_kill_9_at_each_moment_of_finishing(store: Store, start: Start, moment: str) -> None:
    """Whatever the last completed act was, the output is whole or absent, and the next attempt completes it."""
    process = start(
        f"""
        import sumi_core.stages.store as module
        {"original = module.write_atomically" if moment == "write_atomically" else ""}
        def stop(*arguments):
            {"original(*arguments)" if moment == "write_atomically" else "pass"}
            say("stopped")
            time.sleep(600)
        {"os" if moment == "os.rename" else "module"}.{moment.removeprefix("os.")} = stop
        with store.building("{STAGE}", "{NAME}") as build:
            (build.folder / "a.txt").write_text("a")
            build.finish({{"summary": {{}}}})
        """
    )
    assert heard(process) == "stopped"
    partial = store.root / STAGE / f"{NAME}.partial"
    assert (partial / "manifest.json").exists() == (moment != "file_sha256")
    kill(process)
    assert store.find(STAGE, NAME) is None
    assert list(store.artifacts()) == []
    assert sorted(make(store, b="b").manifest["files"]) == ["b"]


def test_four_at_once_compute_once(store: Store, start: Start, tmp_path: Path) -> None:
    log = tmp_path / "computed"
    code = f"""
    with store.building("{STAGE}", "{NAME}", log=say) as build:
        if build.artifact is None:
            with open({str(log)!r}, "a") as file:
                file.write("x")
            (build.folder / "a.txt").write_text("a")
            time.sleep(0.5)
            build.finish({{"summary": {{"by": os.getpid()}}}})
        say(build.artifact.summary["by"])
    """
    processes = [start(code) for _ in range(4)]
    told = [process.communicate(timeout=60)[0].split("\n") for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert log.read_text() == "x"
    makers = {lines[-2] for lines in told}
    assert makers <= {str(process.pid) for process in processes}
    assert len(makers) == 1
    waited = f"{STAGE} {NAME} is being computed by "
    assert all(line.startswith(waited) for lines in told for line in lines[:-2])


def test_a_waiter_goes_on_when_the_holder_is_killed(store: Store, start: Start) -> None:
    holder = start(BUILDS_FOR_EVER.replace("RESUMABLE", "False"))
    assert heard(holder) == "building"
    waiter = start(
        f"""
        with store.building("{STAGE}", "{NAME}", log=say) as build:
            say(build.artifact)
            build.finish({{"summary": {{}}}})
        """
    )
    assert heard(waiter) == f"{STAGE} {NAME} is being computed by process {holder.pid}; waiting for it"
    kill(holder)
    assert heard(waiter) == "None"
    assert waiter.wait(timeout=60) == 0
    assert store.find(STAGE, NAME) is not None


def test_a_forked_worker_does_not_keep_its_dead_parents_lock(store: Store, start: Start) -> None:
    parent = start(
        f"""
        with store.building("{STAGE}", "{NAME}"):
            worker = os.fork()
            if worker == 0:
                say(os.getpid())
                time.sleep(600)
                os._exit(0)
            time.sleep(600)
        """
    )
    worker = int(heard(parent))
    try:
        assert store.is_busy(STAGE, NAME)  # the parent lives
        kill(parent)
        os.kill(worker, 0)  # the worker lives
        assert not store.is_busy(STAGE, NAME)
    finally:
        os.kill(worker, signal.SIGKILL)


def test_locked_keeps_others_out(store: Store, start: Start, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.lock"
    code = f"""
    from sumi_core.base.locks import locked
    with locked(Path({str(path)!r}), lambda holder: say("waiting")):
        say("in")
    """
    with locked(path):
        other = start(code)
        assert heard(other) == "waiting"
    assert heard(other) == "in"
    with contextlib.suppress(RuntimeError), locked(path):
        raise RuntimeError
    again = start(code)
    assert heard(again) == "in"


# --- one process ------------------------------------------------------------------------------------------------------


def test_an_output_is_made_once_and_found(store: Store) -> None:
    made = make(store, a="alpha", b="beta")
    assert made.folder == store.folder(STAGE, NAME) == store.root / STAGE / NAME
    assert made.summary == {"documents": 3}
    recorded = json.loads((made.folder / "manifest.json").read_text())
    assert recorded == made.manifest
    assert (recorded["stage"], recorded["fingerprint"]) == (STAGE, NAME)
    assert recorded["files"] == {
        "a": {"sha256": file_sha256(made.folder / "a"), "bytes": 5},
        "b": {"sha256": file_sha256(made.folder / "b"), "bytes": 4},
    }
    assert store.find(STAGE, NAME) == made
    assert list(store.artifacts()) == [made]
    with store.building(STAGE, NAME) as build:
        assert build.artifact == made
    assert debris(store) == []


def test_a_summary_reads_the_same_when_made_and_when_found(store: Store) -> None:
    with store.building(STAGE, NAME) as build:
        made = build.finish({"summary": {"steps": (8, 32), "by_step": {8: 1.5}}})
    assert made.summary == {"steps": [8, 32], "by_step": {"8": 1.5}}
    assert store.find(STAGE, NAME) == made


def test_files_in_folders_are_recorded(store: Store) -> None:
    with store.building(STAGE, NAME) as build:
        (build.folder / "plots").mkdir()
        (build.folder / "plots" / "loss.png").write_bytes(b"x")
        made = build.finish({"summary": {}})
    assert list(made.manifest["files"]) == ["plots/loss.png"]


def fail_halfway(store: Store, resumable: bool) -> None:
    with store.building(STAGE, NAME, resumable=resumable) as build:
        (build.folder / "half.txt").write_text("half")
        _ = 1 / 0


def test_a_failed_build_leaves_nothing_or_what_a_resumable_one_needs(store: Store) -> None:
    for resumable, left in ((False, []), (True, [f"{NAME}.partial"])):
        with pytest.raises(ZeroDivisionError):
            fail_halfway(store, resumable)
        assert store.find(STAGE, NAME) is None
        assert debris(store) == left
    with store.building(STAGE, NAME, resumable=True) as build:
        assert (build.folder / "half.txt").read_text() == "half"


def test_a_torn_manifest_of_an_earlier_attempt_is_no_part_of_the_output(store: Store) -> None:
    with store.building(STAGE, NAME, resumable=True) as build:
        (build.folder / ".manifest.json.4711.tmp").write_text('{"half')
        (build.folder / "a.txt").write_text("a")
        made = build.finish({"summary": {}})
    assert list(made.manifest["files"]) == ["a.txt"]
    assert sorted(p.name for p in made.folder.iterdir()) == ["a.txt", "manifest.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"stage": "cor',
        b"[]",
        b'{"files": {}}',
        b'{"summary": {}, "files": {"a": 1}}',
        b'{"summary": {}, "files": {}, "inputs": [1]}',
        b'{"summary": {}, "files": {}, "inputs": {"corpus": 5}}',
        b'{"summary": {}, "files": {}, "provenance": 3}',
        b'{"summary": {}, "files": {}, "experiment": 5}',
        b'{"summary": {}, "files": {}, "started": "x"}',
        b"[" * 200_000,
        b"\xff\xfe",
        b"null",
    ],
)
def test_a_damaged_manifest_is_named_and_never_taken_for_an_output(store: Store, content: bytes) -> None:
    folder = make(store).folder
    (folder / "manifest.json").write_bytes(content)
    message = f"{folder}/manifest.json is damaged; `sumi doctor --fix` sets its folder aside, then run again"
    with pytest.raises(StoreError) as caught:
        store.find(STAGE, NAME)
    assert str(caught.value) == message
    with pytest.raises(StoreError), store.building(STAGE, NAME):
        pytest.fail("the build must not begin")
    assert store.condition(STAGE, NAME).why == message
    assert list(store.artifacts()) == []


def test_verify_names_each_damaged_file(store: Store) -> None:
    made = make(store, same="x", changed="abc", cut="abc", gone="abc")
    assert store.verify(made) == []
    (made.folder / "changed").write_text("abd")
    (made.folder / "cut").write_text("ab")
    (made.folder / "gone").unlink()
    assert sorted(store.verify(made)) == [
        f"{made.folder}/changed differs from its recorded SHA-256",
        f"{made.folder}/cut differs from its recorded SHA-256",
        f"{made.folder}/gone is missing",
    ]


def test_what_a_killed_removal_left_is_made_again(store: Store) -> None:
    folder = make(store, a="a").folder
    (folder / "manifest.json").unlink()  # a removal killed after its first act
    assert store.find(STAGE, NAME) is None
    assert sorted(make(store, b="b").manifest["files"]) == ["b"]
    assert sorted(p.name for p in folder.iterdir()) == ["b", "manifest.json"]


def test_artifacts_come_stage_by_stage_without_debris(store: Store) -> None:
    for stage, name in (("tokenizer", "b" * 16), ("corpus", "c" * 16), ("corpus", "a" * 16)):
        with store.building(stage, name) as build:
            build.finish({"summary": {}})
    half = store.root / "corpus" / ("d" * 16 + ".partial")
    half.mkdir()
    (half / "manifest.json").write_text("{}")
    assert [(a.stage, a.fingerprint[0]) for a in store.artifacts()] == [
        ("corpus", "a"),
        ("corpus", "c"),
        ("tokenizer", "b"),
    ]


def test_failures_are_counted_until_a_success(store: Store) -> None:
    assert store.failure(STAGE, NAME) is None
    with store.building(STAGE, NAME):
        store.record_failure(STAGE, NAME, "demo.uniform", "ValueError: first")
        store.record_failure(STAGE, NAME, "demo.uniform", "ValueError: second")
    failure = store.failure(STAGE, NAME)
    assert failure is not None
    assert (failure["key"], failure["error"], failure["attempts"]) == ("demo.uniform", "ValueError: second", 2)
    assert failure["time"] <= time.time()
    store._failure_path(STAGE, NAME).write_text("torn")
    assert store.failure(STAGE, NAME) is None
    store.record_failure(STAGE, NAME, "demo.uniform", "ValueError: third")
    make(store)
    assert store.failure(STAGE, NAME) is None
    assert debris(store) == []


@pytest.mark.parametrize("resumable", [True, False])
def test_what_became_of_an_output_is_what_became_of_its_last_attempt(store: Store, resumable: bool) -> None:
    def attempt(error: BaseException, told: str | None) -> None:
        with (
            contextlib.suppress(type(error)),
            store.building(STAGE, NAME, resumable=resumable) as build,
        ):
            assert store.condition(STAGE, NAME).state == "running"
            (build.folder / "half").touch()
            if told:
                store.record_failure(STAGE, NAME, "demo", told)
            raise error

    attempt(ValueError(), "first")
    assert store.condition(STAGE, NAME).why == "first (attempt 1)"
    attempt(KeyboardInterrupt(), None)
    assert store.condition(STAGE, NAME).state == "interrupted"
    attempt(ValueError(), "second")
    assert store.condition(STAGE, NAME).why == "second (attempt 2)", "attempts are still counted"
