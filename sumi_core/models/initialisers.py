"""Where a denoiser's weights start: at random, or at those of a model that was trained before."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field

from sumi_core.base.numerics import no_grad
from sumi_core.base.options import later, location
from sumi_core.base.paths import project_path
from sumi_core.base.references import referenced_folder, stage_ref
from sumi_core.base.registry import Part
from sumi_core.data import TOKENIZERS
from sumi_core.models import FEEDBACK
from sumi_core.models.foreign import (
    InitialiserError,
    Tensors,
    check_config,
    check_logits,
    weight_files,
    weights_identity,
)

if TYPE_CHECKING:
    from torch import Tensor

    from sumi_core.models.denoiser import Denoiser

MaskRow = Literal["random", "mean"]
_MASK_ROW = "where a mask that is new begins: as in a new model, or at the mean of the tokens' rows"
_SLOWEST = 0.15  # radians per position of the slowest rotary channel that LocalHeads uses
_PER_STATE = ("model.embed_tokens.weight", "lm_head.weight")  # a row per state
#: Keys of ``model`` that decide the weights' shapes, or what the same weights compute.
_DIMENSIONS = (
    "hidden_size",
    "intermediate_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "tie_embeddings",
    "rope_theta",
    "norm_epsilon",
)
#: Modules that a model may lack and its successor have.
_ADDED = ("modulation", "time_embedding", "q_norm", "k_norm", "feedback", "marker")


class Initialiser(Part, ABC):
    """Gives every weight of a new denoiser its first value."""

    @abstractmethod
    def fill(self, denoiser: Denoiser, seed: int, num_tokens: int) -> None:
        """Fill all weights, a function of (options, seed) alone. num_tokens: of the denoiser's states, those that texts
        hold; a mask comes after them. Raises InitialiserError."""


class Random(Initialiser):
    """Normal weights of deviation ``model.init_std``; see ``Denoiser.initialize``."""

    def fill(self, denoiser: Denoiser, seed: int, num_tokens: int) -> None:
        denoiser.initialize(seed)


class LocalHeads(Random):
    """Random weights, and first layers whose heads look at neighbouring positions from the first step on.

    A denoiser must fetch what it knows of a position from around it, but at random weights attention is blind to
    distance: its scores depend on a common direction of all embeddings, of which there is none, and small models stay
    at token frequencies for long until one has grown. Here every embedding gets such a direction, and the queries and
    keys of the first ``layers`` layers an outer product that reads it, so that a head's score peaks ``offset``
    positions away. All other weights are those of ``random``, and the architecture is untouched. (Mimetic
    initialisation, Trockman & Kolter 2305.09828, gives attention a useful shape at the start too, by content.)

    offsets: given to query heads in turn; a causal pattern leaves out those ahead. sharpness: the score at the
    peak, before softmax. share: of an embedding's length that is the common direction.
    """

    @dataclass
    class Options(Random.Options):
        offsets: Annotated[
            list[int], Field(description="positions that query heads look at in turn, relative to their own")
        ] = field(default_factory=lambda: [-1, 1, -2, 2])
        layers: Annotated[int, Field(ge=1, description="number of first layers whose heads look at neighbours")] = 1
        sharpness: Annotated[float, Field(gt=0.0, description="score at the peak, before softmax")] = 8.0
        share: Annotated[
            float, Field(gt=0.0, lt=1.0, description="share of an embedding's length that is the common direction")
        ] = 0.5

        def check(self) -> None:
            """Raises ValueError without an offset that every pattern sees."""
            if not any(offset <= 0 for offset in self.offsets):
                raise ValueError("offsets needs one that is not ahead, such as -1, for patterns that see none ahead")

    @classmethod
    def incompatibility(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[str, str] | None:
        if others["model"]["qk_norm"]:
            problem = "local_heads has no say where model.qk_norm normalises its scores; choose random"
            return "model.initialiser", problem
        return None

    @no_grad
    def fill(self, denoiser: Denoiser, seed: int, num_tokens: int) -> None:
        super().fill(denoiser, seed, num_tokens)
        options, config = self.options, denoiser.config
        generator = torch.Generator().manual_seed(seed)
        common = torch.nn.functional.normalize(torch.randn(config.hidden_size, generator=generator), dim=0)
        table = denoiser.model.embed_tokens.weight
        table += common * table.norm(dim=-1).mean() * options.share / math.sqrt(1 - options.share**2)
        # What RMSNorm leaves of the common direction has this length in every position.
        length = options.share * math.sqrt(config.hidden_size)

        width, group = config.hidden_size // config.num_heads, config.num_heads // config.num_kv_heads
        turns = denoiser.model.rotary.frequencies(table.device)
        channels = (turns > _SLOWEST).to(turns)  # slower ones cannot tell neighbours apart
        amplitude = channels * (options.sharpness * math.sqrt(width) / channels.sum()) ** 0.5
        offsets = [offset for offset in options.offsets if offset <= 0 or not denoiser.pattern.causal]
        heads = 0
        for block in denoiser.model.blocks()[: options.layers]:
            queries = block.self_attn.q_proj.weight.view(config.num_heads, width, -1)
            keys = block.self_attn.k_proj.weight.view(config.num_kv_heads, width, -1)
            for shared in range(config.num_kv_heads):
                phase = 2 * math.pi * torch.rand(width // 2, generator=generator)
                keys[shared] += _turned(amplitude, phase)[:, None] * common / length
                for head in range(shared * group, (shared + 1) * group):
                    ahead = offsets[heads % len(offsets)]
                    queries[head] += _turned(amplitude, phase + ahead * turns)[:, None] * common / length
                    heads += 1


def _turned(amplitude: Tensor, angle: Tensor) -> Tensor:
    """A head's vector with this amplitude and angle in each rotary channel pair, ``[width / 2]`` → ``[width]``."""
    return torch.cat((amplitude * angle.cos(), amplitude * angle.sin()))


class Exported(Initialiser):
    """The weights of an exported model of the same dimensions, whatever its attention pattern and objective were: how
    an autoregressive model becomes a denoiser.

    folder: an exported folder, or one of stock transformers with the same names. States that it lacks (a mask), and
    time conditioning, QK-norm, self-conditioning or a marker that it has not, start as in a new model. A folder that
    Sumi did not write is compared with stock transformers, logit by logit, before anything is trained.
    """

    @dataclass
    class Options(Part.Options):
        folder: Annotated[
            str,
            Field(description="the exported model that the weights are read from; relative to the project's folder"),
        ] = location()
        mask_row: Annotated[MaskRow, Field(description=_MASK_ROW)] = later("random")

    def identity(self) -> dict[str, Any]:
        """The digest of the weights."""
        return {"weights": weights_identity(self._folder())}

    def fill(self, denoiser: Denoiser, seed: int, num_tokens: int) -> None:
        folder = self._folder()
        stock = check_config(folder, denoiser.config)
        tensors = Tensors(weight_files(folder))
        _fill_from(tensors, folder, denoiser, seed, num_tokens, mask_row=self.options.mask_row)
        check_logits(folder, stock, tensors, denoiser.config)

    def _folder(self) -> Path:
        return project_path(self.options.folder)


class Cell(Initialiser):
    """The trained weights of another cell of the project, whatever its attention pattern and objective were: how a
    training goes on with other data, longer texts, or as a denoiser.

    of: the cell, or a group of seeds, of which that of the same seed is meant. Its dimensions and its tokenizer must be
    this one's. A mask that only this model has, and time conditioning, QK-norm, self-conditioning or a marker that only
    this one has, start as in a new model; a mask that only the other had is dropped.
    """

    @dataclass
    class Options(Part.Options):
        of: Annotated[Any | None, Field(description="the cell, or group of seeds, that the weights come from")] = (
            stage_ref("pretrained_denoiser")
        )
        mask_row: Annotated[MaskRow, Field(description=_MASK_ROW)] = later("random")

    @classmethod
    def incompatibility(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[str, str] | None:
        cell, there = own["of"]["cell"], own["of"]["experiment"]
        for key in _DIMENSIONS:
            was, here = there["model"][key], others["model"][key]
            if was != here:
                return f"model.{key}", f"is {here}, and {was} in '{cell}', where the weights start; set it to {was}"
        if there["model"]["qk_norm"] and not others["model"]["qk_norm"]:
            return "model.qk_norm", f"is false, and true in '{cell}', where the weights start; set it to true"
        if there["model"]["marker"] and not others["model"]["marker"]:
            return "model.marker", f"is false, and true in '{cell}', where the weights start; set it to true"
        conditioning, was = others["model"]["time_conditioning"], there["model"]["time_conditioning"]
        if was not in ("none", conditioning):
            problem = f"is {conditioning}, and {was} in '{cell}', where the weights start; set it to {was}"
            return "model.time_conditioning", problem
        form, was = others["model"]["feedback"], there["model"]["feedback"]
        if was and not FEEDBACK.get(was["name"]).stock and (form or {}).get("name") != was["name"]:
            problem = f"is {form['name'] if form else 'null'}, and {was['name']} in '{cell}', where the weights start; "
            return "model.feedback", f"{problem}set it to {was['name']}"
        return other_tokens(cell, there, others, "where the weights start")

    def fill(self, denoiser: Denoiser, seed: int, num_tokens: int) -> None:
        path = referenced_folder(self.options.of) / "weights.safetensors"
        if not path.is_file():
            raise InitialiserError(f"there is no {path}; compute '{self.options.of['cell']}' again")
        _fill_from(
            Tensors({path: None}), path, denoiser, seed, num_tokens, drop_mask=True, mask_row=self.options.mask_row
        )


def other_tokens(cell: str, there: Mapping[str, Any], others: Mapping[str, Any], role: str) -> tuple[str, str] | None:
    """Key and sentence where a cell's model knows other tokens than an experiment has, or None. there, others: the
    sections of both. role: what the cell is to the experiment."""
    if others["tokenizer"] != there["tokenizer"]:
        problem = f"is not that of '{cell}', whose weights know its tokens only; write the same tokenizer"
        return "tokenizer", problem
    learns = getattr(TOKENIZERS.get(others["tokenizer"]["name"]), "learns", True)
    if learns and others["corpus"] != there["corpus"]:
        name = others["tokenizer"]["name"]
        problem = (
            f"is not that of '{cell}', {role}, and a {name} tokenizer that learns from another corpus is another one; "
            "write the same corpus, or a tokenizer that learns nothing, such as byte"
        )
        return "corpus", problem
    return None


@no_grad
def _fill_from(
    tensors: Tensors,
    place: Path,
    denoiser: Denoiser,
    seed: int,
    num_tokens: int,
    *,
    drop_mask: bool = False,
    mask_row: str = "random",
) -> None:
    """Fill a denoiser from the weights of another, and what they lack at random. place: the file or folder that holds
    them. drop_mask: they may have a mask, a row after the tokens, that the denoiser lacks. mask_row: ``mean`` makes the
    row of a mask that they lack the mean of the tokens' rows. Raises InitialiserError."""
    denoiser.initialize(seed)
    parameters = dict(denoiser.named_parameters())
    _check_names(place, tensors, parameters)
    for name in sorted(parameters.keys() & tensors.names()):
        values, parameter = tensors.read(name), parameters[name]
        known: Tensor = parameter
        if name in _PER_STATE and len(values) == num_tokens < len(parameter):
            known = parameter[:num_tokens]
        elif drop_mask and name in _PER_STATE and len(values) == num_tokens + 1 == len(parameter) + 1:
            values = values[:num_tokens]
        if values.shape != known.shape or not values.is_floating_point():
            kind = "" if values.is_floating_point() else f"{str(values.dtype).removeprefix('torch.')} "
            raise InitialiserError(
                f"{tensors.path(name)}: '{name}' is {kind}{list(values.shape)}, here it would be "
                f"{list(parameter.shape)}; give model the dimensions, and the experiment the tokenizer, of that one"
            )
        known.copy_(values)
        if mask_row == "mean" and len(known) < len(parameter):
            if len(parameter) > num_tokens + 1:  # alike, they could not be told apart
                problem = f"starts one mask, and this process has {len(parameter) - num_tokens} states beside tokens"
                raise InitialiserError(f"model.initialiser.mask_row: mean {problem}; write random")
            parameter[num_tokens:] = known.mean(0)


def _check_names(place: Path, tensors: Tensors, parameters: Mapping[str, Tensor]) -> None:
    """Both have the same tensors, but for modules that only a successor has, and for a head of the file's own where the
    model's is its table. Raises InitialiserError."""
    present = tensors.names()
    table, head = _PER_STATE
    for name in sorted(parameters.keys() - present):
        if name == head and table in present:
            problem = f"{place} has no '{head}': its head is its table; set model.tie_embeddings to true"
            raise InitialiserError(problem)
        if not any(module in name for module in _ADDED):
            raise InitialiserError(f"{place} has no '{name}'; give model the dimensions of that one")
    for name in sorted(present - parameters.keys()):
        if "q_norm" in name or "k_norm" in name:
            raise InitialiserError(f"{tensors.path(name)} holds '{name}'; set model.qk_norm to true")
        if not (name == head and tensors.read(head).equal(tensors.read(table))):
            raise InitialiserError(
                f"{tensors.path(name)} holds '{name}', which this model lacks; give model the dimensions, and the "
                "head, of that one"
            )
