"""The artifact store: finished outputs by stage and fingerprint, never half-written, never computed twice.

    <root>/<stage>/<fingerprint>/             whole: holds manifest.json, which is written last
    <root>/<stage>/<fingerprint>.partial/     work in progress, or debris of a run that died
    <root>/<stage>/.locks/<fingerprint>.lock  who works on it (flock; freed by the kernel when its holder dies)

A build happens in the partial folder under the lock and is renamed into place, so a reader sees all or nothing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sumi_core.base.errors import StoreError
from sumi_core.base.files import cannot_write, json_text, remove_torn, write_atomically
from sumi_core.base.hashing import file_sha256
from sumi_core.base.locks import is_held, locked, locked_if_free

MANIFEST = "manifest.json"
_FAILURE = ".failure.json"
_NO_SPACE, _NO_RIGHT = (errno.ENOSPC, errno.EDQUOT), (errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class Artifact:
    """A whole output of a stage."""

    stage: str
    fingerprint: str
    folder: Path
    manifest: dict[str, Any]

    @property
    def place(self) -> str:
        """Where it is below its store, wherever that is moved: ``evaluation/0123456789abcdef``."""
        return f"{self.stage}/{self.fingerprint}"

    @property
    def summary(self) -> dict[str, Any]:
        """What the stage reported of itself."""
        return dict(self.manifest["summary"])


@dataclass(frozen=True)
class Condition:
    """What is there of an output, and in words why. ``artifact`` is the output when it is whole."""

    state: Literal["whole", "damaged", "running", "failed", "interrupted", "absent"]
    why: str = ""
    artifact: Artifact | None = None


class Store:
    """Outputs below one folder.

    >>> store = Store(Path(".sumi/store"))
    >>> with store.building("corpus", "0123456789abcdef") as build:     # doctest: +SKIP
    ...     if build.artifact is None:                                  # not finished meanwhile
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
        except (ValueError, RecursionError):  # no JSON, or no UTF-8
            manifest = None
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}; fix its permissions or its disk") from None
        if not is_manifest(manifest):
            raise StoreError(f"{path} is damaged; `sumi doctor --fix` sets its folder aside, then run again")
        return Artifact(stage, fingerprint, folder, manifest)

    def artifacts(self) -> Iterator[Artifact]:
        """Every whole output, stage by stage. One whose manifest is damaged is not whole; ``find`` says so."""
        for manifest in sorted(self.root.glob(f"*/*/{MANIFEST}")):
            if manifest.parent.suffix:
                continue
            with contextlib.suppress(StoreError):
                found = self.find(manifest.parent.parent.name, manifest.parent.name)
                if found is not None:
                    yield found

    def partial(self, stage: str, fingerprint: str) -> Path:
        """Where an output is while it is built, and where an interrupted build left it; ``is_busy`` tells which."""
        return self.root / stage / f"{fingerprint}.partial"

    def is_busy(self, stage: str, fingerprint: str) -> bool:
        """Whether some process holds the lock of this output right now. Writes nothing; a lock that may not be read
        tells nothing, and counts as free."""
        return is_held(self._lock_path(stage, fingerprint))

    def condition(self, stage: str, fingerprint: str) -> Condition:
        """What is there of an output. Never raises: damage is a condition."""
        try:
            artifact = self.find(stage, fingerprint)
        except StoreError as error:
            return Condition("damaged", str(error))
        if artifact is not None:
            return Condition("whole", artifact=artifact)
        if self.is_busy(stage, fingerprint):
            return Condition("running", "being computed now")
        failure = self.failure(stage, fingerprint)
        if failure and "retried" not in failure:
            return Condition("failed", f"{failure['error']} (attempt {failure['attempts']})")
        if failure or self.partial(stage, fingerprint).exists():
            return Condition("interrupted", "an earlier run was interrupted")
        return Condition("absent")

    @contextlib.contextmanager
    def lock_if_free(self, stage: str, fingerprint: str) -> Iterator[bool]:
        """Hold an output's lock for the body; yield whether it was free. Raises StoreError."""
        with locked_if_free(self._lock_path(stage, fingerprint)) as ours:
            yield ours

    @contextlib.contextmanager
    def building(
        self, stage: str, fingerprint: str, *, resumable: bool = False, log: Callable[[str], None] = lambda _: None
    ) -> Iterator[Build]:
        """Hold the output's lock. If another process holds it, wait and then see what it made.

        A resumable stage finds in its folder what an interrupted run left; any other starts from an empty folder.
        """
        existing = self.find(stage, fingerprint)
        if existing is not None:
            yield Build(self, stage, fingerprint, existing)
            return
        with locked(
            self._lock_path(stage, fingerprint),
            lambda holder: log(f"{stage} {fingerprint} is being computed by {holder}; waiting for it"),
        ):
            build = Build(self, stage, fingerprint, self.find(stage, fingerprint))
            try:
                if build.artifact is None:
                    if build.folder.exists() and not resumable:
                        shutil.rmtree(build.folder)
                    build.folder.mkdir(exist_ok=True)
                    self._mark_retried(stage, fingerprint)
                yield build
            except BaseException as error:
                if build.artifact is None and not resumable:  # of no use to anyone, and a full disk needs the space
                    shutil.rmtree(build.folder, ignore_errors=True)
                if isinstance(error, OSError) and error.errno in _NO_SPACE:
                    raise StoreError(
                        f"no space is left to write {stage} below {self.root}; free some, or name another folder in "
                        "SUMI_STORE, and run again"
                    ) from None
                if isinstance(error, OSError) and error.errno in _NO_RIGHT and _is_below(error.filename, build.folder):
                    raise cannot_write(Path(error.filename), error) from None
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
            write_atomically(self._failure_path(stage, fingerprint), json_text(record, None) + "\n")

    def _mark_retried(self, stage: str, fingerprint: str) -> None:
        """Record that a new attempt began after the last failure: that one is no longer what became of the output."""
        if failure := self.failure(stage, fingerprint):
            with contextlib.suppress(OSError):
                record = {**failure, "retried": time.time()}
                write_atomically(self._failure_path(stage, fingerprint), json_text(record, None) + "\n")

    def failure(self, stage: str, fingerprint: str) -> dict[str, Any] | None:
        """The last failure since the last success: ``{key, error, time, attempts}``, or None. ``retried``, if it is
        there, is the time of a later attempt: one that failed would have a record of its own, so it was interrupted
        or is under way."""
        try:
            record = json.loads(self._failure_path(stage, fingerprint).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) and record.keys() >= {"key", "error", "attempts"} else None

    def failures(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Stage, fingerprint and record of every output whose last attempt failed."""
        for path in sorted(self.root.glob(f"*/*{_FAILURE}")):
            stage, fingerprint = path.parent.name, path.name.removesuffix(_FAILURE)
            if (failure := self.failure(stage, fingerprint)) is not None:
                yield stage, fingerprint, failure

    def _failure_path(self, stage: str, fingerprint: str) -> Path:
        return self.root / stage / f"{fingerprint}{_FAILURE}"

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

    def _lock_path(self, stage: str, fingerprint: str) -> Path:
        return self.root / stage / ".locks" / f"{fingerprint}.lock"


def is_manifest(data: Any) -> bool:
    """Whether parsed JSON has what every reader of a manifest relies on, and in the types it relies on."""
    if not isinstance(data, dict) or not isinstance(data.get("summary"), dict):
        return False
    parts = ("files", "inputs", "experiment", "identity", "provenance")
    if not all(isinstance(data.get(part, {}), dict) for part in parts) or "files" not in data:
        return False
    if not all(isinstance(data.get(number, 0.0), int | float) for number in ("started", "seconds")):
        return False
    return all(isinstance(own, str) for own in data.get("inputs", {}).values()) and all(
        isinstance(file, dict) and isinstance(file.get("sha256"), str) and isinstance(file.get("bytes"), int)
        for file in data["files"].values()
    )


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
        return self.store.partial(self.stage, self.fingerprint)

    def finish(self, manifest: dict[str, Any]) -> Artifact:
        """Record every file with its SHA-256, write the manifest last, and rename the folder into place."""
        remove_torn(self.folder)
        files = {
            str(path.relative_to(self.folder)): {"sha256": file_sha256(path), "bytes": path.stat().st_size}
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.name != MANIFEST
        }
        manifest = {"stage": self.stage, "fingerprint": self.fingerprint, **manifest, "files": files}
        text = json_text(manifest) + "\n"
        write_atomically(self.folder / MANIFEST, text)
        target = self.store.folder(self.stage, self.fingerprint)
        if target.exists():  # a folder without a manifest: debris of an interrupted removal
            shutil.rmtree(target)
        os.rename(self.folder, target)
        self.store._failure_path(self.stage, self.fingerprint).unlink(missing_ok=True)
        self.artifact = Artifact(self.stage, self.fingerprint, target, json.loads(text))  # as it will be found
        return self.artifact


def _is_below(path: object, folder: Path) -> bool:
    return isinstance(path, str | os.PathLike) and Path(path).is_relative_to(folder)
