"""Bits per byte as the size of a file: validation text, coded by the model's own next-token predictions and decoded
again, byte for byte.

packed.parquet    the file: 32-bit words, and how many texts of how many tokens it holds
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.evaluation.contradictions import file_contradiction
from sumi_core.evaluation.measurement import Context, Findings, Measurement, Model, named_estimates
from sumi_core.evaluation.samples import evenly
from sumi_core.objectives.likelihood import ChainRule
from sumi_core.sampling.coding import pack, unpack

if TYPE_CHECKING:
    from torch import Tensor

_ROUNDED_UP = 2.0**-23  # at most, of a probability: to multiples of 2^−24, one of them kept for every token
_SAME = 1e-4  # relative: one pass over a text and one call for each of its tokens round differently
_DEFINITION = (
    "coded bits per byte: the size of a file that holds validation texts, coded by the model's next-token predictions, "
    "over their bytes; the file was decoded and compared with the texts, byte for byte. predicted: what the likelihood "
    "says of the same texts. The coder's own loss is the difference: rounded probabilities and the end of the file. "
    "A decoder needs the model too."
)


class Coding(Measurement):
    """A file of validation texts; empty for a model that has no exact next-token reading."""

    reads = ("sequences",)

    @dataclass
    class Options(Part.Options):
        """texts: sequences that the file holds, of those that are evaluated."""

        texts: Annotated[int, Field(ge=1, le=4096, description="validation sequences that the file holds")] = 16

    def run(self, model: Model, context: Context) -> Findings:
        """Pack, unpack and compare. Raises RuntimeError where another text comes out."""
        reading = model.objective.readings.get("autoregressive")
        if not isinstance(reading, ChainRule):
            return Findings()
        import pandas as pd

        rows = np.stack(evenly(context.tokens, self.options.texts))
        texts = torch.from_numpy(rows)
        vocabulary = Vocabulary(reading.num_tokens, reading.eos_id)
        context.progress(0, 2, "passes", "packing validation text")
        packed = pack(model.denoiser, texts, vocabulary)
        context.progress(1, 2, "passes", "unpacking it")
        again = unpack(model.denoiser, packed, len(rows), rows.shape[1], vocabulary)
        context.progress(2, 2, "passes", "unpacking it")
        if not torch.equal(again, texts):
            raise RuntimeError("a packed text was unpacked as another one: the model does not compute the same twice")
        size = sum(len(model.tokenizer.decode_bytes(row)) for row in rows)
        with torch.no_grad():
            nats = reading.token_nats(model.denoiser, texts.to(model.device)).double()
        figures = {
            "bits_per_byte": packed.nbytes * 8 / size,
            "predicted_bits_per_byte": float(nats.sum()) / math.log(2) / size,
            "file_bytes": float(packed.nbytes),
            "text_bytes": float(size),
        }
        table = pd.DataFrame([{"packed": packed.tobytes(), "texts": len(rows), "tokens": rows.shape[1]}])
        return Findings(
            summary={"coding": figures},
            estimates=named_estimates("coding", figures),
            tables={"packed.parquet": table},
            texts=(
                "## A file that unpacks",
                _sentence(figures),
                *file_contradiction(packed.nbytes * 8, least_bits(nats)),
            ),
            definitions=(_DEFINITION,),
        )


def least_bits(nats: Tensor) -> float:
    """The fewest bits that the coder may spend on tokens of −log p ``nats``, float64, of any shape."""
    return float(-((-nats).exp() + _ROUNDED_UP).log2().sum()) * (1 - _SAME)


def _sentence(figures: dict[str, float]) -> str:
    return (
        f"{figures['text_bytes']:,.0f} bytes of validation text make a file of {figures['file_bytes']:,.0f} bytes, "
        f"{figures['bits_per_byte']:.4f} bits per byte; the likelihood says {figures['predicted_bits_per_byte']:.4f}. "
        "Decoded by the same model, the file gives the text back, byte for byte."
    )
