"""The findings of a comparison and their certainty, in sentences made from its rows."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from sumi_core.base.text import counted, visible, with_error
from sumi_core.reports.row import Row
from sumi_core.reports.table import Comparison, standing

_NAMED = 6  # methods named in one sentence; more are counted


def findings(comparison: Comparison) -> list[str]:
    """What was found, in two to four sentences: the best, what differs from the reference and what does not, what is
    missing."""
    sentences = [standing(comparison)]
    if comparison.reference_missing and comparison.reference:
        sentences.append(f"{comparison.asked_reference} has no figures, so differences are to the best.")
    compared = [row for row in comparison.method_rows if row.difference is not None]
    parts = {
        "better": [row for row in compared if row.significant and (row.difference or 0) < 0],
        "worse": [row for row in compared if row.significant and (row.difference or 0) > 0],
        "not to be told apart": [row for row in compared if not row.significant],
    }
    parted = [f"{word}: {_enumerated(rows)}" for word, rows in parts.items() if rows]
    if parted:
        several = comparison.planned and len(compared) > 1
        alone = f" (corrected over the {len(compared)} differences to it)" if several else ""
        sentences.append(f"Against {comparison.reference}{alone}, in bits per byte, {'; '.join(parted)}.")
    missing = [row for row in comparison.cell_rows if row.bits_per_byte is None]
    if missing:
        named = ", ".join(f"{row.name} ({row.state})" for row in missing[:_NAMED])
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        sentences.append(
            f"{len(missing)} of {counted(len(comparison.cell_rows), 'cell')} have no figures: {named}{more}."
        )
    return sentences


def _enumerated(rows: Sequence[Row]) -> str:
    shown = [f"{row.name} ({signed(row.difference or 0.0, row.difference_stderr)})" for row in rows[:_NAMED]]
    return ", ".join(shown) + (f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else "")


def certainty(comparison: Comparison) -> list[str]:
    """How sure the findings are: seeds, intervals, correction."""
    measured = [row for row in comparison.method_rows if row.bits_per_byte is not None]
    if not measured:
        return []
    sentences = []
    counts = sorted({row.seeds or 1 for row in measured})
    if counts[-1] == 1:
        sentences.append(
            "Every figure is of one training seed. Errors and p-values speak of other validation text and contain no "
            "variation between seeds: a difference here is one between trained models, not yet between methods."
        )
    else:
        range_ = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        sentences.append(
            f"Figures are means over {range_} training seeds. ± joins two errors, over validation documents and over "
            "seeds; what both do together is in each, so that ± errs on the large side."
        )
        if alone := [row.name for row in measured if (row.seeds or 1) == 1]:
            sentences.append(
                f"One seed only, so errors and p-values without variation between seeds: {', '.join(alone)}, and every "
                "difference to them."
            )
    if lesser := [row for row in measured if row.seeds_compared and row.seeds_compared < (row.seeds or 1)]:
        named = ", ".join(f"{row.name} ({row.seeds_compared} of {row.seeds})" for row in lesser)
        sentences.append(f"Differences to {comparison.reference} use the seeds that both have: {named}.")
    if compared := [row for row in measured if row.difference is not None]:
        over = "all pairs"
        if comparison.planned:
            these = "the one difference" if len(compared) == 1 else f"the {len(compared)} differences"
            over = f"{these} to {comparison.reference}, which was named beforehand; ranks are corrected over all pairs"
        sentences.append(
            "Intervals and p-values are by Student's t; intervals are of each difference alone, p-values are "
            f"Holm-corrected over {over}. The bootstrap interval, over documents and seeds, stands beside them as a "
            "check on their shape and decides nothing. That two cannot be told apart is no evidence that they are "
            "equal: their interval says how far apart they may be."
        )
    return sentences


def changed(comparison: Comparison) -> str:
    """What was changed on the command line: names are those of the files, and do not show it."""
    return f"Changed on the command line: {shlex.join(comparison.overrides)}" if comparison.overrides else ""


def notes(comparison: Comparison) -> list[str]:
    """One sentence for each cell that has no figures, or has changed since they were measured."""
    return [
        f"{row.name} is {row.state}: {visible(' '.join(row.why.split()))}"
        for row in comparison.cell_rows
        if row.state != "done" or row.why
    ]


def signed(value: float, stderr: float | None) -> str:
    """``+0.012 ± 0.003``."""
    return ("+" if value >= 0 else "") + with_error(value + 0.0, stderr)  # no minus before a zero
