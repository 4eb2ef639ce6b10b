"""Training losses, and the likelihood that every model is reported with."""

from typing import TYPE_CHECKING

from sumi_core.registry import Registry

if TYPE_CHECKING:
    from sumi_core.objectives.objective import Objective

OBJECTIVES: "Registry[Objective]" = Registry(
    "objective",
    {
        "autoregressive": "sumi_core.objectives.autoregressive:Autoregressive",
        "mixture_path": "sumi_core.objectives.mixture_path:MixturePath",
        "nelbo": "sumi_core.objectives.nelbo:Nelbo",
        "posterior_cross_entropy": "sumi_core.objectives.posterior_cross_entropy:PosteriorCrossEntropy",
    },
)
