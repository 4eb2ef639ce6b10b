"""Small denoisers and the stock transformers models that should equal them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sumi_core.models.config import ModelConfig
from sumi_core.models.denoiser import Denoiser

if TYPE_CHECKING:
    import torch

STATES = 37


def small(**changes: Any) -> ModelConfig:
    """Two layers of width 32, two query heads to a key-value head."""
    if "attention" in changes:
        changes["attention"] = {"name": changes["attention"]}
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2}
    return ModelConfig(**{**shape, **changes})


def stock_model(config: ModelConfig) -> Any:
    """The stock model of the same shape, its weights its own."""
    import transformers

    name = {"bidirectional": "EuroBert", "causal": "Llama"}[config.attention["name"]]
    head = {"bidirectional": "EuroBertForMaskedLM", "causal": "LlamaForCausalLM"}[config.attention["name"]]
    special = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    stock_config = getattr(transformers, f"{name}Config")(
        vocab_size=STATES,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        rms_norm_eps=config.norm_epsilon,
        tie_word_embeddings=config.tie_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        max_position_embeddings=512,
        **special,
        **({"mask_token_id": 0} if name == "EuroBert" else {}),
    )
    return getattr(transformers, head)(stock_config).eval()


def lively(denoiser: Denoiser, seed: int = 1) -> Denoiser:
    """Weights large and uneven enough that every part of the model matters, gains and modulations included."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.3 * noise if parameter.dim() == 1 else 0.2 * noise)
    return denoiser.eval()


def exact(denoiser: Denoiser) -> Denoiser:
    """In float64, its rotary tables too, which are float32 otherwise: for identities to rounding."""
    import torch

    frequencies = denoiser.model.rotary.frequencies

    def tables(length: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies(device).double()
        cosines, sines = angles.cos(), angles.sin()
        return torch.cat((cosines, cosines), -1)[:, None], torch.cat((-sines, sines), -1)[:, None]

    denoiser.model.rotary._make = tables  # type: ignore[method-assign]
    return denoiser.double()


def save_stock(folder: Path, kind: str, max_shard_size: str = "1GB", **changes: Any) -> Any:
    """A stock model of some type, with the dimensions of ``small``, in a folder as transformers writes it."""
    import torch
    import transformers

    config, model = {
        "llama": ("LlamaConfig", "LlamaForCausalLM"),
        "mistral": ("MistralConfig", "MistralForCausalLM"),
        "qwen3": ("Qwen3Config", "Qwen3ForCausalLM"),
        "qwen2": ("Qwen2Config", "Qwen2ForCausalLM"),
        "gemma": ("GemmaConfig", "GemmaForCausalLM"),
        "eurobert": ("EuroBertConfig", "EuroBertForMaskedLM"),
    }[kind]
    shape = {
        "vocab_size": STATES,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    shape |= {"sliding_window": None} if kind == "mistral" else {}
    shape |= {"mask_token_id": 0} if kind == "eurobert" else {}
    made = getattr(transformers, model)(getattr(transformers, config)(**{**shape, **changes})).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # so large that every part matters
        for parameter in made.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.3 * noise if parameter.dim() == 1 else 0.2 * noise)
    made.save_pretrained(folder, max_shard_size=max_shard_size)
    return made
