"""The artifact store: finished outputs by stage and fingerprint, never half-written, never computed twice.

    <root>/<stage>/<fingerprint>/             whole: holds manifest.json, which is written last
    <root>/<stage>/<fingerprint>.partial/     work in progress, or debris of a run that died
    <root>/<stage>/.locks/<fingerprint>.lock  who works on it (flock; freed by the kernel when its holder dies)

A build happens in the partial folder under the lock and is renamed into place, so a reader sees all or nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sumi_core.errors import SumiError
from sumi_core.lineage.fingerprint import file_sha256

MANIFEST = "manifest.json"


class StoreError(SumiError, RuntimeError):
    """The store is damaged or cannot be written. One sentence with the path and what to do."""


@dataclass(frozen=True)
class Artifact:
    """A whole output of a stage."""

    stage: str
    fingerprint: str
    folder: Path
    manifest: dict[str, Any]

    @property
    def summary(self) -> dict[str, Any]:
        """What the stage reported of itself."""
        return dict(self.manifest["summary"])


class Store:
    """Outputs below one folder.

    >>> store = Store(Path(".sumi/store"))
    >>> with store.building("corpus", "0123456789abcdef") as build:     # doctest: +SKIP
    ...     if build.artifact is None:                                  # nobody finished it meanwhile
    ...         (build.folder / "train.txt").write_text("…")
    ...         build.finish({"summary": {}})
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def folder(self, stage: str, fingerprint: str) -> Path:
        """Where a whole output is, or would be."""
        return self.root / stage / fingerprint

    def find(self, stage: str, fingerprint: str) -> Artifact | None:
        """The whole output, or None. Raises StoreError when its manifest is unreadable."""
        folder = self.folder(stage, fingerprint)
        path = folder / MANIFEST
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:  # no JSON, or no UTF-8
            manifest = None
        if not isinstance(manifest, dict) or not manifest.keys() >= {"summary", "files"}:
            raise StoreError(f"{path} is damaged; delete the folder {folder} and run again")
        return Artifact(stage, fingerprint, folder, manifest)

    def artifacts(self) -> Iterator[Artifact]:
        """Every whole output, stage by stage."""
        for manifest in sorted(self.root.glob(f"*/*/{MANIFEST}")):
            if manifest.parent.suffix:
                continue
            found = self.find(manifest.parent.parent.name, manifest.parent.name)
            if found is not None:
                yield found

    def partial_folders(self) -> list[Path]:
        """Work in progress or debris; ``is_busy`` tells which."""
        return sorted(p for p in self.root.glob("*/*.partial") if p.is_dir())

    def is_busy(self, stage: str, fingerprint: str) -> bool:
        """Whether some process holds the lock of this output right now."""
        path = self._lock_path(stage, fingerprint)
        if not path.exists():
            return False
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    @contextlib.contextmanager
    def building(
        self, stage: str, fingerprint: str, *, resumable: bool = False, log: Callable[[str], None] = lambda _: None
    ) -> Iterator[Build]:
        """Hold the output's lock. If somebody else holds it, wait and then see what they made.

        A resumable stage finds in its folder what an interrupted run left; any other starts from an empty folder.
        """
        existing = self.find(stage, fingerprint)
        if existing is not None:
            yield Build(self, stage, fingerprint, existing)
            return
        path = self._lock_path(stage, fingerprint)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = path.open("a+")
        except OSError as error:
            raise StoreError(
                f"cannot write to {path.parent}: {error.strerror}; free space or fix its permissions"
            ) from None
        with lock:
            flock_patiently(
                lock, lambda: log(f"{stage} {fingerprint} is being computed by {_holder(lock)}; waiting for it")
            )
            build = Build(self, stage, fingerprint, self.find(stage, fingerprint))
            try:
                if build.artifact is None:
                    _write_holder(lock)
                    if build.folder.exists() and not resumable:
                        shutil.rmtree(build.folder)
                    build.folder.mkdir(exist_ok=True)
                yield build
            except BaseException as error:
                if build.artifact is None and not resumable:  # of no use to anyone, and a full disk needs the space
                    shutil.rmtree(build.folder, ignore_errors=True)
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise StoreError(
                        f"no space is left to write {stage} below {self.root}; free some, or name another folder in "
                        "SUMI_STORE, and run again"
                    ) from None
                raise

    def record_failure(self, stage: str, fingerprint: str, key: str, error: str) -> None:
        """Remember that an attempt failed, and why; forgotten when one succeeds."""
        earlier = self.failure(stage, fingerprint)
        record = {
            "key": key,
            "error": error,
            "time": time.time(),
            "attempts": (earlier or {"attempts": 0})["attempts"] + 1,
        }
        with contextlib.suppress(OSError):  # a full disk is itself a likely failure, and must not hide the first one
            write_atomically(self._failure_path(stage, fingerprint), json.dumps(record) + "\n")

    def failure(self, stage: str, fingerprint: str) -> dict[str, Any] | None:
        """The last failure since the last success: ``{key, error, time, attempts}``, or None."""
        try:
            record = json.loads(self._failure_path(stage, fingerprint).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return record if isinstance(record, dict) and "attempts" in record else None

    def _failure_path(self, stage: str, fingerprint: str) -> Path:
        return self.root / stage / f"{fingerprint}.failure.json"

    def verify(self, artifact: Artifact) -> list[str]:
        """Files that are missing or differ from their recorded SHA-256, one sentence each."""
        wrong = []
        for name, recorded in artifact.manifest["files"].items():
            path = artifact.folder / name
            if not path.is_file():
                wrong.append(f"{path} is missing")
            elif path.stat().st_size != recorded["bytes"] or file_sha256(path) != recorded["sha256"]:
                wrong.append(f"{path} differs from its recorded SHA-256")
        return wrong

    def remove(self, stage: str, fingerprint: str) -> None:
        """Delete a whole output: manifest first, so that a killed removal leaves debris and no half output."""
        folder = self.folder(stage, fingerprint)
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def _lock_path(self, stage: str, fingerprint: str) -> Path:
        return self.root / stage / ".locks" / f"{fingerprint}.lock"


@dataclass
class Build:
    """A stage's right to write one output. ``artifact`` is set when it is already whole."""

    store: Store
    stage: str
    fingerprint: str
    artifact: Artifact | None

    @property
    def folder(self) -> Path:
        """The partial folder to write into."""
        whole = self.store.folder(self.stage, self.fingerprint)
        return whole.with_name(whole.name + ".partial")

    def finish(self, manifest: dict[str, Any]) -> Artifact:
        """Record every file with its SHA-256, write the manifest last, and rename the folder into place."""
        for torn in self.folder.glob(f".{MANIFEST}.*.tmp"):  # an earlier attempt was killed while it wrote this
            torn.unlink()
        files = {
            str(path.relative_to(self.folder)): {"sha256": file_sha256(path), "bytes": path.stat().st_size}
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.name != MANIFEST
        }
        manifest = {"stage": self.stage, "fingerprint": self.fingerprint, **manifest, "files": files}
        text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
        write_atomically(self.folder / MANIFEST, text)
        target = self.store.folder(self.stage, self.fingerprint)
        if target.exists():  # a folder without a manifest: debris of an interrupted removal
            shutil.rmtree(target)
        os.rename(self.folder, target)
        self.store._failure_path(self.stage, self.fingerprint).unlink(missing_ok=True)
        self.artifact = Artifact(self.stage, self.fingerprint, target, json.loads(text))  # as it will be found
        return self.artifact


def write_atomically(path: Path, text: str) -> None:
    """Write a small text file so that a reader, or a crash, sees the old or the new content and nothing between."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


# A forked child (a worker process) shares its parent's locks and would hold them when the parent is long dead.
_lock_files: weakref.WeakSet[IO[str]] = weakref.WeakSet()


def _let_go_in_child() -> None:
    for file in list(_lock_files):
        file.close()


os.register_at_fork(after_in_child=_let_go_in_child)


def flock_patiently(file: IO[str], on_wait: Callable[[], None]) -> None:
    """Take an exclusive lock, calling ``on_wait`` once if it is held. Interruptible, unlike a blocking flock in C."""
    _lock_files.add(file)
    waited = False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not waited:
                on_wait()
                waited = True
            time.sleep(0.2)


@contextlib.contextmanager
def locked(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock file at ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        flock_patiently(file, on_wait)
        yield


def _write_holder(file: IO[str]) -> None:
    file.seek(0)
    file.truncate()
    file.write(f"process {os.getpid()}")
    file.flush()


def _holder(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip() or "another process"
