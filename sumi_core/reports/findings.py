"""The findings of a comparison and their certainty, in sentences made from its rows."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from sumi_core.base.text import counted, short_count, visible, with_error
from sumi_core.reports.differences import Difference
from sumi_core.reports.readings import readings_differ
from sumi_core.reports.row import Row
from sumi_core.reports.table import Comparison, standing

_EQUAL_SUPERVISION = 0.05  # counts, or shares, of supervised tokens closer than this are called equal
_EVEN = 0.7  # of documents: with fewer effective ones, intervals were seen to hold less often than they say
_NAMED = 6  # methods named in one sentence; more are counted


def findings(comparison: Comparison) -> list[str]:
    """What was found, in two to four sentences: the best, what differs from the reference and what does not, what is
    missing."""
    sentences = [standing(comparison)]
    if comparison.reference_missing and comparison.reference:
        sentences.append(f"{comparison.asked_reference} has no figures, so differences are to the best.")
    sentences += _readings(comparison)
    compared = [row for row in comparison.method_rows if row.difference is not None]
    parts = {
        "better": [row for row in compared if row.significant and (row.difference or 0) < 0],
        "worse": [row for row in compared if row.significant and (row.difference or 0) > 0],
        "not told apart": [row for row in compared if row.significant is False],
    }
    parted = [f"{word}: {_enumerated(rows)}" for word, rows in parts.items() if rows]
    if parted:
        of_methods = sum(map(len, parts.values()))
        over = f" (corrected over the {of_methods} differences to it)" if comparison.planned and of_methods > 1 else ""
        sentences.append(f"Against {comparison.reference}{over}, in bits per byte, {'; '.join(parted)}.")
    if alone := [row for row in compared if row.significant is None]:
        these = "these trained models with one seed" if parted else "these trained models"
        sentences.append(f"In bits per byte, {these} differ from {comparison.reference}: {_enumerated(alone)}.")
    if comparison.contrasts:
        parted = [f"{d.first} − {d.second}: {signed(d.value, d.stderr)} ({_verdict(d)})" for d in comparison.contrasts]
        over = f", Holm-corrected over these {len(parted)}" if len(parted) > 1 else ""
        sentences.append(f"Named beforehand, in bits per byte{over}: {'; '.join(parted)}.")
    missing = [row for row in comparison.cell_rows if row.bits_per_byte is None]
    if missing:
        named = ", ".join(f"{row.name} ({row.state})" for row in missing[:_NAMED])
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        of = counted(len(comparison.cell_rows), "cell")
        sentences.append(f"No figures yet for {len(missing)} of {of}: {named}{more}.")
    return sentences


def _readings(comparison: Comparison) -> list[str]:
    """A caution where exact figures and bounds, or bounds of different readings, are ranked together."""
    ranked = [row for row in comparison.method_rows if row.bits_per_byte is not None]
    mixed = len({row.exact for row in ranked}) > 1
    bounds = [row for row in ranked if row.exact is False]
    if not mixed and not readings_differ(bounds):
        return []
    kinds: dict[str, list[str]] = {}
    for row in ranked:
        kinds.setdefault(" ".join(filter(None, (row.reading, row.sign))), []).append(row.name)
    parted = "; ".join(f"{kind}: {_named(names)}" for kind, names in kinds.items())
    cautions = ["a bound (≤) above an exact figure (=) may be loose, and its model the better one"] if mixed else []
    if readings_differ(bounds):
        cautions.append("of two bounds the smaller one need not be of the better model")
    return [f"What is compared are different readings, {parted}: {'; '.join(cautions)}."]


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _verdict(d: Difference) -> str:
    if not d.of_methods:
        return "of these trained models"
    return f"{'differ' if d.significant else 'not told apart'}, p = {d.p_adjusted:.2g}"


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
            "Every figure is of one training seed, so differences are between these trained models. Errors and "
            "intervals speak of other validation text; under other seeds the order may be another one, so there are "
            "neither ranks nor p-values. A verdict on methods takes several seeds (an axis 'seed')."
        )
    else:
        range_ = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        sentences.append(
            f"Figures are means over {range_} training seeds. ± combines two errors, over validation documents and "
            "over seeds; variation that they share is counted in both, so ± is conservative."
        )
        if alone := [row.name for row in measured if (row.seeds or 1) == 1]:
            sentences.append(
                f"One seed only: {', '.join(alone)}. These are trained models: their errors contain no variation "
                "between seeds, and they and the differences to them have neither rank nor p-value."
            )
    if lesser := [row for row in measured if row.seeds_compared and row.seeds_compared < (row.seeds or 1)]:
        named = ", ".join(f"{row.name} ({row.seeds_compared} of {row.seeds})" for row in lesser)
        sentences.append(f"Differences to {comparison.reference} use the seeds that both have: {named}.")
    sentences += [*_supervision(measured), *_uneven_documents(measured)]
    if compared := [row for row in measured if row.significant is not None]:
        over = "all pairs"
        if comparison.planned:
            these = "the one difference" if len(compared) == 1 else f"the {len(compared)} differences"
            over = f"{these} to {comparison.reference}, which was named beforehand; ranks are corrected over all pairs"
        sentences.append(
            "Intervals and p-values use Student's t. Each interval is for one difference alone; p-values are "
            f"Holm-corrected over {over}. The bootstrap interval, resampled over documents and seeds, is shown as a "
            "check on their shape; no verdict uses it. A difference that is not significant does not show that two "
            "methods are equal: its interval shows how large the difference could be."
        )
    return sentences


def _supervision(measured: Sequence[Row]) -> list[str]:
    """Whether some were trained on a loss at more of their tokens than others."""
    shares = {row.name: row.supervised_share for row in measured if row.supervised_share is not None}
    counts = {row.name: shares[row.name] * (row.tokens_seen or 0) for row in measured if row.name in shares}
    least, most = min(counts.values(), default=0.0), max(counts.values(), default=0.0)
    alike = max(shares.values(), default=1.0) - min(shares.values(), default=1.0) <= _EQUAL_SUPERVISION
    if alike or most - least <= _EQUAL_SUPERVISION * most:
        return []
    fewest, fullest = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    return [
        f"The cells differ in supervision: {short_count(least)} tokens had a loss for {fewest}, {short_count(most)} "
        f"for {fullest}. A difference may come from the number of supervised tokens rather than from what the cells "
        "are named after; budget: {supervised_tokens: …} makes the numbers equal."
    ]


def _uneven_documents(measured: Sequence[Row]) -> list[str]:
    """What documents of very different size do to an interval."""
    uneven = [r for r in measured if r.documents and (r.effective_documents or r.documents) < _EVEN * r.documents]
    if not uneven:
        return []
    row = min(uneven, key=lambda r: r.effective_documents or 0.0)
    return [
        f"The {row.documents} validation documents differ so much in size that they say as much as "
        f"{row.effective_documents:.0f} of one size. Where difficulty goes with size, an interval of 95 % then holds "
        "in 75 to 90 % of cases (docs/concepts.md, Uneven documents)."
    ]


def changed(comparison: Comparison) -> str:
    """What was changed on the command line, in full: names may shorten it."""
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
