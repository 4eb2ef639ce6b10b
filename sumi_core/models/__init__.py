"""The denoiser: a LLaMA-style transformer whose attention pattern is an argument, and its size presets."""

from collections.abc import Mapping
from typing import Any

from sumi_core.base.registry import Registry

ATTENTION_PATTERNS = Registry(
    "attention pattern",
    "sumi_core.models.attention:AttentionPattern",
    {
        "bidirectional": "sumi_core.models.attention:Bidirectional",
        "block_causal": "sumi_core.models.attention:BlockCausal",
        "causal": "sumi_core.models.attention:Causal",
    },
    key="attention",
)

FEEDBACK = Registry(
    "form of feedback",
    "sumi_core.models.feedback:FeedbackForm",
    {
        "residual_context": "sumi_core.models.feedback:ResidualContext",
        "self_conditioning": "sumi_core.models.feedback:SelfConditioning",
    },
    key="feedback",
)


def feedback_source(objective: Mapping[str, Any]) -> dict[str, Any] | None:
    """Where the predictions come from that a model with feedback is given: the component that a resolved objective
    names, its own or that of the loss of noise within it."""
    inner = objective.get("diffusion") or {}
    found: dict[str, Any] | None = objective.get("feedback") or inner.get("feedback")
    return found


INITIALISERS = Registry(
    "initialiser",
    "sumi_core.models.initialisers:Initialiser",
    {
        "cell": "sumi_core.models.initialisers:Cell",
        "exported": "sumi_core.models.initialisers:Exported",
        "local_heads": "sumi_core.models.initialisers:LocalHeads",
        "random": "sumi_core.models.initialisers:Random",
    },
    key="initialiser",
)


def _preset(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_layers": layers,
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        **more,
    }


# Keys of sumi_core.config.ModelConfig. Parameters, with the vocabulary that they are quoted for: nano 1.00 M (1,024),
# tiny 10.1 M (4,096), small 124 M and base 360 M (50,257; tied, as GPT-2 counts), 1b 1.11 G (50,257),
# sumi-7b 7.77 G (100,278): Tohoku's Sumi, arXiv 2606.19005.
PRESETS: dict[str, dict[str, Any]] = {
    "nano": _preset(128, 352, 4, 4, 2),
    "tiny": _preset(320, 864, 6, 5, 5),
    "small": _preset(768, 2048, 12, 12, 12, tie_embeddings=True),
    "base": _preset(1024, 2816, 24, 16, 16, tie_embeddings=True),
    "1b": _preset(2048, 5632, 20, 32, 8, rope_theta=500_000.0),
    "sumi-7b": _preset(4096, 12288, 36, 32, 8, rope_theta=500_000.0),
}
