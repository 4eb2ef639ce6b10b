"""How large a denoiser is and what a token costs, from its config alone: whatever the numbers are, nothing is made."""

from __future__ import annotations

from sumi_core.models import ATTENTION_PATTERNS, FEEDBACK
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
    if model.marker:
        total += width
    if model.feedback:
        total += FEEDBACK.from_config(model.feedback).num_parameters(model)
    return total + model.num_layers * block


def flops_per_token(
    model: ModelConfig,
    vocabulary: int,
    length: int,
    levels: float = 1,
    *,
    slots: float | None = None,
    keys: float | None = None,
    logits: int = 1,
    training: bool = True,
    fed: bool = False,
) -> float:
    """FLOPs of the matrix products for one token in sequences of ``length``, each of which the denoiser is told
    ``levels`` noise levels of: 1, or ``length`` where every token has its own. training: forward and backward; else of
    a forward pass alone. fed: the pass is given feedback.

    slots: of a forward pass over a sequence, ``length`` unless given. logits: slots that the head reads for each token.
    keys: that all slots of a token together attend to, those of the model's own pattern unless given.

    After PaLM (2204.02311, appendix B): 6 for each weight that multiplies the token, plus 12 · layers · hidden for each
    key it attends to (all ``length`` of them; half in a causal pattern, where PaLM counts all), plus what a level costs
    with time conditioning; a forward pass alone takes a third. The head counts even where it is tied; the table
    look-up, norms and softmax do not.
    """
    attended = ATTENTION_PATTERNS.from_config(model.attention).attended(length) if keys is None else keys
    block, head = model.num_layers * _block_matrices(model), logits * vocabulary * model.hidden_size
    if fed and model.feedback:
        block += FEEDBACK.from_config(model.feedback).matrices(model)
    matrices = head + block if slots in (None, length) else head + block * slots / length
    passes = 3.0 if training else 1.0  # the gradients of both factors of a product cost as much as itself, each
    attention = 4.0 * model.num_layers * model.hidden_size * attended
    return passes * (2.0 * matrices + attention) + _flops_per_level(model, training=training) * levels / length


def mean_embedding_flops(model: ModelConfig, vocabulary: int) -> float:
    """FLOPs of the mean embedding of one predicted token (``models.feedback``), which has no backward pass."""
    return 2.0 * vocabulary * model.hidden_size


def _flops_per_level(model: ModelConfig, *, training: bool) -> float:
    """FLOPs of embedding one noise level and of what each layer makes of it."""
    if model.time_conditioning == "none":
        return 0.0
    # In training 4 for a weight of the first map: its input has no gradient.
    embedding = (4 + 6 if training else 2 + 2) * TIME_WIDTH * TIME_WIDTH
    parts = 6 * model.num_layers + 2 if model.time_conditioning == "adaln" else 1
    return float(embedding + (6 if training else 2) * TIME_WIDTH * parts * model.hidden_size)


def _block_matrices(model: ModelConfig) -> int:
    """Weights of a block that multiply a token: queries and output, keys and values, SwiGLU."""
    width, head = model.hidden_size, model.hidden_size // model.num_heads
    return 2 * width * width + 2 * width * head * model.num_kv_heads + 3 * width * model.intermediate_size
