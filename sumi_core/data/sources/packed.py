"""Files that may be packed: recognised by their first bytes, whatever they are called, and read as what they hold."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from sumi_core.base.text import reason_of
from sumi_core.data.sources.source import SourceError

#: Packing → how its files are called, lower case.
SUFFIXES = {
    "gzip": (".gz", ".gzip"),
    "bzip2": (".bz2",),
    "xz": (".xz",),
    "Zstandard": (".zst", ".zstd"),
}
_FIRST_BYTES = {
    "gzip": b"\x1f\x8b",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ\x00",
    "Zstandard": b"\x28\xb5\x2f\xfd",
    "zip": b"PK\x03\x04",
    "7z": b"7z\xbc\xaf\x27\x1c",
    "LZ4": b"\x04\x22\x4d\x18",
}
_BZIP2_BLOCKS = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")  # bytes 4 to 10: "BZh" alone could begin a text
_TAR = slice(257, 262)  # where a tar archive says "ustar"


def packing(path: Path) -> str | None:
    """How a file is packed by its first bytes: ``gzip``, ``bzip2``, ``xz``, ``Zstandard``, or ``zip``, ``7z``, ``LZ4``
    and ``tar``, which are not read; None for a file that is not packed."""
    with path.open("rb") as file:
        return _kind(file.read(_TAR.stop))


def unpacked_name(name: str) -> str:
    """A file's name in lower case, without the end that says how it is packed: ``a.JSONL.gz`` → ``a.jsonl``."""
    lower = name.lower()
    return next((lower.removesuffix(end) for ends in SUFFIXES.values() for end in ends if lower.endswith(end)), lower)


@contextlib.contextmanager
def open_unpacked(name: str, path: Path) -> Iterator[IO[bytes]]:
    """The content of a file, unpacked on the way. ``name`` is how a complaint calls it.

    Raises SourceError for an archive, for a packing that is not read, and for a file that cannot be unpacked."""
    kind = packing(path)
    promised = next((kind for kind, ends in SUFFIXES.items() if name.lower().endswith(ends)), None)
    if kind not in (*SUFFIXES, None):
        raise SourceError(f"corpus.source.paths: {name} is a {kind} archive, which is not read; {_remedy()}")
    if promised is not None and kind != promised and path.stat().st_size:
        problem = "its first bytes are others" if kind is None else f"but packed with {kind}"
        raise SourceError(
            f"corpus.source.paths: {name} is not a complete {promised} file ({problem}); rename it, or pack or copy it "
            "again"
        )
    if kind is None:
        with path.open("rb") as file:
            yield file
        return
    try:
        with _opened(path, kind) as file:
            if file.peek(_TAR.stop)[_TAR] == b"ustar":
                raise SourceError(
                    f"corpus.source.paths: {name} is a packed tar archive, which is not read; {_remedy()}"
                )
            yield file
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise SourceError(
            f"corpus.source.paths: {name} is not a complete {kind} file ({reason_of(error)}); pack or copy it again"
        ) from None


def _kind(first: bytes) -> str | None:
    if first[_TAR] == b"ustar":
        return "tar"
    for kind, begins in _FIRST_BYTES.items():
        if first.startswith(begins) and (kind != "bzip2" or first[4:10] in _BZIP2_BLOCKS):
            return kind
    return None


def _opened(path: Path, kind: str) -> io.BufferedReader:
    if kind == "Zstandard":  # not in the standard library; Arrow's stream is a raw file in all but name
        import pyarrow as pa

        stream: Any = pa.CompressedInputStream(pa.OSFile(str(path), "rb"), "zstd")
    else:
        opener: Any = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}[kind]
        stream = opener(path)
    return io.BufferedReader(stream)


def _remedy() -> str:
    ends = [end for end, *_ in SUFFIXES.values()]
    return f"unpack it, or pack its files one by one as {', '.join(ends[:-1])} or {ends[-1]}"
