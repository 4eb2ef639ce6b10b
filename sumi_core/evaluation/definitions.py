"""What the figures of an evaluation mean, in the words of reports. Imports nothing heavy: comparisons print them."""

from __future__ import annotations

from collections.abc import Sequence

from sumi_core.evaluation.samples import VALIDATION
from sumi_core.evaluation.yardsticks import NOTES

MATCHED = "bits_per_byte_at_validation_entropy"  # of generative frontiers, by number of steps
BITS_PER_BYTE = (
    "bits per byte: total nats / ln 2 / UTF-8 bytes of the same validation sequences; the nats of end-of-text "
    "tokens are counted, their bytes are 0. ≤ marks an upper bound, estimated by Monte Carlo; = an exact figure."
)
DOCUMENT_ERROR = (
    "± is one standard error: of bits per byte over validation documents as independent units (ratio estimate; it "
    "contains the Monte-Carlo noise). It says nothing of other training seeds."
)
TERM_NOTES = (
    "Monte-Carlo error: over noise levels and noise alone, on these same sequences.",
    "diffusion, reconstruction, prior: the three terms of the bound, in bits per byte: the integral over noise "
    "levels in [ε, 1 − ε], −log p(x|z) at ε, and the divergence of the text noised to 1 − ε from where "
    "the model starts (for masks: α log V).",
)


def footnotes(metric_definitions: Sequence[str]) -> list[str]:
    """Definitions of the figures that comparisons of cells show, one line each."""
    return [BITS_PER_BYTE, *TERM_NOTES, *NOTES, *metric_definitions, VALIDATION]
