"""What the figures and columns of a comparison mean, in the words of its pages."""

from __future__ import annotations

from collections.abc import Iterable

from sumi_core.reports.readings import INITIAL, PREFIX, READINGS
from sumi_core.reports.row import COLUMNS

LEGEND = (
    "bits per byte of validation text: ≤ upper bound, = exact, ± one standard error over documents; names in "
    "brackets are yardsticks, fitted on the same train split. Differences are paired, text by text, unless marked."
)
NOTES = (
    "a row is a method: the cells that differ only in their seed. Its figure is the mean over them.",
    "± over documents: had other validation documents been drawn, the models as they are (jackknife over documents "
    "of the mean over seeds). ± over seeds: had other seeds been trained, the documents as they are (standard "
    "deviation of the seeds' figures / √seeds). ±: √(documents² + seeds²); without the second part where there is one "
    "seed.",
    "differences: on the same texts, sequence by sequence (paired), and seed by seed over the seeds that both have; "
    "where they share none, the variation of both between seeds is in the error; where the texts differ, the error is "
    "that of two independent figures.",
    "95 % interval: ± √((t · se over documents)² + (t′ · se over seeds)²), Student's t with n − 1 and t′ with seeds − "
    "1 degrees of freedom (Howe 1974), n = (Σ bytes)² / Σ bytes² how many documents of one size would say as much "
    "(Kish 1965); of this difference alone; the primary one. bootstrap 95 %: percentiles "
    "of 2,000 draws of documents and, independently, of seeds, n − 1 of n with replacement; with two or three seeds it "
    "is too narrow.",
    "p: two-sided, the level at which that interval just reaches 0, Holm-corrected: over the differences to the "
    "reference where the sweep names one, else, and in the table of every pair, over all pairs of this report.",
    "rank: 1 + the number of methods that are significantly better, corrected over all pairs, so those that are not "
    "told apart may share one. Neither p nor rank where a side has one seed: that difference is between two trained "
    "models.",
    "supervised: share of the tokens seen that had a loss, mean over the training: all under uniform noise, the masked "
    "ones under absorbing noise, those whose clock ran under span clocks.",
    "a bound (≤) may lie above its model's own bits per byte by an unknown amount, an exact figure (=) does not: such "
    "a difference compares what can be guaranteed.",
    READINGS,
    "Monte-Carlo error: the part of ± that comes from noise levels and noise, on these same sequences. noise of one "
    "draw: standard deviation of the bound of one sequence from one noise level and one corruption, in bits per byte: "
    "what a schedule makes small.",
    "gradient norm: of updates before clipping, mean over the last tenth of training. gradient variance: trace of the "
    "covariance of a batch's training gradient at the final weights, the data held fixed.",
    "costs are means over seeds; peak memory is the largest: allocated on a GPU, resident in the process on a CPU. "
    "tokens/s leaves validation and checkpoints out.",
    "± of sample metrics: over the sampled texts; of several seeds, √(samples² + seeds²).",
    "samples shown are the first drawn of a method's first seed, not chosen; invisible characters are written as "
    "escapes.",
    "FLOPs: forward and backward, 6 for each weight that multiplies a token, plus attention (2204.02311, appendix B) "
    "and time conditioning.",
)


def column_definitions(names: Iterable[str]) -> list[tuple[str, str]]:
    """What each column of the tables is; ``axis.<axis>`` is the label of a cell, ``reading.<name>`` a likelihood,
    ``initial.<name>`` one of the weights that the training began with."""
    return [(name, COLUMNS.get(name) or _definition(name)) for name in names]


def _definition(name: str) -> str:
    if name.startswith(PREFIX):
        return f"bits per byte, or their standard error, of the reading {name.removeprefix(PREFIX)}"
    if name.startswith(INITIAL):
        return f"bits per byte, or their standard error, of the reading {name.removeprefix(INITIAL)} at step 0"
    return f"label on the axis {name.removeprefix('axis.')}; empty for a yardstick"
