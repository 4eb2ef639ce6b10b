"""Tables of the store that are not what they were."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from sumi_core.base.tables import TableError, read_table


def test_a_table_is_read_whole_or_by_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pd.DataFrame({"a": [1, 2], "b": [3, 4]}).to_parquet(path)
    assert list(read_table(path)) == ["a", "b"]
    assert read_table(path, ["b"])["b"].tolist() == [3, 4]


@pytest.mark.parametrize("harm", ["missing", "cut", "another"])
def test_a_table_that_cannot_be_read_is_named(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "t.parquet"
    if harm != "missing":
        pd.DataFrame({"a": range(1000)}).to_parquet(path)
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(TableError) as caught:
        read_table(path, ["b"])
    assert str(caught.value).startswith(f"{path} is missing or damaged (")
    assert "doctor --fix" in str(caught.value)
