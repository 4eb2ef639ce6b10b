"""Files are whole or not there, whatever interrupts their writing."""

from __future__ import annotations

from pathlib import Path

import pytest

from sumi_core.base import files
from sumi_core.base.files import remove_torn, replacing, write_atomically


def test_write_atomically_keeps_the_old_text_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, "old")
    write_atomically(path, "new")
    assert path.read_text() == "new"

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "newer")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_what_a_failing_body_wrote_does_not_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_a_file_can_be_named_after_its_content(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.bin", lambda written: f"a-{written.read_bytes().hex()}.bin") as temporary:
        temporary.write_bytes(b"\x01\xff")
    assert [p.name for p in tmp_path.iterdir()] == ["a-01ff.bin"]


def test_only_leftovers_of_killed_writes_are_removed(tmp_path: Path) -> None:
    for name in (".a.json.123.tmp", "a.json", ".hidden", "b.tmp"):
        (tmp_path / name).touch()
    remove_torn(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hidden", "a.json", "b.tmp"]
