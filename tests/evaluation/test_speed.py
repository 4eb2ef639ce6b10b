"""Quality against calls and time: figures that are counted by hand, and times of a clock that the test turns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.collections import PathCollection

from sumi_core.base.hashing import flatten
from sumi_core.base.options import ConfigError
from sumi_core.base.progress import unwatched
from sumi_core.data import TOKENIZERS
from sumi_core.data.batch import Batch
from sumi_core.data.tokenizers.tokenizer import Tokenizer
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.evaluation.config import EvaluationConfig
from sumi_core.evaluation.measurement import (
    Context,
    Findings,
    Model,
    declared_model,
    declared_settings,
    write_findings,
)
from sumi_core.evaluation.speed import REFERENCE, Speed
from sumi_core.evaluation.speed_plot import draw_speed, timed_panels
from sumi_core.evaluation.timing import rate, reference_writer, seconds_of
from sumi_core.experiments.resolve import resolve
from sumi_core.layouts.layout import Whole
from sumi_core.lineage.reproduction import is_clock
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import caches
from sumi_core.objectives import OBJECTIVES
from sumi_core.sampling import SAMPLERS
from sumi_core.sampling.suitability import usual_samplers
from tests.corruption.enumerable import build_process
from tests.evaluation import test_tasks as tasks
from tests.evaluation.fakes import EOS, Sequences
from tests.evaluation.test_drafts import LENGTH, made
from tests.layouts.exact import blocks
from tests.models.stock import lively, small

V = tasks.V


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    made = TOKENIZERS.build("byte", {})
    made.train(iter(["text"]))
    return made


def whole(of: tasks.Instances, tokenizer: Tokenizer, noise: str | None, logits: tasks.Logits) -> Model:
    """A model that answers with ``logits``, with an objective to its noise."""
    own = tasks.model(of, tokenizer, noise, logits)
    context = {"process": own.process, "vocabulary": Vocabulary(V, tokenizer.eos_id)}
    objective = OBJECTIVES.build("nelbo" if noise else "autoregressive", {}, **context)
    return dataclasses.replace(own, objective=objective)


def measure(
    model: Model, of: Any, folder: Path, steps: list[int], source: dict[str, Any], seed: int = 3, **options: Any
) -> Findings:
    sampler = {"name": "ancestral" if model.process else "left_to_right"}
    asked = EvaluationConfig(sampling_steps=steps, seed=seed, samples=6, sequences=6, sampler=sampler)
    context = Context(declared_settings(asked, Speed), of, folder, source=lambda: source)
    return Speed(Speed.Options(**options)).run(declared_model(model, Speed), context)


def of_task(of: tasks.Instances) -> dict[str, Any]:
    return {"name": "task", "task": of.source.options.task}


def asking(count: int = 10, **more: Any) -> dict[str, Any]:
    return {"name": "task_accuracy", "instances": count, "form": "generation", "given": 0.5, **more}


@pytest.mark.parametrize(
    ("noise", "expected"),
    [
        ("absorbing", [("ancestral", 2), ("ancestral", 4), ("first_hitting", 20)]),
        ("uniform", [("ancestral", 2), ("ancestral", 4)]),
        (None, [("left_to_right", 20)]),
    ],
)
def test_a_model_that_knows_the_answers_costs_what_its_samplers_call(
    tokenizer: Tokenizer, noise: str | None, expected: list[tuple[str, int]], tmp_path: Path
) -> None:
    of = tasks.Instances({"name": "shuffle"}, tokenizer)
    own = whole(of, tokenizer, noise, tasks.knowing(of))
    found = measure(own, of, tmp_path, [2, 4], of_task(of), quality=asking(), batches=[])
    table, length, answer = found.tables["speed.parquet"], of.task.length + 1, of.task.answer_length
    assert [*zip(table["sampler"], table["steps"], strict=True)] == expected
    assert (table["quality"] == 1).all()
    assert (table["texts"] == 10).all()
    calls = [steps if name == "ancestral" else answer for name, steps in expected]
    assert table["calls"].to_list() == calls
    assert table["tokens_per_call"].to_list() == [answer / own for own in calls]
    assert (table["token_by_token"] == [name == "left_to_right" for name, _ in expected]).all()
    if noise == "uniform":
        assert table["slots_per_token"].to_list() == [length * own / answer for own in calls]
        assert found.summary["speed"]["ancestral"]["aup"] == pytest.approx(100 * answer / 2)
    assert "speed_times.parquet" not in found.tables
    assert found.plots[0].stat().st_size > 1000
    write_findings(found, tmp_path)  # plain data, no NaN


@pytest.mark.parametrize("form", ["generation", "infilling"])
def test_accuracy_is_that_of_the_measurement_of_tasks(tokenizer: Tokenizer, form: str, tmp_path: Path) -> None:
    of = tasks.Instances({"name": "shuffle", "letters": 3}, tokenizer, 60)
    own = whole(of, tokenizer, "absorbing", tasks.guessing())
    solved = tasks.measure(own, of, tmp_path, [1, 3], forms=[form], instances=40).tables["task_accuracy.parquet"]
    found = measure(own, of, tmp_path, [1, 3], of_task(of), quality=asking(40, form=form), batches=[],
                    samplers=[{"name": "ancestral"}]).tables["speed.parquet"]  # fmt: skip
    assert 0 < found["quality"].min() < 1
    assert found["quality"].to_list() == solved["accuracy"].to_list()
    assert found["quality_stderr"].to_list() == solved["accuracy_stderr"].to_list()
    assert found["calls"].to_list() == solved["calls"].to_list()
    assert found["tokens_per_call"].to_list() == solved["tokens_per_call"].to_list()


def network(noise: str, **changes: Any) -> Model:
    """A random network over few tokens, with what measures it."""
    process = build_process(noise, "linear", 9)
    context: dict[str, Any] = {"process": process, "vocabulary": Vocabulary(9, EOS), "layout": Whole()}
    denoiser = lively(Denoiser(small(**changes), process.num_states))
    sampler = SAMPLERS.build("ancestral", {}, **context)
    unused: Any = Letters()
    return Model(denoiser, OBJECTIVES.build("nelbo", {}, **context), sampler, process, unused, torch.device("cpu"))


class Letters:
    """Tokens that are letters."""

    eos_id = EOS

    @staticmethod
    def decode(ids: np.ndarray) -> str:
        return " ".join(chr(96 + int(own)) for own in ids)


def test_only_times_differ_when_it_is_measured_again(tmp_path: Path) -> None:
    of, model = Sequences(6, 8, 9), network("uniform")
    first, again, other = (
        measure(model, of, tmp_path / str(n), [2, 3], {"name": "web-bible"}, seed=seed, batches=[1, 3], passes=2)
        for n, seed in enumerate((3, 3, 4))
    )
    assert first.tables["speed.parquet"].equals(again.tables["speed.parquet"])
    assert repr(first.estimates) == repr(again.estimates)  # NaN where a figure has no error
    assert first.plots[0].read_bytes() == again.plots[0].read_bytes()
    assert [file.name for file in first.plots] == ["speed.png", "speed_times.png"]
    compared = [{n: v for n, v in flatten(own.summary) if not is_clock(n)} for own in (first, again)]
    assert compared[0] == compared[1]
    assert not any(name.startswith("speed.times") for name in compared[0]), "every time is a clock's"
    assert any(name.startswith("speed.times") for name, _ in flatten(first.summary))
    assert not first.tables["speed.parquet"].equals(other.tables["speed.parquet"])
    times = first.tables["speed_times.parquet"]
    assert [*zip(times["sampler"], times["steps"], times["batch"], times["tokens"], strict=True)] == [
        (name, steps, batch, 8 * batch)
        for batch in (1, 3)
        for name, steps in ((REFERENCE, 8), ("ancestral", 2), ("ancestral", 3))
    ]
    assert (times["tokens_per_second"] > 0).all()
    assert (times[times["sampler"] == REFERENCE]["speedup"] == 1).all()
    assert set(times["passes"]) == {2}
    assert set(times["threads"]) == {torch.get_num_threads()}
    assert any("Times of this run" in text for text in first.texts)


def test_text_is_judged_by_a_figure_beside_that_of_validation_text(tmp_path: Path) -> None:
    of, model = Sequences(6, 8, 9), network("absorbing")
    found = measure(model, of, tmp_path, [2], {"name": "web-bible"}, batches=[])
    table = found.tables["speed.parquet"]
    share = np.bincount(of.rows.ravel()) / of.rows.size
    entropy = -(share[share > 0] * np.log2(share[share > 0])).sum()
    assert table["reference"].to_list() == pytest.approx([entropy] * 2)
    assert not table["share"].any()
    assert "aup" not in found.summary["speed"]["ancestral"]
    assert any("unigram_entropy of validation text" in text for text in found.texts)
    asked = {"name": "sample_figure", "metric": {"name": "distinct"}, "figure": "distinct_4"}
    with pytest.raises(ValueError, match=r"metric 'distinct' has no figure 'distinct_4'; choose of distinct_1, dist"):
        measure(model, of, tmp_path, [2], {"name": "web-bible"}, quality=asked, batches=[])


def test_contenders_take_turns_and_a_first_pass_is_not_counted() -> None:
    now, log = [0.0], list[tuple[str, int]]()

    def contender(name: str, costs: Iterator[float]) -> Any:
        def write(rows: int) -> None:
            log.append((name, rows))
            now[0] += next(costs)

        return write

    writers = [contender("a", iter([100.0, 1.0, 2.0, 4.0])), contender("b", iter([50.0, 3.0, 2.0, 1.0]))]
    seconds = seconds_of(writers, 7, 3, torch.device("cpu"), unwatched, clock=lambda: now[0])
    assert log == [("a", 7), ("b", 7)] * 4
    assert seconds == [[1.0, 2.0, 4.0], [3.0, 2.0, 1.0]]
    assert rate(seconds[1], 30, seconds[0]) == {"tokens_per_second": 15.0, "speedup": 1.0}  # of 1/3, 1 and 4
    assert rate(seconds[0], 30, None) == {"tokens_per_second": 15.0}


def test_the_reference_has_the_dimensions_of_the_model_and_keeps_keys_and_values() -> None:
    model = network("absorbing", time_conditioning="token")
    made = reference_writer(model)
    assert made is not None
    sampler, own = made
    assert caches(own)
    plain = Denoiser(small(attention="causal"), 9)
    assert own.num_parameters() == plain.num_parameters()
    assert {n: p.shape for n, p in own.named_parameters()} == {n: p.shape for n, p in plain.named_parameters()}
    drawn = sampler.sample(own, num=2, length=6, steps=1, seed=0)
    assert drawn.nfe.tolist() == [6, 6]
    assert drawn.slots.tolist() == [6, 6], "every token once"
    assert reference_writer(dataclasses.replace(model, denoiser=torch.nn.Identity())) is None


def test_usual_samplers_are_those_that_write_with_a_model() -> None:
    masks, noise = build_process("absorbing", "linear", 5), build_process("uniform", "linear", 5)
    assert usual_samplers(None, Whole(), False) == ()
    assert usual_samplers(masks, Whole(), False) == ("ancestral", "first_hitting")
    assert usual_samplers(noise, Whole(), False) == ("ancestral",)
    canvas = ("blockwise", "entropy_bound", "threshold")
    assert usual_samplers(noise, blocks(2, "own"), False) == canvas
    assert usual_samplers(noise, blocks(2, "own"), True) == ("autoregressive", *canvas, "speculative")


def test_a_line_has_its_colour_in_every_panel_and_what_is_beaten_is_hollow() -> None:
    def line(points: list[tuple[float, float]], mark: bool = False) -> pd.DataFrame:
        rows = [{"tokens_per_call": x, "quality": y, "quality_stderr": 0.1} for x, y in points]
        return pd.DataFrame(rows).assign(share=True, token_by_token=mark, reference=float("nan"))

    figure = draw_speed(
        {
            "one": {"ar": line([(1, 0.8)], mark=True), "diffusion": line([(1, 0.7), (4, 0.6)])},
            "other": {"diffusion": line([(1, 0.9)])},
        }
    )
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == ["one", "other"]
    drawn = [[own for own in axes.collections if isinstance(own, PathCollection)] for axes in shown]
    faces = [[[*map(tuple, np.asarray(own.get_facecolor()))] for own in panel] for panel in drawn]
    white = (1.0, 1.0, 1.0, 1.0)
    mark, diffusion, other = faces[0][0][0], faces[0][1], faces[1][0][0]
    assert diffusion == [white, other], "0.7 is beaten by the mark's 0.8 at as many tokens per call"
    assert mark not in (white, other)


def test_times_have_a_panel_for_each_number_of_texts_and_a_mark_for_a_model_of_the_same_size() -> None:
    line = pd.DataFrame({"steps": [2, 4], "tokens_per_call": [4.0, 2.0], "quality": [0.5, 0.6], "quality_stderr": 0.1})
    line = line.assign(share=True, token_by_token=False, reference=float("nan"))
    rows = [
        {"steps": steps, "batch": batch, "tokens_per_second": 80.0 * batch / steps, "speedup": 4.0 / steps}
        for batch in (1, 3)
        for steps in (2, 4)
    ]
    panels = timed_panels({"ancestral": line}, {"ancestral": pd.DataFrame(rows)})
    assert [*panels] == ["one text at a time", "3 texts at once"]
    assert [*panels["3 texts at once"]["ancestral"]["tokens_per_second"]] == [120, 60]
    figure = draw_speed(panels, along="tokens_per_second")
    marks = [[*own.get_xdata()] for own in figure.axes[1].lines if own.get_label() == "autoregressive, same size"]
    assert marks == [[60, 60]]
    assert figure.axes[1].get_xlabel() == "tokens per second"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"name": "speed", "samplers": ["left_to_right"]},
            "tests: evaluation.measurements: speed: sampler 'left_to_right' cannot write with bidirectional attention; "
            "leave it out",
        ),
        (
            {"name": "speed", "samplers": ["blockwise"]},
            "tests: evaluation.measurements: speed: sampler 'blockwise' cannot write under layout 'whole'; choose "
            "ancestral or confidence or entropy_bound or first_hitting or predictor_corrector or self_correction or "
            "threshold, or leave it out",
        ),
        (
            {"name": "speed", "samplers": ["blockwise", "speculative"]},
            "tests: evaluation.measurements: speed: sampler 'speculative' reads what objective 'nelbo' does not train; "
            "leave it out",
        ),
        (
            {"name": "speed", "quality": "task_accuracy"},
            "tests: evaluation.measurements: quality 'task_accuracy' asks the instances of a task, and the corpus is "
            "'web-bible'; write corpus.source: {name: task, task: …}, or choose quality: sample_figure",
        ),
        (
            {"name": "speed", "batches": [1, 1]},
            "tests: evaluation.measurements[1]: batches holds different numbers of texts, each 1 or more",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(change: dict[str, Any], sentence: str) -> None:
    config: dict[str, Any] = {
        "corpus": {"source": "web-bible"},
        "evaluation": {"measurements": ["likelihood", change]},
    }
    if "speculative" in change.get("samplers", []):
        config |= {"model": {"attention": "causal"}, "layout": {"name": "blocks", "read_out": "previous"}}
    with pytest.raises(ConfigError) as raised:
        resolve(config, "tests")
    assert str(raised.value) == sentence


# --- judged by the model itself -------------------------------------------------------------------------------------


def test_texts_are_judged_alike_whoever_wrote_them_by_the_model_s_own_autoregressive_mode(tmp_path: Path) -> None:
    """The cost of the sampler's texts under the chain rule, counted here text by text; its own sampler alone writes."""
    model = made(width=3)
    text = Sequences(5, LENGTH, model.objective.num_tokens)
    settings = EvaluationConfig(samples=40, sequences=5, seed=4, sampler={"name": "speculative", "width": 3})
    context = Context(declared_settings(settings, Speed), text, tmp_path, source=lambda: {"name": "text"})
    options = Speed.Options(quality={"name": "own_cost"}, usual=False, batches=[])
    found = Speed(options).run(declared_model(model, Speed), context)
    (row,) = found.tables["speed.parquet"].to_dict("records")
    assert row["sampler"] == "speculative"
    assert row["title"] == "own cost (nats per token)"
    drawn = model.sampler.sample(model.denoiser, num=40, length=LENGTH, steps=1, seed=4)  # type: ignore[arg-type]
    rule = model.objective.readings["autoregressive"]

    def cost(texts: torch.Tensor) -> float:
        batch = Batch(texts, torch.arange(len(texts)), torch.arange(len(texts)), len(texts), 0, 0)
        return float(rule(model.denoiser, batch, 1e-3).total.mean()) / LENGTH

    assert row["quality"] == pytest.approx(cost(drawn.tokens), abs=1e-9)
    assert row["tokens_per_call"] == pytest.approx(40 * LENGTH / int(drawn.nfe.sum()))
    rows = torch.from_numpy(np.stack([text[i] for i in range(5)]).astype(np.int64))
    assert row["reference"] == pytest.approx(cost(rows), abs=1e-9)


def test_a_model_that_reads_no_text_token_by_token_is_refused() -> None:
    measured = {"measurements": [{"name": "speed", "quality": "own_cost"}]}
    with pytest.raises(ConfigError, match="'own_cost' reads texts token by token, which objective 'nelbo' does not"):
        resolve({"process": "uniform", "evaluation": measured}, "t.yaml")
