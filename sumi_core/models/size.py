"""How large a denoiser is and what a token costs, from its config alone: whatever the numbers are, nothing is made."""

from __future__ import annotations

from sumi_core.models import ATTENTION_PATTERNS
from sumi_core.models.config import TIME_WIDTH, ModelConfig


def num_parameters(model: ModelConfig, vocabulary: int) -> int:
    """What ``Denoiser.num_parameters`` counts, without making one."""
    width = model.hidden_size
    block = _block_matrices(model) + 2 * width
    if model.qk_norm:
        block += 2 * (width // model.num_heads)
    total = width + (1 if model.tie_embeddings else 2) * vocabulary * width
    if model.time_conditioning != "none":
        total += 2 * TIME_WIDTH * TIME_WIDTH
    if model.time_conditioning == "adaln":
        block += TIME_WIDTH * 6 * width
        total += TIME_WIDTH * 2 * width
    elif model.time_conditioning == "token":
        total += TIME_WIDTH * width
    return total + model.num_layers * block


def flops_per_token(model: ModelConfig, vocabulary: int, length: int) -> float:
    """Training FLOPs (forward and backward) for one token in sequences of ``length``.

    After PaLM (2204.02311, appendix B): 6 for each weight that multiplies the token, plus 12 · layers · hidden for each
    key it attends to (all ``length`` of them; half in a causal pattern, where PaLM counts all). The head counts even
    where it is tied; the table look-up, norms, softmax and the time conditioning do not.
    """
    attended = ATTENTION_PATTERNS.from_config(model.attention).attended(length)
    matrices = vocabulary * model.hidden_size + model.num_layers * _block_matrices(model)
    return 6.0 * matrices + 12.0 * model.num_layers * model.hidden_size * attended


def _block_matrices(model: ModelConfig) -> int:
    """Weights of a block that multiply a token: queries and output, keys and values, SwiGLU."""
    width, head = model.hidden_size, model.hidden_size // model.num_heads
    return 2 * width * width + 2 * width * head * model.num_kv_heads + 3 * width * model.intermediate_size
