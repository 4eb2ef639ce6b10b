"""Tables for papers: a DataFrame as a LaTeX tabular with booktabs rules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sumi_core.base.text import with_error

if TYPE_CHECKING:
    import pandas as pd

#: The column that holds the standard error of a column, where its name is not ``<column>_stderr``.
_ERRORS = {"bits_per_byte": ("bits_per_byte_stderr", "stderr")}
_COLUMNS = ("name", "seeds", "bits_per_byte", "difference", "p_adjusted", "rank")
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "≤": r"$\leq$",
    "±": r"$\pm$",
    "−": r"$-$",
    "–": "--",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def to_latex(
    table: pd.DataFrame, columns: Sequence[str] | Mapping[str, str] | None = None, *, caption: str = "", label: str = ""
) -> str:
    r"""A table as LaTeX source; ``\usepackage{booktabs}`` is all it needs.

    columns: which to show, in order; a mapping also gives their headings. Default: of a comparison, name, seeds, bits
    per byte, difference, p and rank, as far as they hold anything; of another table, every column that is not the
    error of another. A number with a column ``<name>_stderr`` (of a comparison's bits per byte: ``stderr``) is set as
    value ± error; bits per byte carry ≤ or = where the table has a column ``exact``. Yardsticks are in italics. With a
    caption or a label the tabular stands in a ``table`` environment.

    >>> import pandas as pd
    >>> print(to_latex(pd.DataFrame({"name": ["a_b"], "loss": [1.25], "loss_stderr": [0.5]})))
    \begin{tabular}{lr}
    \toprule
    name & loss \\
    \midrule
    a\_b & $1.250 \pm 0.500$ \\
    \bottomrule
    \end{tabular}
    <BLANKLINE>

    Raises ValueError for a column that the table lacks.
    """
    if table.index.name is not None:
        table = table.reset_index()
    headings = _headings(table, columns)
    numeric = [_is_numeric(table[column]) for column in headings]
    lines = [
        f"\\begin{{tabular}}{{{''.join('r' if own else 'l' for own in numeric)}}}",
        r"\toprule",
        _line(escape_latex(heading) for heading in headings.values()),
        r"\midrule",
        *(_line(_cell(row, column) for column in headings) for row in table.to_dict("records")),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if caption or label:
        above = [f"\\caption{{{escape_latex(caption)}}}"] if caption else []
        above += [f"\\label{{{label}}}"] if label else []
        lines = [r"\begin{table}", r"\centering", *above, *lines, r"\end{table}"]
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """Plain text as LaTeX source that prints it."""
    return "".join(_ESCAPES.get(character, character) for character in text)


def _headings(table: pd.DataFrame, columns: Sequence[str] | Mapping[str, str] | None) -> dict[str, str]:
    """Column → heading."""
    if columns is None:
        errors = {error for column in table.columns for error in _error_columns(str(column))}
        names = [str(column) for column in table.columns if column not in errors]
        if {"kind", *_COLUMNS} <= {*table.columns}:
            names = [name for name in _COLUMNS if table[name].notna().any()]
        columns = names
    if missing := [column for column in columns if column not in table.columns]:
        raise ValueError(f"the table has no column {', '.join(missing)}; it has {', '.join(map(str, table.columns))}")
    return dict(columns) if isinstance(columns, Mapping) else {name: name.replace("_", " ") for name in columns}


def _error_columns(column: str) -> tuple[str, ...]:
    return _ERRORS.get(column, (f"{column}_stderr",))


def _is_numeric(values: pd.Series[Any]) -> bool:
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    return is_numeric_dtype(values) and not is_bool_dtype(values)


def _line(cells: Any) -> str:
    return " & ".join(cells) + r" \\"


def _cell(row: Mapping[Any, Any], column: str) -> str:
    value = row[column]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "--"
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = escape_latex(str(value))
        return f"\\emph{{{text}}}" if column == "name" and row.get("kind") == "yardstick" else text
    if isinstance(value, int) or (value.is_integer() and column in ("seeds", "rank", "seed")):
        return str(int(value))
    error = next((row[name] for name in _error_columns(column) if name in row), None)
    exact = row.get("exact") if column == "bits_per_byte" else None
    sign = "" if exact is None else "=" if exact else "≤"
    return _formula(with_error(value, error, sign))


def _formula(shown: str) -> str:
    """``≤ 2.313 ± 0.012`` as a formula."""
    return "$" + shown.replace("≤", r"\leq").replace("±", r"\pm") + "$"
