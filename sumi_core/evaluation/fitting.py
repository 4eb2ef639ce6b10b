"""The noise schedule under which a model's bound has the least variance, from what its evaluation measured."""

from __future__ import annotations

from sumi_core.corruption import CLOCKS
from sumi_core.corruption.fitted import fit_profile
from sumi_core.errors import SumiError
from sumi_core.lineage.store import Artifact
from sumi_core.tables import read_table


class FitError(SumiError, ValueError):
    """An evaluation that no schedule can be fitted to. One sentence: which, why, what to name instead."""


def fitted_schedule(evaluation: Artifact, name: str) -> dict[str, list[float]]:
    """Options of the schedule ``fitted``. Raises FitError, naming ``name``, where there is no curve by noise level."""
    clock = evaluation.manifest["experiment"]["clock"]
    if clock is not None and not CLOCKS.get(clock["name"]).one_level:
        raise FitError(
            f"'{name}' has clock '{clock['name']}', under which a text has many levels at once; name one with shared"
        )
    curve = evaluation.folder / "loss_by_level.parquet"
    if not curve.is_file():
        raise FitError(f"'{name}' has an exact likelihood, which has no noise levels; name a diffusion model")
    table = read_table(curve, columns=["noise", "per_alpha_square"])
    try:
        return fit_profile({str(column): values for column, values in table.items()})
    except ValueError as error:
        raise FitError(f"'{name}': {error}") from None
