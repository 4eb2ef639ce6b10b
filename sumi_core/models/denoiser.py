"""The denoiser: tokens (noisy or not) in, logits over clean tokens out."""

from __future__ import annotations

import math
import zlib
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sumi_core.models import ATTENTION_PATTERNS, FEEDBACK, INITIALISERS
from sumi_core.models.attention import Slots
from sumi_core.models.cache import KeyValues
from sumi_core.models.config import ModelConfig
from sumi_core.models.feedback import FeedbackForm
from sumi_core.models.feedback_layers import mean_embedding
from sumi_core.models.interface import Belief, DenoiserInput, DenoiserOutput, Feedback
from sumi_core.models.layers import (
    Block,
    Embedding,
    Head,
    Marker,
    Modulation,
    RMSNorm,
    Rotary,
    TimeEmbedding,
    TimeToken,
    ZeroLinear,
    modulate,
)
from sumi_core.models.size import flops_per_token


class Transformer(nn.Module):
    """Everything but the head, under the names of stock transformers' ``model.*``."""

    def __init__(self, config: ModelConfig, num_states: int) -> None:
        super().__init__()
        self.embed_tokens = Embedding(num_states, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.rotary = Rotary(config.hidden_size // config.num_heads, config.rope_theta)
        self.conditioning = config.time_conditioning
        self.time_embedding: TimeEmbedding | None = None
        self.modulation: Modulation | None = None
        if self.conditioning == "token":
            self.time_embedding = TimeToken(config.hidden_size)
        elif self.conditioning == "adaln":
            self.time_embedding, self.modulation = TimeEmbedding(), Modulation(config.hidden_size, 2)
        self.marker = Marker(config.hidden_size) if config.marker else None
        form: FeedbackForm | None = FEEDBACK.from_config(config.feedback) if config.feedback else None
        self.feedback = form.module(config) if form else None
        self.reading = form.reading if form else "own"

    def blocks(self) -> list[Block]:
        """The layers, first to last."""
        return [layer for layer in self.layers if isinstance(layer, Block)]


class Denoiser(nn.Module):
    """A LLaMA-style transformer over ``num_states`` states. Its attention pattern is the configured one, unless a call
    names another.

    Without QK-norm and time conditioning its parameters are, name by name, those of stock transformers'
    EuroBertForMaskedLM (bidirectional) or LlamaForCausalLM (causal).

    config: the `model` section of an experiment. num_states: S, the vocabulary with the mask state if there is one.
    seed: of the initial weights; None leaves them without values, for a caller who loads them. Under
    ``torch.device("meta")`` nothing is allocated and the shapes can be counted.

    >>> from sumi_core.models.config import ModelConfig
    >>> output = Denoiser(ModelConfig(), 258)(DenoiserInput(torch.zeros(2, 16, dtype=torch.int64)))
    >>> output.logits().shape
    torch.Size([2, 16, 258])
    """

    def __init__(self, config: ModelConfig, num_states: int, *, seed: int | None = 0) -> None:
        super().__init__()
        self.config, self.num_states = config, num_states
        self.pattern = ATTENTION_PATTERNS.from_config(config.attention)
        self.model = Transformer(config, num_states)
        self.lm_head = Head(config.hidden_size, num_states)
        if config.tie_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        if seed is not None:
            self.initialize(seed)

    # --- tokens to hidden states ------------------------------------------------------------------------------------

    @property
    def caches(self) -> bool:
        """Whether what stands may be read once and kept: a causal model's tokens never look at what follows."""
        return self.pattern.causal

    @property
    def reads_level(self) -> bool:
        """Whether it is conditioned on the noise level."""
        return self.config.time_conditioning != "none"

    @property
    def takes_feedback(self) -> bool:
        """Whether what an earlier pass predicted enters the embeddings."""
        return self.model.feedback is not None

    @torch.no_grad()
    def feedback(self, belief: Belief) -> Feedback:
        """What an earlier pass predicted, of this denoiser or of another one over the same tokens, in the terms of this
        one's embeddings; computed a few rows at a time."""
        return mean_embedding(belief, self.model.embed_tokens.weight, self.model.reading)

    def forward(self, given: DenoiserInput) -> DenoiserOutput:
        """Hidden states of every slot, and the head that reads them.

        A denoiser without time conditioning ignores the level; one with it raises ValueError where there is none.
        Raises ValueError, too, for feedback that it takes none of, and for what a cache cannot do: see
        ``DenoiserInput``.
        """
        model, tokens, cache, time = self.model, given.tokens, given.cache, None
        counts = [] if cache is None else self._counts(given, cache)
        x: Tensor = model.embed_tokens(tokens)
        if given.feedback is not None:
            if model.feedback is None:
                raise ValueError("this denoiser takes no feedback: name a form of it under model.feedback")
            x = model.feedback(x, given.feedback)
        if given.context is not None:
            x = x + given.context
        if model.marker is not None and given.level is not None:  # without a level all slots are clean
            x = x + model.marker(given.level > 0)
        if model.time_embedding is not None:
            if given.level is None:
                raise ValueError(f"this denoiser is conditioned on time ({model.conditioning}): give the noise level")
            time = model.time_embedding(given.level)
            if model.modulation is None:
                x, time = x + time, None
        length, positions = tokens.shape[1], given.positions
        # How far the rotary tables must reach: one look at the device where positions are given, else none.
        reach = length if positions is None else int(positions.max()) + 1
        if cache is not None:
            positions = cache.open(length, given.positions)
            reach = max(reach, cache.longest + length)
        rotary = model.rotary(reach, tokens.device, positions)
        sdpa = self._sdpa(given, positions)
        for number, block in enumerate(model.layers):
            x = block(x, rotary, sdpa, time, None if cache is None else partial(cache.extend, number))
        if cache is not None:
            cache.keep(counts)
        x = model.norm(x)
        hidden = x if model.modulation is None else modulate(x, *model.modulation(time))
        return DenoiserOutput(hidden, self.lm_head)

    def logits(self, tokens: Tensor, level: Tensor | None = None, **more: Any) -> Tensor:
        """Logits ``[B, L, S]`` of tokens ``[B, L]``; more: further fields of ``DenoiserInput``."""
        output: DenoiserOutput = self(DenoiserInput(tokens, level, **more))
        return output.logits()

    @staticmethod
    def _counts(given: DenoiserInput, cache: KeyValues) -> list[int]:
        """How many new slots each row is to keep. ValueError for what a cache cannot do, before anything is computed:
        it does not remember of which document a slot is, and what it keeps is clean and holds a token."""
        rows, slots = given.tokens.shape
        if rows != len(cache.lengths):
            raise ValueError(f"a cache of {len(cache.lengths)} rows cannot serve {rows} rows of tokens")
        counts = cache.accepted(given.keep, slots)
        if given.documents is not None and (cache.longest or any(counts)):
            raise ValueError("a cache does not remember documents: give none where slots are kept, now or before")
        if given.noisy is not None and any(counts):
            raise ValueError("slots of a noisy copy are never kept: give no `noisy` beside `keep`")
        if given.valid is not None and any(counts):
            raise ValueError("a cache keeps slots that hold a token: give their number as `keep`, and no `valid`")
        return counts

    def _sdpa(self, given: DenoiserInput, positions: Tensor | None) -> dict[str, Any]:
        """What attention is called with: the pattern's own arguments for a whole plain text, else a mask."""
        pattern, tokens = given.pattern or self.pattern, given.tokens
        in_order = torch.arange(tokens.shape[1], device=tokens.device) if positions is None else positions
        queries = Slots(in_order, given.documents, given.noisy, given.valid)
        cache = given.cache
        if cache is not None and cache.longest:
            alone = tokens.shape[1] == 1 and cache.plain and queries.plain
            if alone and (newest := pattern.newest()) is not None:
                return newest
            return pattern.sdpa_arguments(queries, cache.seen(queries))
        if given.positions is not None:  # not known to be in order
            return pattern.sdpa_arguments(queries, replace(queries))
        return pattern.sdpa_arguments(queries, queries)

    # --- weights ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def initialize(self, seed: int) -> None:
        """Fill the weights: normal with ``init_std``; projections into the residual stream divided by
        sqrt(2·num_layers) (GPT-2), since so many are added up; gains one; what brings in the time zero.

        Each parameter draws from its own generator, addressed by (seed, name), on the CPU: the same on every device,
        and denoisers that differ in one part start alike in all others. The global random state is not touched.
        """
        into_stream = ("o_proj.weight", "down_proj.weight")
        residual = 1 / math.sqrt(2 * self.config.num_layers)
        zero = {id(module.weight) for module in self.modules() if isinstance(module, ZeroLinear)}
        for name, parameter in self.named_parameters():
            if parameter.is_meta:
                continue
            if parameter.dim() == 1:
                parameter.fill_(1.0)
            elif id(parameter) in zero:
                parameter.zero_()
            else:
                std = self.config.init_std * (residual if name.endswith(into_stream) else 1.0)
                generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
                parameter.copy_(torch.empty(parameter.shape).normal_(0.0, std, generator=generator))

    def weights(self) -> dict[str, Tensor]:
        """The state dict with shared tensors once (tied head: without ``lm_head.weight``), as safetensors wants it."""
        return {name: parameter.detach().contiguous() for name, parameter in self.named_parameters()}

    # --- size and cost ----------------------------------------------------------------------------------------------

    def num_parameters(self, *, embeddings: bool = True) -> int:
        """Parameters, a tied table counted once. ``embeddings=False`` leaves out the token table and the head."""
        total = sum(parameter.numel() for parameter in self.parameters())
        if embeddings:
            return total
        tables = {id(p): p.numel() for p in (self.model.embed_tokens.weight, self.lm_head.weight)}
        return total - sum(tables.values())

    def flops_per_token(self, length: int, levels: int = 1) -> float:
        """Training FLOPs (forward and backward) for one token in sequences of ``length``; see ``models.size``."""
        return flops_per_token(self.config, self.num_states, length, levels)


def build_denoiser(model: ModelConfig, num_states: int, seed: int = 0, num_tokens: int | None = None) -> Denoiser:
    """The denoiser of an experiment, its weights where the experiment lets them start. num_tokens: V, where a mask
    comes after the tokens; left out, every state is one."""
    denoiser = Denoiser(model, num_states, seed=None)
    INITIALISERS.from_config(model.initialiser).fill(denoiser, seed, num_tokens or num_states)
    return denoiser
