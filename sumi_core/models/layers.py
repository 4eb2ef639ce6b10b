"""The pieces of a LLaMA block (Touvron et al. 2302.13971): RMSNorm, rotary positions, grouped-query attention, SwiGLU.

Module and parameter names are those of stock transformers' EuroBert and Llama, so that weights move across unchanged.
No layer draws random numbers when it is made; `Denoiser` fills all weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sumi_core.kernels.row_loss import RowLoss
from sumi_core.models.config import TIME_WIDTH, ModelConfig


class Linear(nn.Linear):
    """A linear map without bias, whose weight holds no values until the denoiser fills it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def reset_parameters(self) -> None:
        """Draws nothing: the global random state stays untouched."""


class ZeroLinear(Linear):
    """One whose weight starts at zero, so that what it leads to changes nothing at first."""


class Embedding(nn.Embedding):
    """A token table whose weight holds no values until the denoiser fills it."""

    def reset_parameters(self) -> None:
        """Draws nothing: the global random state stays untouched."""


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + ε) · weight over the last axis (Zhang & Sennrich 1910.07467)."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)  # under autocast x may be bfloat16: normalise in the weight's precision
        return F.rms_norm(x, self.weight.shape, self.weight, self.epsilon)


class Rotary(nn.Module):
    """Tables of rotary position embeddings (Su et al. 2104.09864) in the half-split layout of Llama: channel ``i``
    turns with channel ``i + width/2`` by the angle ``position · θ^(−2i/width)``.

    The tables are made when first needed and kept; they are not buffers, since they follow from the configuration
    and a buffer would be lost when a model is made on the meta device.
    """

    def __init__(self, head_width: int, theta: float) -> None:
        super().__init__()
        self.head_width, self.theta = head_width, theta
        self._tables: tuple[Tensor, Tensor] | None = None

    def forward(self, length: int, device: torch.device, positions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines (minus in the first half) of positions 0 … length − 1, ``[length, 1, head_width]``
        float32 each, or of ``positions`` ``[..., L]``, all below ``length``: ``[..., L, 1, head_width]``."""
        if positions is not None:
            cosines, sines = self(length, device)
            return cosines[positions], sines[positions]
        tables = self._tables
        if tables is None or tables[0].shape[0] < length or tables[0].device != device:
            room = 1 << (length - 1).bit_length()  # a text that grows token by token rarely needs new ones
            # Tables made inside inference mode could not be used by a later training step.
            with torch.inference_mode(False), torch.no_grad():
                tables = self._tables = self._make(room, device)
        return tables[0][:length], tables[1][:length]

    def frequencies(self, device: torch.device) -> Tensor:
        """Radians per position of every channel pair, ``[head_width / 2]`` float32, falling from 1."""
        exponents = torch.arange(0, self.head_width, 2, dtype=torch.float32, device=device) / self.head_width
        return 1.0 / self.theta**exponents

    def _make(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        positions = torch.arange(length, dtype=torch.float32, device=device)
        angles = positions[:, None] * self.frequencies(device)
        cosines, sines = angles.cos(), angles.sin()
        return torch.cat((cosines, cosines), -1)[:, None], torch.cat((-sines, sines), -1)[:, None]


def rotate(x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Turn heads ``x`` ``[B, L, heads, width]`` by their positions; computed in float32 at least, returned in x's type.

    Rolling by half the width swaps the halves, and the tables carry the sign: one multiply-add instead of the
    usual negate, concatenate, multiply, add (0.75 of its time on a CPU, forward and backward).
    """
    cosines, sines = tables
    wide = x.to(torch.promote_types(x.dtype, cosines.dtype))
    return torch.addcmul(wide * cosines, wide.roll(x.shape[-1] // 2, -1), sines.to(wide.dtype)).to(x.dtype)


KeyValue = tuple[Tensor, Tensor]  # keys and values of a layer, [B, H_kv, slots, w]
Extend = Callable[[Tensor, Tensor], KeyValue]  # from those of the new slots to those of all slots that may be seen


class Head(Linear):
    """The last map, from hidden states to logits; losses are computed inside it, so that hooks, sharding and
    compilation see one call of one module."""

    def forward(self, hidden: Tensor, losses: Sequence[RowLoss] = ()) -> Any:
        """hidden: ``[..., D]``. Logits ``[..., S]``, or a tuple of the losses of each row ``[...]``."""
        logits = super().forward(hidden)
        return tuple(loss.of(logits) for loss in losses) if losses else logits


class SelfAttention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2305.13245) with rotary positions and optional RMS-normalised queries
    and keys (one gain per head channel, as in Qwen3)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_width = config.hidden_size // config.num_heads
        self.grouped = config.num_kv_heads != config.num_heads
        kv_width = config.num_kv_heads * self.head_width
        self.q_proj = Linear(config.hidden_size, config.hidden_size)
        self.k_proj = Linear(config.hidden_size, kv_width)
        self.v_proj = Linear(config.hidden_size, kv_width)
        self.o_proj = Linear(config.hidden_size, config.hidden_size)
        self.q_norm = RMSNorm(self.head_width, config.norm_epsilon) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(self.head_width, config.norm_epsilon) if config.qk_norm else nn.Identity()

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], sdpa: dict[str, Any], extend: Extend | None = None
    ) -> Tensor:
        """x: ``[B, L, D]``, and so is what is returned. extend: puts keys and values beside those of earlier slots."""
        heads = (*x.shape[:2], -1, self.head_width)
        q = rotate(self.q_norm(self.q_proj(x).view(heads)), rotary).transpose(1, 2)
        k = rotate(self.k_norm(self.k_proj(x).view(heads)), rotary).transpose(1, 2)
        v = self.v_proj(x).view(heads).transpose(1, 2)
        if extend is not None:
            k, v = extend(k, v)
        # enable_gqa reads each key-value head in place: 0.9 of the time of repeating them on a CPU.
        out = F.scaled_dot_product_attention(q, k, v, enable_gqa=self.grouped, **sdpa)
        return self.o_proj(out.transpose(1, 2).reshape(x.shape))


class SwiGLU(nn.Module):
    """down(silu(gate(x)) · up(x)) (Shazeer 2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class TimeEmbedding(nn.Module):
    """The noise level as a vector: sinusoids of 1000·t (Ho et al. 2006.11239) through a small MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.in_proj = Linear(TIME_WIDTH, TIME_WIDTH)
        self.out_proj = Linear(TIME_WIDTH, TIME_WIDTH)

    def forward(self, t: Tensor) -> Tensor:
        """t: ``[B]``, ``[B, 1]`` or ``[B, L]`` → ``[B, 1 or L, TIME_WIDTH]``."""
        t = t[:, None] if t.dim() == 1 else t
        half = TIME_WIDTH // 2
        exponents = torch.arange(half, dtype=torch.float32, device=t.device) / half
        angles = 1000.0 * t.to(torch.float32)[..., None] * torch.exp(-math.log(10_000.0) * exponents)
        waves = torch.cat((angles.cos(), angles.sin()), -1).to(self.in_proj.weight.dtype)
        return F.silu(self.out_proj(F.silu(self.in_proj(waves))))


class TimeToken(TimeEmbedding):
    """The noise level as one more input embedding, added to those of the tokens (Diffusion-LM, 2205.14217). The last
    map starts at zero, so that a conditioned denoiser starts as the unconditioned one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token_proj = ZeroLinear(TIME_WIDTH, width)

    def forward(self, t: Tensor) -> Tensor:
        """t: ``[B]``, ``[B, 1]`` or ``[B, L]`` → ``[B, 1 or L, width]``."""
        return self.token_proj(super().forward(t))


class Marker(ZeroLinear):
    """One vector, zero at first, that is added to the embeddings of slots in noise. Under noise that consists of tokens
    such a slot holds what a clean one may hold too."""

    def __init__(self, width: int) -> None:
        super().__init__(1, width)

    def forward(self, noisy: Tensor) -> Tensor:
        """noisy: ``[B]``, ``[B, 1]`` or ``[B, L]`` bool → ``[B, 1 or L, width]``."""
        noisy = noisy[:, None] if noisy.dim() == 1 else noisy
        return noisy[..., None].to(self.weight.dtype) * self.weight[:, 0]


class Modulation(nn.Module):
    """Shifts, scales and gates of adaptive layer norm (DiT, Peebles & Xie 2212.09748) from the embedded noise level.

    The weight starts at zero and every scale and gate acts as 1 + value, so that a conditioned denoiser starts as
    the unconditioned one. (DiT's gates act as the value itself and start with every block switched off.)
    """

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.proj = ZeroLinear(TIME_WIDTH, parts * width)

    def forward(self, time: Tensor) -> tuple[Tensor, ...]:
        """time: ``[B, 1 or L, TIME_WIDTH]`` → ``parts`` tensors ``[B, 1 or L, width]``."""
        return self.proj(time).chunk(self.parts, -1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x · (1 + scale) + shift; x ``[B, L, D]``, shift and scale ``[B, 1 or L, D]``."""
    return torch.addcmul(shift, x, 1 + scale)


class Block(nn.Module):
    """Pre-norm transformer block: attention, then SwiGLU, each added to the stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config)
        self.mlp = SwiGLU(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.modulation = Modulation(config.hidden_size, 6) if config.time_conditioning == "adaln" else None

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        sdpa: dict[str, Any],
        time: Tensor | None = None,
        extend: Extend | None = None,
    ) -> Tensor:
        """x: ``[B, L, D]``, the stream, and so is what is returned; time: the embedded noise level of `TimeEmbedding`,
        given where the block has adaLN; extend: of `SelfAttention`."""
        if self.modulation is None or time is None:
            x = x + self.self_attn(self.input_layernorm(x), rotary, sdpa, extend)
            return x + self.mlp(self.post_attention_layernorm(x))
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(time)
        attended = self.self_attn(modulate(self.input_layernorm(x), shift_a, scale_a), rotary, sdpa, extend)
        x = torch.addcmul(x, attended, 1 + gate_a)
        fed = self.mlp(modulate(self.post_attention_layernorm(x), shift_m, scale_m))
        return torch.addcmul(x, fed, 1 + gate_m)
