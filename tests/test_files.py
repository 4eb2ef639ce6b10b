"""Files are whole or not there, whatever interrupts their writing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from sumi_core.base import files
from sumi_core.base.files import json_text, remove_torn, replacing, write_atomically


def test_records_hold_what_json_has_and_null_for_what_it_has_not() -> None:
    record = {"a": [math.nan, 1.5, (math.inf,)], "b": {"c": -math.inf, "d": True, "e": "NaN"}, "µ": None}
    for indent in (1, None):
        read = json.loads(json_text(record, indent), parse_constant=pytest.fail)
        assert read == {"a": [None, 1.5, [None]], "b": {"c": None, "d": True, "e": "NaN"}, "µ": None}
    with pytest.raises(TypeError):
        json_text({"a": {1, 2}})


def test_only_these_write_json_by_themselves() -> None:
    """Records are written by ``json_text``, so that no NaN gets into one; what else writes JSON holds no figures."""
    root = Path(__file__).parents[1]
    found = {
        path.relative_to(root).as_posix()
        for package in ("sumi_core", "pipelines", "assets")
        for path in (root / package).rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "json.dump" in line and "allow_nan=False" not in line
    }
    assert found == {
        "pipelines/commands/dev.py",
        "pipelines/commands/fit_schedule.py",
        "pipelines/commands/schema.py",
        "pipelines/schedules.py",
        "sumi_core/base/forking.py",
        "sumi_core/data/shard_building.py",
        "sumi_core/data/shards.py",
        "sumi_core/data/tokenization.py",
        "sumi_core/data/tokenizers/tokenizer.py",
        "sumi_core/experiments/reference.py",
        "sumi_core/lineage/changed_cells.py",
        "sumi_core/lineage/tracking.py",
        "sumi_core/stages/evaluation.py",
        "sumi_core/trainer/request.py",
        "sumi_core/training/recording.py",
    }


def test_what_is_written_beside_a_file_cannot_be_foreseen(tmp_path: Path) -> None:
    """A link in its place would be written through."""
    names = set()
    for _ in range(3):
        with replacing(tmp_path / "a.json") as temporary:
            names.add(temporary.name)
            assert temporary.is_file()
            assert not temporary.is_symlink()
            temporary.write_text("{}")
    assert len(names) == 3
    (tmp_path / "plain").touch()
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "plain").stat().st_mode, "others may read a shared store"


def test_a_name_that_is_taken_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: "0")
    (tmp_path / ".a.json.0.tmp").symlink_to(tmp_path / "precious")
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "a.json", "{}")
    assert not (tmp_path / "precious").exists()


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
