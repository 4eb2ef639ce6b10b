"""The rows of a comparison's tables: methods, the origin of their errors, seeds, pairs, contrasts."""

from __future__ import annotations

from sumi_core.base.text import short_bytes, short_count, short_duration, short_interval, with_error
from sumi_core.reports.differences import Difference
from sumi_core.reports.findings import signed
from sumi_core.reports.readings import readings_differ
from sumi_core.reports.row import Row
from sumi_core.reports.table import Comparison

COSTS = (  # the columns that say what a method cost, not what it is worth
    "method",
    "parameters",
    "tokens seen",
    "supervised",
    "training FLOPs",
    "total FLOPs",
    "training time",
    "tokens/s",
    "peak memory",
)


def table_rows(comparison: Comparison) -> list[dict[str, str]]:
    """The comparison as text cells, by column title: a row for each method and yardstick."""
    to_reference = f"to {comparison.reference}" if comparison.reference else "difference"
    rows = [row for row in comparison.rows if row.group is None]
    return [_yardstick(row) if row.kind == "yardstick" else _method(row, to_reference, comparison) for row in rows]


def _yardstick(row: Row) -> dict[str, str]:
    return {"cell": f"[{row.name}]", "bits per byte": f"  {row.bits_per_byte:.3f}"}


def _method(row: Row, to_reference: str, comparison: Comparison) -> dict[str, str]:
    measured = row.bits_per_byte is not None
    seeds = {"seeds": _seeds(row)} if comparison.has_groups else {}
    inherited = any(other.total_flops not in (None, other.flops) for other in comparison.method_rows)
    ranked = any(other.rank is not None for other in comparison.method_rows)
    p = "–" if row.p_adjusted is None else _p(row.p_adjusted)
    verdict = {"p (Holm)": p, "rank": str(row.rank or "–")} if ranked else {}
    reading = {"reading": row.reading or "–"} if readings_differ(comparison.method_rows) else {}
    total = {"total FLOPs": short_count(row.total_flops)} if inherited else {}
    return {
        "cell": row.name,
        "bits per byte": with_error(row.bits_per_byte, row.stderr, row.sign) if measured else row.state,
        **reading,
        **seeds,
        to_reference: "reference" if row.name == comparison.reference else _change(row),
        "95 % interval": short_interval(row.difference_low_95, row.difference_high_95),
        **verdict,
        "method": "/".join(filter(None, (row.objective, row.process, row.schedule))),
        "parameters": short_count(row.parameters),
        "tokens seen": short_count(row.tokens_seen),
        "supervised": _supervised(row),
        "training FLOPs": short_count(row.flops),
        **total,
        "training time": short_duration(row.seconds),
        "tokens/s": short_count(row.tokens_per_second),
        "peak memory": short_bytes(row.peak_memory_bytes),
    }


def _supervised(row: Row) -> str:
    if row.supervised_share is None:
        return "–"
    tokens = None if row.tokens_seen is None else row.supervised_share * row.tokens_seen
    return f"{short_count(tokens)} ({row.supervised_share:.0%})"


def _seeds(row: Row) -> str:
    planned = row.seeds_planned or 1
    return f"{row.seeds or 0} of {planned}" if (row.seeds or 0) < planned else str(planned)


def _change(row: Row) -> str:
    if row.difference is None:
        return "–"
    return signed(row.difference, row.difference_stderr) + ("" if row.paired else " (unpaired)")


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def error_rows(comparison: Comparison) -> list[dict[str, str]]:
    """Where the errors of each method come from, and how noisy its bound and its gradient are. Columns that
    are empty in every row are left out."""
    rows = [
        {
            "cell": row.name,
            "± over documents": with_error(row.stderr_documents, digits=4),
            "± over seeds": with_error(row.stderr_seeds, digits=4),
            "Monte-Carlo error": with_error(row.mc_stderr, digits=4),
            "noise of one draw": with_error(row.draw_deviation),
            "difference: ± over documents": with_error(row.difference_stderr_documents, digits=4),
            "difference: ± over seeds": with_error(row.difference_stderr_seeds, digits=4),
            "bootstrap 95 %": short_interval(row.difference_bootstrap_low_95, row.difference_bootstrap_high_95),
            "gradient norm": with_error(row.gradient_norm),
            "gradient variance": _significant(row.gradient_variance, row.gradient_variance_stderr),
        }
        for row in comparison.method_rows
        if row.bits_per_byte is not None
    ]
    known = [name for name in (rows[0] if rows else ()) if any(row[name] != "–" for row in rows)]
    return [{name: row[name] for name in known} for row in rows] if len(known) > 1 else []


def _significant(value: float | None, stderr: float | None) -> str:
    """Two digits of a figure of any size."""
    error = f" ± {stderr:.1g}" if stderr else ""
    return "–" if value is None else f"{value:.2g}{error}"


def seed_rows(comparison: Comparison) -> list[dict[str, str]]:
    """The cells of the groups, a row each."""
    return [
        {
            "cell": row.name,
            "seed": str(row.seed),
            "bits per byte": row.state
            if row.bits_per_byte is None
            else with_error(row.bits_per_byte, row.stderr, row.sign),
            "training FLOPs": short_count(row.flops),
            "training time": short_duration(row.seconds),
            "peak memory": short_bytes(row.peak_memory_bytes),
        }
        for row in comparison.cell_rows
        if row.group is not None
    ]


def pair_rows(comparison: Comparison) -> list[dict[str, str]]:
    """Every difference, a row each; with a verdict where there are methods with several seeds."""
    ranked = any(d.of_methods for d in comparison.differences)
    return [_pair_row(d, ranked) for d in comparison.differences]


def _pair_row(d: Difference, ranked: bool) -> dict[str, str]:
    verdict = {
        "p (Holm)": _p(d.p_adjusted) if d.of_methods else "–",
        "verdict": "differ" if d.significant else "not told apart" if d.of_methods else "trained models",
    }
    apart = d if d.value >= 0 else d.turned()
    return {
        "better": d.first if d.value <= 0 else d.second,
        "worse": d.second if d.value <= 0 else d.first,
        "bits per byte apart": with_error(apart.value, apart.stderr),
        "95 % interval": short_interval(apart.low_95, apart.high_95),
        "paired": "no" if not d.paired else "texts and seeds" if d.paired_seeds and d.seeds > 1 else "texts",
        "seeds": str(d.seeds),
        **(verdict if ranked else {}),
    }


def contrast_rows(comparison: Comparison) -> list[dict[str, str]]:
    """The differences that were named beforehand, a row each."""
    return [
        {
            "first": d.first,
            "second": d.second,
            "first − second": signed(d.value, d.stderr),
            "95 % interval": short_interval(d.low_95, d.high_95),
            "seeds": str(d.seeds),
            "p (Holm)": _p(d.p_adjusted) if d.of_methods else "–",
            "verdict": "differ" if d.significant else "not told apart" if d.of_methods else "trained models",
        }
        for d in comparison.contrasts
    ]
