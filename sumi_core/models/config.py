"""The section ``model`` of an experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from sumi_core.base.options import later, part
from sumi_core.models import ATTENTION_PATTERNS, FEEDBACK, INITIALISERS

TIME_WIDTH = 128  # width of the embedded noise level, as in SEDD (2310.16834) and MDLM (2406.07524)


@dataclass
class ModelConfig:
    """The denoiser's dimensions. ``preset`` fills in what is not written; it is a label and no identity field."""

    preset: Annotated[
        str | None, Field(description="a named size that fills in the dimensions which are not written; only a label")
    ] = None
    hidden_size: Annotated[int, Field(ge=2, le=2**16, description="width of the residual stream")] = 128
    intermediate_size: Annotated[int, Field(ge=1, le=2**20, description="width of the feed-forward layers")] = 352
    num_layers: Annotated[int, Field(ge=1, le=1000, description="number of transformer blocks")] = 4
    num_heads: Annotated[
        int,
        Field(
            ge=1, le=1024, description="query heads of a block; each is hidden_size / num_heads wide, an even number"
        ),
    ] = 4
    num_kv_heads: Annotated[
        int, Field(ge=1, le=1024, description="key-value heads of a block; a divisor of num_heads")
    ] = 2
    rope_theta: Annotated[float, Field(gt=0.0, description="base of the rotary frequencies")] = 10000.0
    norm_epsilon: Annotated[float, Field(gt=0.0, description="added to the mean square in every RMSNorm")] = 1e-5
    tie_embeddings: Annotated[bool, Field(description="use the embedding table as the output head too")] = False
    qk_norm: Annotated[bool, Field(description="normalise queries and keys, each head by itself")] = False
    attention: Annotated[Any, Field(description="which positions see which")] = part(
        ATTENTION_PATTERNS, "bidirectional"
    )
    time_conditioning: Annotated[
        Literal["none", "adaln", "token"],
        Field(description="how the denoiser is given the noise level: not, by modulated norms, or by an extra token"),
    ] = "none"
    marker: Annotated[
        bool,
        Field(description="add a vector of its own to the embeddings of slots in noise, beside those of clean text"),
    ] = later(False)
    init_std: Annotated[float, Field(gt=0.0, le=10.0, description="standard deviation of random weights")] = 0.02
    initialiser: Annotated[Any, Field(description="where the weights start")] = part(INITIALISERS, "random")
    feedback: Annotated[
        Any,
        Field(description="how the predictions of an earlier pass enter the embeddings; null: they do not"),
    ] = part(FEEDBACK, None, optional=True, later=True)
