"""Objectives whose minimum is p(x_i | z), the posterior that sees its own noisy token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sumi_core.corruption import PARAMETERISATIONS
from sumi_core.corruption.parameterisations import Posterior
from sumi_core.objectives.diffusion import Diffusion


class PosteriorObjective(Diffusion):
    """Refuses any parameterisation but ``posterior``: read otherwise, what it learns would be another model."""

    def __init__(self, options: Diffusion.Options, **context: Any) -> None:
        super().__init__(options, **context)
        if not isinstance(self.process.parameterisation, Posterior):
            raise ValueError(
                f"objective {type(self).__name__} learns the posterior; give the process that parameterisation"
            )

    @classmethod
    def incompatibility(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[str, str] | None:
        if not issubclass(PARAMETERISATIONS.get(others["parameterisation"]["name"]), Posterior):
            return "parameterisation", f"objective '{own['name']}' learns the posterior of a token; write posterior"
        return super().incompatibility(own, others)
