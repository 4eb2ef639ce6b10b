"""Tables that stages leave in the store, read back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sumi_core.base.errors import SumiError
from sumi_core.base.text import reason_of

if TYPE_CHECKING:
    import pandas as pd


class TableError(SumiError, ValueError):
    """A table that is missing, damaged or not the one it should be."""


def read_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A Parquet file, or these columns of it. Raises TableError, naming it, when it cannot be read."""
    import pandas as pd

    try:
        return pd.read_parquet(path, columns=list(columns) if columns else None)
    except (OSError, ValueError) as error:  # pyarrow's own errors are either
        remedy = "`sumi doctor --fix` sets its output aside, then run again"
        problem = f"{path} is missing or damaged ({reason_of(error)}); {remedy}"
        raise TableError(problem) from None
