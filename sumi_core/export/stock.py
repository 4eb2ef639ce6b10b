"""The same denoiser as a class of stock transformers: its config.json, and proof that it computes the same."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sumi_core.export.record import ExportError
from sumi_core.layouts.blocks import Blocks
from sumi_core.models import ATTENTION_PATTERNS, FEEDBACK
from sumi_core.models.attention import Slots
from sumi_core.models.interface import DenoiserInput, DenoiserOutput, Feedback
from sumi_core.sampling.lookahead import Canvases, Clean, look_ahead

if TYPE_CHECKING:
    from torch import Tensor

    from sumi_core.layouts.layout import Layout
    from sumi_core.models.attention import StockClass
    from sumi_core.models.config import ModelConfig
    from sumi_core.models.denoiser import Denoiser

TOLERANCE = 1e-4  # largest difference of float32 logits from stock code's, as a share of the largest where that is > 1


def stock_class(model: ModelConfig) -> StockClass | None:
    """The class of stock transformers that has this denoiser's architecture, None where there is none."""
    return None if why_not_stock(model) else ATTENTION_PATTERNS.get(model.attention["name"]).stock_class


def why_not_stock(model: ModelConfig) -> str | None:
    """Why no stock class has this architecture, None where one does."""
    if ATTENTION_PATTERNS.get(model.attention["name"]).stock_class is None:
        return f"no class of stock transformers has {model.attention['name']} attention"
    if model.qk_norm:
        return "model.qk_norm is on, and stock EuroBert and Llama blocks do not normalise queries and keys"
    if model.time_conditioning != "none":
        return f"model.time_conditioning is {model.time_conditioning}, and stock classes take no noise level"
    if model.marker:
        return "model.marker is on, and stock classes do not mark the slots in noise"
    if model.feedback and not FEEDBACK.get(model.feedback["name"]).stock:
        return f"model.feedback is {model.feedback['name']}, a module that stock classes do not have"
    return None


def write_stock_config(
    model: ModelConfig, folder: Path, *, num_states: int, length: int, eos_id: int, mask_id: int | None
) -> None:
    """Write config.json, and generation_config.json for a class that writes. ``length``: positions it was trained on.

    End-of-text is also what texts begin with and what batches are padded with. A class that demands a mask id gets
    end-of-text's where there is no mask state, so that every id is one the model has.
    """
    import transformers

    stock = stock_class(model)
    assert stock is not None
    special: dict[str, Any] = {"bos_token_id": eos_id, "eos_token_id": eos_id, "pad_token_id": eos_id}
    if stock.needs_mask:
        special["mask_token_id"] = eos_id if mask_id is None else mask_id
    config = getattr(transformers, stock.config)(
        architectures=[stock.name],
        vocab_size=num_states,
        hidden_size=model.hidden_size,
        intermediate_size=model.intermediate_size,
        num_hidden_layers=model.num_layers,
        num_attention_heads=model.num_heads,
        num_key_value_heads=model.num_kv_heads,
        head_dim=model.hidden_size // model.num_heads,
        rope_parameters={"rope_type": "default", "rope_theta": model.rope_theta},
        rms_norm_eps=model.norm_epsilon,
        max_position_embeddings=length,
        tie_word_embeddings=model.tie_embeddings,
        initializer_range=model.init_std,
        dtype="float32",
        **special,
    )
    with quiet_transformers():
        config.save_pretrained(folder)
        if stock.writes:
            # A mask is a state of the noise, which no text may hold.
            unwritten = {} if mask_id is None else {"suppress_tokens": [mask_id]}
            transformers.GenerationConfig(do_sample=True, **special, **unwritten).save_pretrained(folder)


def open_stock(folder: Path, stock: StockClass) -> Any:
    """Open the folder as anyone would: the auto class, no remote code, no network. Raises ExportError unless it
    gives that class and its weights all come from the file."""
    import transformers

    auto = getattr(transformers, stock.auto)
    with quiet_transformers():
        model, loading = auto.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    wrong = {kind: sorted(map(str, loading[kind])) for kind in loading if kind.endswith("_keys") and loading[kind]}
    if type(model).__name__ != stock.name or wrong:
        raise ExportError(f"{folder} opens as {type(model).__name__}, not as a whole {stock.name}: {wrong}")
    return model.eval()


@torch.no_grad()
def max_logit_difference(
    denoiser: Denoiser,
    folder: Path,
    stock: StockClass,
    *,
    length: int,
    sequences: int = 2,
    layout: Layout | None = None,
    drafts: bool = False,
    eos_id: int = 0,
) -> float:
    """Largest |logit − logit| between the denoiser and what stock code opens, on random states of all kinds: in the
    model's own pattern, as a layout shows texts and, with ``drafts``, as speculation lays out a text and canvases
    after it, both through position ids and a 4-D mask, and with feedback, through the embeddings that it makes.

    Raises ExportError above TOLERANCE, or when it is not a number.
    """
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(denoiser.num_states, (sequences, length), generator=generator)
    tokens[:, length // 2] = denoiser.num_states - 1  # the mask, where there is one
    opened = open_stock(folder, stock)
    shown: list[DenoiserInput] = []

    def watched(given: DenoiserInput) -> DenoiserOutput:
        shown.append(given)
        output: DenoiserOutput = denoiser(given)
        return output

    watched(DenoiserInput(tokens))
    if layout is not None:
        layout.of(watched, tokens.flip(0) % denoiser.num_states, eos_id)(DenoiserInput(tokens))
    if drafts and isinstance(layout, Blocks):
        c = length // 2
        places = torch.tensor([[0, c - 1]]).expand(sequences, -1)  # a canvas at the beginning and one at the end
        z = tokens[:, None, : layout.options.length].expand(-1, 2, -1)
        begins = torch.zeros(sequences, dtype=torch.int64)
        clean = Clean(tokens[:, :c], begins + c, begins)
        canvases = Canvases(z, torch.ones(z.shape, dtype=torch.float64), places)
        look_ahead(watched, clean, canvases, own=layout.options.read_out == "own")
    fed = denoiser.model.feedback
    if fed is not None:
        width = denoiser.config.hidden_size
        news = torch.rand(tokens.shape, generator=generator)
        watched(DenoiserInput(tokens, feedback=Feedback(torch.randn(*tokens.shape, width, generator=generator), news)))
    differences = []
    for given in shown:
        logits, arguments = denoiser(given).logits(), stock_arguments(given)
        if fed is not None and given.feedback is not None:
            embedded = opened.get_input_embeddings()(arguments.pop("input_ids"))
            arguments["inputs_embeds"] = fed(embedded, given.feedback)
        difference = float((logits - opened(**arguments).logits).abs().max())
        allowed = TOLERANCE * max(1.0, float(logits.abs().max()))
        if not difference <= allowed:
            raise ExportError(
                f"{folder}: stock {stock.name} gives logits that differ from the training model's by {difference:.2e} "
                f"(at most {allowed:.2g}); the weights may be diverged, or this transformers release computes otherwise"
            )
        differences.append(difference)
    return max(differences)


def stock_arguments(given: DenoiserInput) -> dict[str, Tensor]:
    """What a stock model is called with for the same pass: ids, and where slots are laid out, position ids and a 4-D
    mask, True where a slot sees another."""
    arguments = {"input_ids": given.tokens}
    if given.positions is not None:
        arguments["position_ids"] = given.positions.expand(given.tokens.shape)
    if given.pattern is not None:
        positions = torch.arange(given.tokens.shape[1]) if given.positions is None else given.positions
        slots = Slots(positions, given.documents, given.noisy, given.valid)
        mask = given.pattern.mask(slots, slots)
        arguments["attention_mask"] = mask.expand(len(given.tokens), *mask.shape[-2:]).unsqueeze(1)
    return arguments


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Only transformers' errors, and no progress bars, while inside."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
