"""Samplers: how a trained denoiser writes text."""

from sumi_core.base.registry import Registry

SAMPLERS = Registry(
    "sampler",
    "sumi_core.sampling.sampler:Sampler",
    {
        "ancestral": "sumi_core.sampling.ancestral:Ancestral",
        "autoregressive": "sumi_core.sampling.autoregressive:Autoregressive",
        "blockwise": "sumi_core.sampling.blockwise:Blockwise",
        "confidence": "sumi_core.sampling.confidence:Confidence",
        "entropy_bound": "sumi_core.sampling.entropy_bound:EntropyBound",
        "first_hitting": "sumi_core.sampling.first_hitting:FirstHitting",
        "left_to_right": "sumi_core.sampling.left_to_right:LeftToRight",
        "predictor_corrector": "sumi_core.sampling.predictor_corrector:PredictorCorrector",
        "self_correction": "sumi_core.sampling.self_correction:SelfCorrection",
        "speculative": "sumi_core.sampling.speculative:Speculative",
        "threshold": "sumi_core.sampling.threshold:Threshold",
    },
    key="sampler",
)
