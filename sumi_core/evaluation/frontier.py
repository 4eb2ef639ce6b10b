"""The generative frontier: how probable a model's texts are to a scorer, against how varied they are.

Perplexity under another model alone rewards repetition and low temperatures, and entropy alone rewards noise. A sampler
traces a curve through both as its temperature and its number of steps change, and the mark to reach is where validation
text lies: as probable at the same entropy (Pynadath, Shi and Zhang, 2604.02718, who show the two to be parts of the
divergence from the distribution that the scorer stands for; entropy beside generative perplexity also in Zheng et al.,
2409.02908).

frontier.parquet        a row for each temperature and number of steps, and one of validation text
frontier_texts.parquet  a row for each text: what the scorer says of it
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from sumi_core.base.options import part
from sumi_core.base.registry import Part
from sumi_core.base.statistics import Estimate, jackknife_stderr, mean_estimate, ratio_or_nan
from sumi_core.base.text import fenced, markdown_table, with_error
from sumi_core.data.sequences import spread_indices
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.evaluation import SCORERS
from sumi_core.evaluation.definitions import FRONTIER_NOTES, MATCHED
from sumi_core.evaluation.measurement import Context, Findings, Measurement, Model, NamedEstimate
from sumi_core.evaluation.metrics import Distinct, Reference, Repetition
from sumi_core.evaluation.samples import sample_set, shown_text

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from sumi_core.data.tokenizers.tokenizer import Tokenizer
    from sumi_core.evaluation.scorer import OpenScorer, Scorer, Scores
    from sumi_core.sampling.sampler import Sampler
_FIGURES = ("bits_per_byte", "perplexity", "entropy", "distinct_1", "distinct_2", "distinct_3", "repetition_4")
_SHOWN_CHARACTERS = 400


@dataclass(frozen=True)
class Point:
    """Texts of one temperature and number of steps, scored; of validation text both are 0. calls: network calls of a
    text, the mean. figures: by name, ``<name>_stderr`` beside."""

    temperature: float
    steps: int
    calls: float
    tokens: Sequence[NDArray[np.int64]]
    scores: Scores
    figures: Mapping[str, float]


class Frontier(Measurement):
    """Perplexity of generated texts under an independent scorer against their entropy, over temperatures and numbers of
    steps, beside validation text."""

    reads = ("sampling_steps", "sampler", "seed")
    inputs = ("corpus", "token_shards", "exported_model")

    @dataclass
    class Options(Part.Options):
        """scorer: who scores. temperatures: of the sampler, each with every number of ``sampling_steps``. texts: drawn
        at each of these points, and taken from the validation split."""

        scorer: Annotated[Any, Field(description="the autoregressive model that texts are scored with")] = part(
            SCORERS, None
        )
        temperatures: Annotated[
            list[float], Field(min_length=1, description="temperatures of the sampler, each with every number of steps")
        ] = field(default_factory=lambda: [0.6, 0.8, 1.0])
        texts: Annotated[int, Field(ge=2, le=10**5, description="texts at each temperature and number of steps")] = 64

        def check(self) -> None:
            """Raises ValueError for temperatures below 0, or one twice."""
            if any(own < 0 for own in self.temperatures) or len(set(self.temperatures)) < len(self.temperatures):
                raise ValueError("temperatures are different numbers of 0 or more")

    options: Options

    @classmethod
    def incompatibility(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[str, str] | None:
        sampler = others["evaluation"]["sampler"]
        if "temperature" in sampler:
            return None
        problem = f"sampler '{sampler['name']}' has no temperature, along which frontier draws; choose another sampler"
        return "evaluation.sampler", f"{problem}, or leave frontier out"

    def run(self, model: Model, context: Context) -> Findings:
        """Draw, score and describe."""
        made: Scorer = SCORERS.from_config(self.options.scorer)
        scorer = made.opened(model.device)
        length, count = len(context.text[0]), self.options.texts
        chosen = spread_indices(min(count, len(context.text)), len(context.text))
        given = [np.asarray(context.text[index], dtype=np.int64) for index in chosen]
        validation = scored(given, model.tokenizer, scorer, context.batch_size)
        points = self._points(model, context, scorer, length)
        table, matched = frontier_table(points, validation), matched_figures(points, validation)
        statements = _statements(scorer, model, context.corpus())
        return Findings(
            summary={"frontier": _summary(scorer, model, points, validation, matched)},
            estimates=tuple(_estimates(points, validation, matched)),
            tables={"frontier.parquet": table, "frontier_texts.parquet": _texts_table([*points, validation], model)},
            plots=(_plot(table, scorer.name, context),),
            texts=tuple(_report(statements, table, matched, points, model)),
            definitions=FRONTIER_NOTES,
        )

    def _points(self, model: Model, context: Context, scorer: OpenScorer, length: int) -> list[Point]:
        """Rising temperatures, and at each rising steps; a sampler that takes the calls it needs draws once."""
        temperatures = sorted(self.options.temperatures)
        steps_list = sorted(set(context.config.sampling_steps)) if model.sampler.uses_steps else [length]
        grid = [(temperature, steps) for temperature in temperatures for steps in steps_list]
        found: list[Point] = []
        for done, (temperature, steps) in enumerate(grid):
            context.progress(done, len(grid), "sampling runs", f"frontier, temperature {temperature:g}, {steps} steps")
            drawn = at_temperature(model, temperature).sample(
                model.denoiser, num=self.options.texts, length=length, steps=steps, seed=context.config.seed
            )
            rows = list(drawn.tokens.cpu().numpy())
            point = scored(rows, model.tokenizer, scorer, context.batch_size)
            calls = float(drawn.nfe.double().mean())
            found.append(dataclasses.replace(point, temperature=temperature, steps=steps, calls=calls))
        return found


def at_temperature(model: Model, temperature: float) -> Sampler:
    """The model's sampler with another temperature."""
    sampler = model.sampler
    return type(sampler)(
        dataclasses.replace(sampler.options, temperature=temperature),
        process=model.process,
        vocabulary=Vocabulary(sampler.num_tokens, sampler.eos_id),
        layout=sampler.layout,
    )


def scored(
    tokens: Sequence[NDArray[np.int64]], tokenizer: Tokenizer, scorer: OpenScorer, batch_size: int = 64
) -> Point:
    """Sequences of a model's tokens, scored and described, as a point of no temperature and steps."""
    scores = scorer.score(tokens, tokenizer, batch_size)
    bits = ratio_or_nan(scores.nats / math.log(2), scores.bytes)
    nats, entropy = ratio_or_nan(scores.nats, scores.tokens), mean_estimate(scores.entropy)
    perplexity = math.exp(nats.value)
    figures = {"bits_per_byte": bits.value, "bits_per_byte_stderr": bits.stderr}
    figures |= {"perplexity": perplexity, "perplexity_stderr": perplexity * nats.stderr}  # to first order
    figures |= {"entropy": entropy.value, "entropy_stderr": entropy.stderr}
    samples, nothing = sample_set(tokens, tokenizer), Reference(tuple)
    for metric in (Distinct(), Repetition()):
        figures |= metric.compute(samples, nothing)
    return Point(0.0, 0, 0.0, tokens, scores, figures)


def matched_figures(points: Sequence[Point], validation: Point) -> dict[int, Estimate]:
    """By steps, the bits per byte where the entropy is that of validation text; steps without such a place are left
    out. The error is that over texts, of the samples by the jackknife, and of validation text by the slope there."""
    found: dict[int, Estimate] = {}
    for steps in sorted({point.steps for point in points}):
        own = [point.scores for point in points if point.steps == steps]
        target = validation.figures["entropy"]
        value, slope = at_entropy(own, target)
        if math.isnan(value):
            continue
        count = len(own[0].nats)
        kept = [np.delete(np.arange(count), row) for row in range(count)]
        left_out = [at_entropy([_some(scores, rows) for scores in own], target)[0] for rows in kept]
        error = math.nan if any(map(math.isnan, left_out)) else jackknife_stderr(left_out)
        found[steps] = Estimate(value, math.hypot(error, slope * validation.figures["entropy_stderr"]))
    return found


def at_entropy(curve: Sequence[Scores], target: float) -> tuple[float, float]:
    """Bits per byte, and their slope in the entropy, where the line through the points of a curve, in the order of
    their temperatures, first has the entropy ``target``; NaN where it has it nowhere."""
    places = [
        (float(own.entropy.mean()), float(own.nats.sum() / math.log(2) / own.bytes.sum()))
        for own in curve
        if own.bytes.sum()
    ]
    for (low, first), (high, second) in itertools.pairwise(places):
        if min(low, high) <= target <= max(low, high) and low != high:
            slope = (second - first) / (high - low)
            return first + slope * (target - low), slope
    return math.nan, math.nan


def _some(scores: Scores, rows: NDArray[np.int64]) -> Scores:
    return dataclasses.replace(
        scores, **{own.name: getattr(scores, own.name)[rows] for own in dataclasses.fields(scores)}
    )


def frontier_table(points: Sequence[Point], validation: Point) -> pd.DataFrame:
    """Columns kind (samples, validation), temperature, steps, texts, calls, and the figures with their errors."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "kind": "samples" if point.steps else "validation",
                "temperature": point.temperature,
                "steps": point.steps,
                "texts": len(point.tokens),
                "calls": point.calls,
                **point.figures,
            }
            for point in (*points, validation)
        ]
    )


def label(temperature: float) -> str:
    """How figures of a temperature are called.

    >>> label(0.8)
    't0.8'
    """
    return f"t{temperature:g}"


def _known(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if not math.isnan(value)}


def _summary(
    scorer: OpenScorer,
    model: Model,
    points: Sequence[Point],
    validation: Point,
    matched: Mapping[int, Estimate],
) -> dict[str, Any]:
    """``t0.8.steps_32.bits_per_byte`` and so on, ``steps_32.bits_per_byte_at_validation_entropy``, ``validation``."""
    found: dict[str, Any] = {
        "scorer": scorer.name,
        "scorer_is_model": scorer.is_model(model.denoiser),
        "texts": len(points[0].tokens),
        "validation": _known(validation.figures),
    }
    for point in points:
        found.setdefault(label(point.temperature), {})[f"steps_{point.steps}"] = _known(point.figures)
    for steps, (value, stderr) in matched.items():
        found[f"steps_{steps}"] = _known({MATCHED: value, f"{MATCHED}_stderr": stderr})
    return found


def _estimates(points: Sequence[Point], validation: Point, matched: Mapping[int, Estimate]) -> list[NamedEstimate]:
    rows = [
        NamedEstimate(
            "frontier", f"{label(point.temperature)}_{name}", point.steps, point.figures[name], _error(point, name)
        )
        for point in points
        for name in _FIGURES
    ]
    rows += [
        NamedEstimate("frontier_validation", name, 0, validation.figures[name], _error(validation, name))
        for name in _FIGURES
    ]
    return rows + [NamedEstimate("frontier", MATCHED, steps, *own) for steps, own in matched.items()]


def _error(point: Point, name: str) -> float:
    return point.figures.get(f"{name}_stderr", math.nan)


def _texts_table(points: Sequence[Point], model: Model) -> pd.DataFrame:
    import pandas as pd

    rows = [
        {
            "kind": "samples" if point.steps else "validation",
            "temperature": point.temperature,
            "steps": point.steps,
            "text_number": number,
            "nats": point.scores.nats[number],
            "scorer_tokens": point.scores.tokens[number],
            "bytes": point.scores.bytes[number],
            "entropy": point.scores.entropy[number],
            "text": shown_text(ids, model.tokenizer),
        }
        for point in points
        for number, ids in enumerate(point.tokens)
    ]
    return pd.DataFrame(rows)


def _plot(table: pd.DataFrame, scorer: str, context: Context) -> Path:
    from sumi_core.evaluation.frontier_plot import plot_frontier

    return plot_frontier({"": table}, context.plot("frontier.png"), f"Generative frontier, scored by {scorer}")


def _statements(scorer: OpenScorer, model: Model, corpus: Mapping[str, Any]) -> list[str]:
    """Who scored, and what to mind of it."""
    same = scorer.reads_ids_of(model.tokenizer)
    told = [
        f"Scored by {scorer.name}, which reads {'the same tokens' if same else 'the decoded text in its own tokens'}."
    ]
    if scorer.is_model(model.denoiser):
        told.append(
            "It is the model itself: texts that it finds probable are those it writes, whatever they are worth."
        )
    if scorer.corpus is None:
        told.append("What it was trained on is not known; the validation text may have been in it.")
    elif scorer.corpus != corpus:
        told.append("It was trained on another corpus: its figures also show how far that one is from this one.")
    return told


def shown_rows(table: pd.DataFrame) -> list[dict[str, str]]:
    """Rows of ``frontier_table`` as reports print them."""
    return [
        {
            "temperature": f"{row['temperature']:g}" if row["steps"] else "validation text",
            "steps": str(row["steps"] or "–"),
            **{
                name.replace("_", " "): with_error(row[name], row[f"{name}_stderr"])
                for name in ("bits_per_byte", "perplexity", "entropy", "distinct_2", "repetition_4")
            },
        }
        for row in table.to_dict("records")
    ]


def _report(
    statements: Sequence[str],
    table: pd.DataFrame,
    matched: Mapping[int, Estimate],
    points: Sequence[Point],
    model: Model,
) -> list[str]:
    texts = ["## Generative frontier", " ".join(statements), markdown_table(shown_rows(table))]
    for steps, (value, stderr) in matched.items():
        texts.append(f"At the entropy of validation text, {steps} steps: {with_error(value, stderr)} bits per byte.")
    for point in points:
        if point.steps == points[-1].steps:
            text = shown_text(point.tokens[0], model.tokenizer)[:_SHOWN_CHARACTERS]
            texts += [f"### Temperature {point.temperature:g}, {point.steps} steps", fenced(text)]
    return texts
