"""The noise schedule under which a model's bound has the least variance, from what its evaluation measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sumi_core.base.errors import SumiError
from sumi_core.base.tables import read_table
from sumi_core.corruption import CLOCKS
from sumi_core.corruption.fitted import fit_profile


class FitError(SumiError, ValueError):
    """An evaluation that no schedule can be fitted to. One sentence: which, why, what to name instead."""


def fitted_schedule(evaluation: Path, clock: Mapping[str, Any] | None, name: str) -> dict[str, list[float]]:
    """Options of the schedule ``fitted`` from the folder of an evaluation. clock: of the model, as its config has it.

    Raises FitError, naming ``name``, where there is no curve by noise level."""
    if clock is not None and not CLOCKS.get(clock["name"]).one_level:
        raise FitError(
            f"'{name}' has clock '{clock['name']}', under which a text has many levels at once; name one with shared"
        )
    curve = evaluation / "loss_by_level.parquet"
    if not curve.is_file():
        raise FitError(f"'{name}' has an exact likelihood, which has no noise levels; name a diffusion model")
    table = read_table(curve, columns=["noise", "per_alpha_square"])
    try:
        return fit_profile({str(column): values for column, values in table.items()})
    except ValueError as error:
        raise FitError(f"'{name}': {error}") from None
