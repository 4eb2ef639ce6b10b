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
FRONTIER_NOTES = (
    "frontier: bits per byte are −log₂ p of texts under the scorer / UTF-8 bytes of the same texts; ends of text in "
    "them are counted and have no bytes. perplexity: e to the power of the scorer's nats per token of the scorer. Both "
    "are of all texts together, ± over texts (ratio estimate). They say what the scorer expects, not what is true or "
    "makes sense, and bits per byte below those of validation text are of text that is too plain.",
    "entropy: −Σ f log₂ f of the frequencies f of the scorer's tokens within one text, in bits per token; the mean "
    "over texts, ± over texts. It depends on the length of texts, so only equal lengths compare.",
    "at the entropy of validation text: the bits per byte of the samples where the line between two neighbouring "
    "temperatures has the entropy of validation text; nothing where no pair encloses it. ± over texts (jackknife).",
)
MAUVE_NOTES = (
    "mauve: area under the curve of the divergences of generated and validation texts from their mixtures, 1 where "
    "both are alike; N texts on each side, features of multilingual-e5-small, N / 10 clusters by k-means. The mean "
    "over seeds of k-means; ± is the standard deviation over these seeds and says nothing of other texts.",
    "mauve depends on N and on the clusters, so only figures of one N compare; other validation texts, as many and "
    "measured the same way, are the mark to reach, which is below 1.",
)
DOCUMENT_ERROR = (
    "± is one standard error: of bits per byte over validation documents as independent units (ratio estimate; it "
    "contains the Monte-Carlo noise). It says nothing of other training seeds."
)
SPEED_NOTES = (
    "tokens per call: tokens written / network calls; slots per token: tokens that those calls computed / tokens "
    "written, of all texts together.",
    "AUP: accuracy under parallelism (Qian et al. 2026, arXiv 2601.07568), the area under accuracy in percent against "
    "tokens per call, where accuracy y counts as y · exp(−3 (1 − y/y_max)) and points more than 5 points below the one "
    "of fewest tokens per call are left out; y_max is the highest accuracy of the compared methods.",
    "tokens/s, speedup: medians over passes of this run on this machine, in which all samplers took turns; beside an "
    "autoregressive model of the same dimensions that keeps keys and values and writes the same tokens one by one. "
    "Times repeat on no other run, and are no part of what is compared when an evaluation is reproduced.",
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
