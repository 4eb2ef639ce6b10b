"""The Python standard library of the running interpreter: about eight million characters of code, always at hand."""

from __future__ import annotations

import hashlib
import os
import platform
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sumi_core.data.sources.source import Document, Source, SourceError

# Tests, vendored packages, tools with a licence or a life of their own, and near-duplicate tables.
_EXCLUDED = {
    "test",
    "tests",
    "idle_test",
    "idlelib",
    "lib2to3",
    "encodings",
    "pydoc_data",
    "turtledemo",
    "ensurepip",
    "site-packages",
    "dist-packages",
    "__pycache__",
    "__phello__",
}


class PythonStdlib(Source):
    """One document a module, its path within the library as id."""

    licence = "PSF-2.0"

    def read(self) -> Iterator[Document]:
        """Modules sorted by path. Raises SourceError when the interpreter brings no sources."""
        root = Path(sysconfig.get_paths()["stdlib"])
        files = _modules(root)
        if not files:
            raise SourceError("corpus.source: this interpreter has no library sources; choose another source")
        for name in files:
            try:
                yield Document(name, (root / name).read_bytes().decode("utf-8"))
            except UnicodeDecodeError:
                self.skip("not UTF-8", name)

    def identity(self) -> dict[str, Any]:
        """The interpreter's version and the digest of the sources, since distributions patch their library."""
        root, digest = Path(sysconfig.get_paths()["stdlib"]), hashlib.sha256()
        for name in _modules(root):
            content = (root / name).read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        return {"python": platform.python_version(), "sha256": digest.hexdigest()}


def _modules(root: Path) -> list[str]:
    """Paths of the modules below ``root``, sorted. Excluded folders are not entered: site-packages may be huge."""
    found: list[str] = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in _EXCLUDED]
        # _sysconfigdata… records the paths and compilers of one machine; it is not library code.
        kept = [name for name in files if name.endswith(".py") and not name.startswith("_sysconfigdata")]
        found += [(Path(folder) / name).relative_to(root).as_posix() for name in kept]
    return sorted(found)
