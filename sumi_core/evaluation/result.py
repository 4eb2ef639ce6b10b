"""What an evaluation found, as plain data, as a long table and as a page for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sumi_core.base.text import excerpt, fenced, markdown_table, with_error
from sumi_core.evaluation.yardsticks import DEFINITIONS

if TYPE_CHECKING:
    import pandas as pd

    from sumi_core.evaluation.likelihood import LikelihoodSummary


@dataclass(frozen=True)
class Result:
    """Everything an evaluation found."""

    labels: dict[str, str | None]
    summary: LikelihoodSummary
    time_epsilon: float
    curve: pd.DataFrame
    yardsticks: dict[str, float]
    described: dict[str, dict[str, float]]  # "steps_32" or "validation" → name → value
    definitions: list[str]
    sample_texts: dict[int, list[str]]  # by steps
    gradient_noise: dict[str, float] = field(default_factory=dict)  # ``GradientNoise.figures``, where it was measured

    @property
    def sign(self) -> str:
        """How the bits per byte relate to the model's own: ``=`` exact, ``≤`` an upper bound."""
        return "=" if self.summary.exact else "≤"

    def figures(self) -> dict[str, Any]:
        """The stage's summary: plain data without NaN."""
        best = max(self.sample_texts)
        return {
            **self.labels,
            **self.summary.figures(),
            "time_epsilon": self.time_epsilon,
            **({"gradient_noise": self.gradient_noise} if self.gradient_noise else {}),
            "yardsticks": self.yardsticks,
            "samples": {label: _known(figures) for label, figures in self.described.items()},
            "sample_steps": best,
            "sample_text": excerpt(self.sample_texts[best][0], 240),
        }

    def flat(self) -> dict[str, float]:
        """Every number by one name: ``bits_per_byte``, ``yardsticks.xz``, ``samples.steps_32.distinct_2`` …"""
        flat: dict[str, float] = {}
        for key, value in self.figures().items():
            if isinstance(value, dict):
                for inner, item in value.items():
                    deeper = item if isinstance(item, dict) else {"": item}
                    flat.update({f"{key}.{inner}.{name}".rstrip("."): float(number) for name, number in deeper.items()})
            elif isinstance(value, int | float):
                flat[key] = float(value)
        return flat

    def table(self) -> pd.DataFrame:
        """The long table: group (likelihood, gradient_noise, yardstick, samples, validation), name, steps, value,
        stderr."""
        import pandas as pd

        figures = self.summary.figures()
        groups: list[tuple[str, int, dict[str, Any]]] = [
            ("likelihood", 0, {k: v for k, v in figures.items() if not isinstance(v, bool)}),
            ("gradient_noise", 0, self.gradient_noise),
            ("yardstick", 0, self.yardsticks),
        ]
        for label, values in self.described.items():
            steps = int(label.rpartition("_")[2]) if label != "validation" else 0
            groups.append(("samples" if steps else "validation", steps, values))
        rows = [
            (group, name, steps, float(value), float(values.get(f"{name}_stderr", math.nan)))
            for group, steps, values in groups
            for name, value in values.items()
            if not name.endswith("_stderr")
        ]
        return pd.DataFrame(rows, columns=["group", "name", "steps", "value", "stderr"])


def report_markdown(key: str, result: Result) -> str:
    """The evaluation as a page: figures, yardsticks, samples, and what each figure means."""
    summary = result.summary
    terms = [
        {
            "figure": "bits per byte",
            "value": with_error(summary.bits_per_byte, summary.bits_per_byte_stderr, result.sign),
        },
        {
            "figure": "nats per token",
            "value": with_error(summary.nats_per_token, summary.nats_per_token_stderr, result.sign),
        },
    ]
    if not summary.exact:
        terms += [
            {"figure": "Monte-Carlo error alone", "value": with_error(summary.bits_per_byte_mc_stderr, digits=4)},
            {"figure": "diffusion term", "value": with_error(summary.diffusion_bits_per_byte)},
            {"figure": "reconstruction term", "value": with_error(summary.reconstruction_bits_per_byte, digits=4)},
            {"figure": "prior term", "value": with_error(summary.prior_bits_per_byte, digits=4)},
        ]
    terms.append(
        {
            "figure": "measured on",
            "value": f"{summary.sequences} sequences, {summary.tokens} tokens, {summary.bytes} bytes",
        }
    )
    yard = [
        {"yardstick": n, "bits per byte": with_error(v)}
        for n, v in sorted(result.yardsticks.items(), key=lambda x: x[1])
    ]
    kind = "the exact likelihood" if summary.exact else "an upper bound (≤): the model itself can only be better"
    parts = [
        f"# Evaluation of {key}",
        f"Bits per byte are {kind}.",
        markdown_table(terms),
        "## Yardsticks on the same bytes",
        markdown_table(yard),
        "## Samples",
        markdown_table(sample_rows(result.described)),
    ]
    for steps, texts in result.sample_texts.items():
        parts += [f"### {steps} steps", *(fenced(text) for text in texts[:3])]
    first, *others = footnotes(result.definitions)
    notes = [first, _ERROR, *others]
    parts += ["## What the figures mean", "\n".join(f"* {line}" for line in notes)]
    return "\n\n".join(filter(None, parts)) + "\n"


_ERROR = (
    "± is one standard error: of bits per byte over validation documents as independent units (ratio estimate; it "
    "contains the Monte-Carlo noise). It says nothing of other training seeds."
)


def sample_rows(described: Mapping[str, Mapping[str, float]]) -> list[dict[str, str]]:
    """Sample metrics as table rows: one a metric, one column a set."""
    names = dict.fromkeys(n for figures in described.values() for n in figures if not n.endswith("_stderr"))
    return [
        {"metric": name}
        | {
            label.replace("_", " "): with_error(figures.get(name), figures.get(f"{name}_stderr"))
            for label, figures in described.items()
        }
        for name in names
    ]


def footnotes(metric_definitions: Sequence[str]) -> list[str]:
    """Definitions of every figure, one line each."""
    return [
        "bits per byte: total nats / ln 2 / UTF-8 bytes of the same validation sequences; the nats of end-of-text "
        "tokens are counted, their bytes are 0. ≤ marks an upper bound, estimated by Monte Carlo; = an exact figure.",
        "Monte-Carlo error: over noise levels and noise alone, on these same sequences.",
        "diffusion, reconstruction, prior: the three terms of the bound, in bits per byte: the integral over noise "
        "levels in [ε, 1 − ε], −log p(x|z) at ε, and the divergence of the text noised to 1 − ε from where "
        "the model starts (for masks: α log V).",
        *(f"{name}: {definition}." for name, definition in DEFINITIONS.items()),
        "yardsticks are fitted on the train split's first 32 MiB (token frequencies: its first 2^25 tokens).",
        "yardsticks code an end of text as one more symbol, as the model does, and go by the same bytes; the "
        "compressors go on learning from the validation text while they code it.",
        *metric_definitions,
        "validation: the same figures of equally many validation sequences of the same length.",
    ]


def _known(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if not math.isnan(value)}
