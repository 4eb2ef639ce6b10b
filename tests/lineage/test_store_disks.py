"""The artifact store on disks that are full, read-only or gone."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sumi_core.base.errors import StoreError
from sumi_core.base.files import is_writable
from sumi_core.base.locks import locked
from sumi_core.stages import store as store_module
from sumi_core.stages.store import Store
from tests.lineage.store_files import NAME, STAGE, debris, make, read_only


def no_space(store: Store) -> str:
    return (
        f"no space is left to write {STAGE} below {store.root}; free some, or name another folder in SUMI_STORE, "
        "and run again"
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a device that is always full")
def test_a_full_disk_while_a_stage_writes(store: Store) -> None:
    def build_on_full_disk() -> None:
        with store.building(STAGE, NAME) as build:
            (build.folder / "a.txt").symlink_to("/dev/full")
            (build.folder / "a.txt").write_text("does not fit")

    with pytest.raises(StoreError) as caught:
        build_on_full_disk()
    assert str(caught.value) == no_space(store)
    assert store.find(STAGE, NAME) is None
    assert debris(store) == []


def build_one_file(store: Store, resumable: bool) -> None:
    with store.building(STAGE, NAME, resumable=resumable) as build:
        (build.folder / "a.txt").write_text("a")
        build.finish({"summary": {}})


@pytest.mark.parametrize("resumable", [False, True])
def test_a_full_disk_while_the_manifest_is_written(
    store: Store, monkeypatch: pytest.MonkeyPatch, resumable: bool
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store_module.os, "fsync", full)
        with pytest.raises(StoreError) as caught:
            build_one_file(store, resumable)
    assert str(caught.value) == no_space(store)
    assert store.find(STAGE, NAME) is None
    left = [p.name for p in (store.root / STAGE).glob("*.partial/*")]
    assert left == (["a.txt"] if resumable else [])
    build_one_file(store, resumable)
    assert store.find(STAGE, NAME) is not None


def test_other_errors_of_the_system_stay_what_they_are(store: Store) -> None:
    with pytest.raises(FileNotFoundError), store.building(STAGE, NAME):
        (store.root / "nowhere").read_text()


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StoreError) as caught, Store(tmp_path / "store").building(STAGE, NAME):
        pytest.fail("the build must not begin")
    assert str(caught.value) == (
        f"cannot write to {tmp_path}/store/{STAGE}/.locks: Not a directory; free space or fix its permissions, "
        "and try again"
    )


def test_a_read_only_store_is_read_and_refuses_work_in_a_sentence(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(store, a="a")
    store.record_failure(STAGE, "f" * 16, "demo", "no such verse")
    with locked(store.root / "other.lock"):
        pass
    assert is_writable(store.root)
    acts: list[tuple[Callable[[], contextlib.AbstractContextManager[object]], Path]] = [
        (lambda: store.building(STAGE, "e" * 16), store.root / STAGE / ".locks"),
        (lambda: store.lock_if_free(STAGE, "e" * 16), store.root / STAGE / ".locks"),
        (lambda: locked(store.root / "other.lock"), store.root),
        (lambda: locked(store.root / "new" / "a.lock"), store.root / "new"),
    ]
    with monkeypatch.context() as patch:
        read_only(patch, store.root)
        assert not is_writable(store.root)
        assert not is_writable(store.root / "not" / "there" / "yet")
        assert store.condition(STAGE, NAME).artifact == made
        assert store.condition(STAGE, "f" * 16).why == "no such verse (attempt 1)"
        assert store.condition(STAGE, "e" * 16).state == "absent"
        assert [artifact.fingerprint for artifact in store.artifacts()] == [NAME]
        for act, folder in acts:
            with pytest.raises(StoreError) as caught, act():
                pytest.fail("nothing may begin")
            assert str(caught.value) == (
                f"cannot write to {folder}: Read-only file system; free space or fix its permissions, and try again"
            )


def test_an_error_of_the_locked_work_is_not_taken_for_one_of_the_lock(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), locked(tmp_path / "a.lock"):
        raise PermissionError(errno.EACCES, "Permission denied", "elsewhere")


def test_a_file_system_without_locks_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    path = store.root / STAGE / ".locks" / f"{NAME}.lock"
    with pytest.raises(StoreError) as caught, store.building(STAGE, NAME):
        pytest.fail("the build must not begin")
    assert str(caught.value) == (
        f"{path} cannot be locked: No locks available; keep .sumi and SUMI_STORE on a file system with locks"
    )
    assert not store.is_busy(STAGE, NAME)
