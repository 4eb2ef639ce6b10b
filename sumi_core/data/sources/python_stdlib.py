"""The Python standard library of the running interpreter: about eight million characters of code, always at hand."""

from __future__ import annotations

import hashlib
import platform
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sumi_core.data.sources import Document, Source, SourceError

# Tests, vendored packages, tools with a licence or a life of their own, and near-duplicate tables.
_EXCLUDED = frozenset(
    "test tests idle_test idlelib lib2to3 encodings pydoc_data turtledemo ensurepip "
    "site-packages dist-packages __pycache__ __phello__".split()
)


class PythonStdlib(Source):
    """One document a module, its path within the library as id."""

    licence = "PSF-2.0"

    def documents(self) -> Iterator[Document]:
        """Modules sorted by path."""
        root = Path(sysconfig.get_paths()["stdlib"])
        files = [path for path in sorted(root.rglob("*.py")) if _EXCLUDED.isdisjoint(path.relative_to(root).parts[:-1])]
        if not files:
            raise SourceError(
                f"corpus.source: this interpreter has no library sources in {root}; choose another source"
            )
        for path in files:
            try:
                text = path.read_bytes().decode("utf-8")
            except UnicodeDecodeError:
                self.skipped["not UTF-8"] += 1
                continue
            if not text.strip():
                self.skipped["empty file"] += 1
                continue
            yield Document(path.relative_to(root).as_posix(), text)

    def identity(self) -> dict[str, Any]:
        """The interpreter's version and the digest of the documents, since distributions patch their library."""
        digest = hashlib.sha256()
        for document in PythonStdlib(self.options).documents():
            digest.update(f"{document.id}\0{document.text}\0".encode())
        return {"python": platform.python_version(), "sha256": digest.hexdigest()}
