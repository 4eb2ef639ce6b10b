"""Objectives whose minimum is p(x_i | z), the posterior that sees its own noisy token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sumi_core.corruption import PARAMETERISATIONS
from sumi_core.corruption.parameterisations import Posterior
from sumi_core.objectives.diffusion import Diffusion

if TYPE_CHECKING:
    from sumi_core.config import Experiment


class PosteriorObjective(Diffusion):
    """Refuses any parameterisation but ``posterior``: read otherwise, what it learns would be another model."""

    def __init__(self, options: Diffusion.Options, **context: Any) -> None:
        super().__init__(options, **context)
        if not isinstance(self.process.parameterisation, Posterior):
            raise ValueError(
                f"objective {type(self).__name__} learns the posterior; give the process that parameterisation"
            )

    @classmethod
    def refusal(cls, experiment: Experiment) -> tuple[str, str] | None:
        if not issubclass(PARAMETERISATIONS.get(experiment.parameterisation["name"]), Posterior):
            name = experiment.objective["name"]
            return "parameterisation", f"objective '{name}' learns the posterior of a token; write posterior"
        return super().refusal(experiment)
