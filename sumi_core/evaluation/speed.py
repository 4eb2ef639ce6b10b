"""What speed costs in quality: the texts of several samplers and numbers of steps, judged, counted and timed.

Quality, network calls and computed slots are decided by the model and the seed, and repeat to the bit. Times are those
of one run on one machine: they stand in a table of their own, and whoever compares figures leaves them out.

speed.parquet          a row for each sampler and number of steps: quality, calls, tokens per call, slots per token
speed_times.parquet    a row for each of these, the autoregressive reference and number of texts at once: tokens/s
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from sumi_core.base.options import later, part, parts
from sumi_core.base.registry import Part
from sumi_core.base.text import counted, markdown_table, short_count, with_error
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.evaluation import QUALITIES
from sumi_core.evaluation.definitions import SPEED_NOTES
from sumi_core.evaluation.measurement import Context, Findings, Measurement, Model, NamedEstimate
from sumi_core.evaluation.parallelism import areas_of
from sumi_core.evaluation.timing import Write, machine_of, rate, reference_writer, seconds_of
from sumi_core.objectives import OBJECTIVES
from sumi_core.sampling import SAMPLERS
from sumi_core.sampling.modes import MODES
from sumi_core.sampling.suitability import unsuitable, usual_samplers

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from sumi_core.evaluation.quality import Order, Quality
    from sumi_core.sampling.drawing import Samples
    from sumi_core.sampling.sampler import Sampler

REFERENCE = "reference"  # an autoregressive model of the same size, whose texts nobody reads


class Speed(Measurement):
    """Quality against network calls and time, of each sampler at each number of ``sampling_steps``."""

    reads = ("sequences", "sampling_steps", "sampler", "samples", "seed")
    inputs = ("corpus", "token_shards", "exported_model")

    @dataclass
    class Options(Part.Options):
        quality: Annotated[
            Any,
            Field(description="what judges texts; null: task_accuracy on a corpus of a task, else sample_figure"),
        ] = part(QUALITIES, None, optional=True)
        samplers: Annotated[
            Any,
            Field(description="what writes; none: the evaluation's sampler, and others that are usual for the model"),
        ] = parts(SAMPLERS)
        usual: Annotated[
            bool, Field(description="without named samplers: whether those that are usual for the model write too")
        ] = later(True)
        batches: Annotated[
            list[int], Field(max_length=8, description="numbers of texts at once that are timed; none: nothing is")
        ] = field(default_factory=lambda: [1, 32])
        passes: Annotated[int, Field(ge=1, le=1000, description="timed passes, of which the median is reported")] = 3

        def check(self) -> None:
            """Raises ValueError for numbers of texts that are none, and for one that stands there twice."""
            if any(batch < 1 for batch in self.batches) or len(set(self.batches)) < len(self.batches):
                raise ValueError("batches holds different numbers of texts, each 1 or more")

    options: Options

    @classmethod
    def incompatibility(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[str, str] | None:
        objective = others["objective"]
        trained = OBJECTIVES.get(objective["name"]).modes(objective)
        for sampler in own["samplers"]:
            name = sampler["name"]
            problem = unsuitable(name, others)
            if problem is None and not set(MODES[SAMPLERS.get(name).mode].reads) <= trained.keys():
                problem = f"sampler '{name}' reads what objective '{objective['name']}' does not train; leave it out"
            if problem:
                return "evaluation.measurements", f"speed: {problem}"
        if own["quality"] is None and others["corpus"]["source"]["name"] == "task":
            found: tuple[str, str] | None = QUALITIES.get("task_accuracy").incompatibility({}, others)
            return found
        return None

    def run(self, model: Model, context: Context) -> Findings:
        """Write, judge and time."""
        quality = self._quality(context)
        order = quality.order(model, context)
        writers = self._writers(model, context, order.length)
        table = points_table(writers, order, quality, model, context)
        times = self._times(writers, order, model, context)
        areas = areas_of(table)
        return Findings(
            summary={"speed": _figures(table, times, areas, quality.title, order)},
            estimates=_estimates(table, areas),
            tables={"speed.parquet": table, **({} if times.empty else {"speed_times.parquet": times})},
            plots=tuple(_plots(table, times, f"{quality.title} of {order.of}", context)),
            texts=_texts(table, times, areas, quality.title, order),
            definitions=SPEED_NOTES,
        )

    def _quality(self, context: Context) -> Quality:
        asked = self.options.quality
        if asked is None:
            asked = {"name": "task_accuracy" if context.source()["name"] == "task" else "sample_figure"}
        made: Quality = QUALITIES.from_config(asked)
        return made

    def _writers(self, model: Model, context: Context, length: int) -> list[Writer]:
        """Each sampler at each number of steps."""
        objective = model.objective
        kept = {"process": model.process, "layout": objective.layout}
        vocabulary = Vocabulary(objective.num_tokens, objective.eos_id)
        asked: list[dict[str, Any]] = list(self.options.samplers)
        samplers: dict[str, Sampler] = {
            own["name"]: SAMPLERS.from_config(own, vocabulary=vocabulary, **kept) for own in asked
        }
        if not asked:
            samplers[context.config.sampler["name"]] = model.sampler
            two_modes = "autoregressive" in objective.readings
            usual = usual_samplers(model.process, objective.layout, two_modes) if self.options.usual else ()
            for name in usual:
                if name not in samplers:
                    samplers[name] = SAMPLERS.build(name, {}, vocabulary=vocabulary, **kept)
        return [
            Writer(name, sampler, steps)
            for name, sampler in samplers.items()
            for steps in (sorted(set(context.config.sampling_steps)) if sampler.uses_steps else [length])
        ]

    def _times(self, writers: Sequence[Writer], order: Order, model: Model, context: Context) -> pd.DataFrame:
        """Columns sampler, steps, batch, tokens (of a pass), seconds (median of a pass), tokens_per_second, speedup
        (absent without a reference), passes, threads, machine."""
        import pandas as pd
        import torch

        seed, rows = context.config.seed, list[dict[str, Any]]()
        reference = reference_writer(model)
        contenders: list[tuple[str, int, Write]] = []
        if reference is not None:
            alike = functools.partial(_written, *reference, order, order.length, seed)
            contenders.append((REFERENCE, order.length, alike))
        contenders += [(own.name, own.steps, functools.partial(own.write, model, order, seed)) for own in writers]
        for batch in self.options.batches:
            seconds = seconds_of(
                [write for _, _, write in contenders], batch, self.options.passes, model.device, context.progress
            )
            tokens = order.first(batch)[1]
            for (name, steps, _), own in zip(contenders, seconds, strict=True):
                rows.append(
                    {
                        "sampler": name,
                        "steps": steps,
                        "batch": batch,
                        "tokens": tokens,
                        "seconds": statistics.median(own),
                        **rate(own, tokens, seconds[0] if reference is not None else None),
                        "passes": self.options.passes,
                        "threads": torch.get_num_threads(),
                        "machine": machine_of(model.device),
                    }
                )
        return pd.DataFrame(rows)


@dataclass(frozen=True)
class Writer:
    """A sampler at a number of steps: the tokens of a text, where it takes the calls that it needs."""

    name: str
    sampler: Sampler
    steps: int

    @property
    def token_by_token(self) -> bool:
        """Whether it writes from left to right, one token per call."""
        from sumi_core.sampling.left_to_right import LeftToRight

        return isinstance(self.sampler, LeftToRight)

    def write(self, model: Model, order: Order, seed: int, rows: int | None = None) -> Samples:
        """The texts of an order, or as many as are asked for."""
        return _written(self.sampler, model.denoiser, order, self.steps, seed, rows, told=model.told)


def _written(
    sampler: Sampler, denoiser: Any, order: Order, steps: int, seed: int, rows: int | None, *, told: bool = False
) -> Samples:
    count = order.count if rows is None else rows
    given = order.first(count)[0]
    told = told and given is not None
    return sampler.sample(denoiser, num=count, length=order.length, steps=steps, seed=seed, given=given, told=told)


def points_table(
    writers: Sequence[Writer], order: Order, quality: Quality, model: Model, context: Context
) -> pd.DataFrame:
    """Columns sampler, steps, texts, calls (mean), tokens_per_call, slots_per_token, quality, quality_stderr, title
    (of the quality), of, share (whether more is better, of 1), token_by_token, reference (the quality of validation
    text; NaN where it has none)."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for done, writer in enumerate(writers):
        context.progress(done, len(writers), "sampling runs", f"speed: {writer.name}, {writer.steps} steps")
        drawn = writer.write(model, order, context.config.seed)
        judged, tokens, calls = order.judge(drawn.tokens.cpu().numpy()), int(order.written.sum()), int(drawn.nfe.sum())
        rows.append(
            {
                "sampler": writer.name,
                "steps": writer.steps,
                "texts": order.count,
                "calls": calls / order.count,
                "tokens_per_call": tokens / calls,
                "slots_per_token": int(drawn.slots.sum()) / tokens,
                "quality": judged.value,
                "quality_stderr": judged.stderr,
                "title": quality.title,
                "of": order.of,
                "share": quality.share,
                "token_by_token": writer.token_by_token,
                "reference": float("nan") if order.reference is None else order.reference,
            }
        )
    return pd.DataFrame(rows)


_COUNTED = ("calls", "tokens_per_call", "slots_per_token", "quality")


def _figures(
    table: pd.DataFrame, times: pd.DataFrame, areas: Mapping[str, float], title: str, order: Order
) -> dict[str, Any]:
    """By sampler, then ``steps_8``; times by sampler, ``steps_8``, ``batch_32``."""
    figures: dict[str, Any] = {"quality": title, "of": order.of, "texts": order.count}
    for row in table.to_dict("records"):
        own = {name: float(row[name]) for name in (*_COUNTED, "quality_stderr") if row[name] == row[name]}
        figures.setdefault(row["sampler"], {})[f"steps_{row['steps']}"] = own
    for name, area in areas.items():
        figures[name]["aup"] = area
    for row in times.to_dict("records"):
        timed = figures.setdefault("times", {}).setdefault(row["sampler"], {}).setdefault(f"steps_{row['steps']}", {})
        timed[f"batch_{row['batch']}"] = {n: float(row[n]) for n in ("tokens_per_second", "speedup") if n in row}
    return figures


def _estimates(table: pd.DataFrame, areas: Mapping[str, float]) -> tuple[NamedEstimate, ...]:
    """Without times: these are compared."""
    found = [
        NamedEstimate(
            "speed",
            f"{row['sampler']}_{name}",
            int(row["steps"]),
            float(row[name]),
            float(row["quality_stderr"]) if name == "quality" else float("nan"),
        )
        for row in table.to_dict("records")
        for name in _COUNTED
    ]
    return (*found, *(NamedEstimate("speed", f"{name}_aup", 0, area, float("nan")) for name, area in areas.items()))


def _plots(table: pd.DataFrame, times: pd.DataFrame, title: str, context: Context) -> Iterator[Path]:
    """That of the times is a file of its own, since it is another one whenever it is measured."""
    from sumi_core.evaluation.speed_plot import plot_speed, timed_panels

    lines = {str(name): own for name, own in table.groupby("sampler", sort=False)}
    yield plot_speed({title: lines}, context.plot("speed.png"), "Quality against tokens per call")
    if not times.empty:
        panels = timed_panels(lines, {name: times[times["sampler"] == name] for name in lines})
        yield plot_speed(panels, context.plot("speed_times.png"), f"{title}, against time", "tokens_per_second")


def _texts(
    table: pd.DataFrame, times: pd.DataFrame, areas: Mapping[str, float], title: str, order: Order
) -> tuple[str, ...]:
    """The section of the report: what repeats, then the times of this run."""
    shown = [
        {
            "sampler": row["sampler"],
            "steps": str(row["steps"]),
            title: with_error(row["quality"], row["quality_stderr"]),
            "calls": f"{row['calls']:.1f}",
            "tokens per call": f"{row['tokens_per_call']:.2f}",
            "slots per token": f"{row['slots_per_token']:.1f}",
        }
        for row in table.to_dict("records")
    ]
    texts = ["## Speed against quality", f"{title} of {order.of}, {order.count} texts.", markdown_table(shown)]
    if order.reference is not None:
        texts.append(f"{title} of validation text: {order.reference:.3f}.")
    if areas:
        texts.append("AUP: " + ", ".join(f"{name} {area:.1f}" for name, area in areas.items()) + ".")
    if times.empty:
        return tuple(texts)
    first = times.iloc[0]
    about = f"{first['machine']}, {counted(first['threads'], 'thread')}, medians over {first['passes']} timed turns"
    return (*texts, f"Times of this run: {about}.", markdown_table(_time_rows(times)))


def _time_rows(times: pd.DataFrame) -> list[dict[str, str]]:
    """A row for each sampler and number of steps, two columns for each number of texts at once."""
    rows: list[dict[str, str]] = []
    for (name, steps), group in times.groupby(["sampler", "steps"], sort=False):
        row = {"sampler": "autoregressive, same size" if name == REFERENCE else str(name), "steps": str(steps)}
        for own in group.to_dict("records"):
            row[f"tokens/s, {own['batch']} at once"] = short_count(own["tokens_per_second"])
            row[f"speedup, {own['batch']} at once"] = f"{own['speedup']:.2f}" if "speedup" in own else "–"
        rows.append(row)
    return rows
