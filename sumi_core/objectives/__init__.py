"""Training losses, and the likelihood that every model is reported with."""

from sumi_core.base.registry import Registry

FEEDBACK_SOURCES = Registry(
    "source of feedback",
    "sumi_core.objectives.feedback:FeedbackSource",
    {
        "path": "sumi_core.objectives.feedback:Path",
        "reference": "sumi_core.objectives.feedback:Reference",
        "same": "sumi_core.objectives.feedback:Same",
    },
    key="feedback_source",
)

OBJECTIVES = Registry(
    "objective",
    "sumi_core.objectives.objective:Objective",
    {
        "autoregressive": "sumi_core.objectives.autoregressive:Autoregressive",
        "joint": "sumi_core.objectives.joint:Joint",
        "mixture_path": "sumi_core.objectives.mixture_path:MixturePath",
        "nelbo": "sumi_core.objectives.nelbo:Nelbo",
        "posterior_cross_entropy": "sumi_core.objectives.posterior_cross_entropy:PosteriorCrossEntropy",
    },
    key="objective",
)
