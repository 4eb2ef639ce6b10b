"""Accuracy on structured tasks: models that know the answers solve all, and those that guess as many as chance says."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sumi_core.data import SOURCES, TOKENIZERS
from sumi_core.data.sources.task import TaskInstances
from sumi_core.data.tokenizers.tokenizer import Tokenizer
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.evaluation import MEASUREMENTS
from sumi_core.evaluation.config import EvaluationConfig
from sumi_core.evaluation.measurement import (
    Context,
    Findings,
    Model,
    declared_model,
    declared_settings,
    write_findings,
)
from sumi_core.evaluation.tasks import Asked, Tasks
from sumi_core.models.interface import DenoiserInput, FromLogits
from sumi_core.sampling import SAMPLERS
from tests.corruption.enumerable import build_process

V, SURE = 257, 60.0
COUNT = 24
Logits = Callable[[str, int], Tensor]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    made = TOKENIZERS.build("byte", {})
    made.train(iter(["text"]))
    return made


class Instances:
    """The sequences of a corpus of instances."""

    def __init__(self, component: dict[str, Any], tokenizer: Tokenizer, count: int = COUNT) -> None:
        source: TaskInstances = SOURCES.build("task", {"task": component, "instances": count})
        self.source, self.task = source, source.task
        texts = [document.text for document in source.documents()]
        self.rows = [np.append(ids, tokenizer.eos_id) for ids in tokenizer.encode_batch(texts)]
        self.answers = {
            text[: self.task.question_length]: text[self.task.question_length :] for text in texts
        }  # fmt: skip

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.rows[index]

    def bytes(self, index: int) -> int:
        return len(self.rows[index]) - 1

    def document_starts(self, index: int) -> np.ndarray:
        return np.array([0])


def denoiser(of: Instances, logits: Logits, *, autoregressive: bool = False, states: int = V) -> FromLogits:
    """A network that reads the question and gives ``logits(question, place)`` ``[V]`` at each place of the answer."""
    begin = of.task.question_length

    def read(tokens: Tensor, level: Tensor | None) -> Tensor:
        shift = int(autoregressive)  # it is given an end of text first, and at each place what stands before it
        found = torch.zeros(*tokens.shape, states)
        for row, ids in enumerate(tokens[:, shift:].tolist()):
            question = bytes(ids[:begin]).decode()
            for place in range(begin, min(tokens.shape[1], begin + of.task.answer_length)):
                found[row, place, :V] = logits(question, place - begin)
        return found

    return FromLogits(read)


def model(of: Instances, tokenizer: Tokenizer, noise: str | None, logits: Logits) -> Model:
    vocabulary = Vocabulary(V, tokenizer.eos_id)
    process = build_process(noise, "linear", V) if noise else None
    sampler = SAMPLERS.build("ancestral" if noise else "left_to_right", {}, process=process, vocabulary=vocabulary)
    states = process.num_states if process else V
    network: Any = denoiser(of, logits, autoregressive=noise is None, states=states)
    unused: Any = None
    return Model(network, unused, sampler, process, tokenizer, torch.device("cpu"))


def measure(own: Model, of: Instances, folder: Path, steps: list[int], seed: int = 3, **options: Any) -> Findings:
    config = declared_settings(EvaluationConfig(sampling_steps=steps, seed=seed), Tasks)
    component = {"name": "task", "task": of.source.options.task}
    context = Context(config, of, folder, source=lambda: component)
    return MEASUREMENTS.build("tasks", options).run(declared_model(own, Tasks), context)


def knowing(of: Instances) -> Logits:
    """Sure of the stored answer."""

    def logits(question: str, place: int) -> Tensor:
        found = torch.zeros(V)
        found[ord(of.answers[question][place])] = SURE
        return found

    return logits


def guessing(letters: str | None = None) -> Logits:
    """Equal chances of some letters, or of those of the question."""

    def logits(question: str, place: int) -> Tensor:
        found = torch.full((V,), -SURE)
        found[[ord(letter) for letter in letters or question[2:-1]]] = 0.0
        return found

    return logits


@pytest.mark.parametrize("noise", ["absorbing", "uniform", None])
@pytest.mark.parametrize("name", ["shuffle", "sudoku"])
def test_a_model_that_knows_the_answers_solves_all(
    tokenizer: Tokenizer, name: str, noise: str | None, tmp_path: Path
) -> None:
    of = Instances({"name": name}, tokenizer)
    forms = ["generation", "infilling"]
    found = measure(model(of, tokenizer, noise, knowing(of)), of, tmp_path, [2, 3], forms=forms, instances=10)
    table, accuracy = found.tables["tasks.parquet"], found.tables["task_accuracy.parquet"]
    answer = of.task.answer_length
    steps = [2, 3] if noise else [of.task.length + 1]
    assert [*zip(accuracy["form"], accuracy["steps"], strict=True)] == [(form, n) for form in forms for n in steps]
    assert (accuracy["accuracy"] == 1).all()
    assert (accuracy["validity"] == 1).all()
    assert (accuracy["accuracy_stderr"] == 0).all()
    assert (accuracy["high"] == 1).all()
    assert accuracy["low"].to_list() == pytest.approx([10 / (10 + 1.959964**2)] * len(accuracy))  # Wilson at p = 1
    assert len(table) == 10 * len(accuracy)
    assert (table["written"] == table["expected"]).all()
    written = {"generation": answer, "infilling": answer - answer // 2}
    for row in accuracy.to_dict("records"):
        calls = row["steps"] if noise else written[row["form"]]
        assert row["calls"] == calls
        assert row["tokens_per_call"] == pytest.approx(written[row["form"]] / calls)
    summary = found.summary["tasks"]
    assert (summary["task"], summary["instances"]) == (name, 10)
    assert summary["infilling"][f"steps_{steps[0]}"]["accuracy"] == 1
    assert {(own.group, own.name) for own in found.estimates} == {
        ("tasks", f"{form}_{figure}")
        for form in forms
        for figure in ("accuracy", "validity", "calls", "tokens_per_call")
    }
    assert found.plots[0].stat().st_size > 1000
    write_findings(found, tmp_path)  # plain data, no NaN


@pytest.mark.parametrize("size", [2, 3])
def test_a_model_of_exact_marginals_solves_in_one_call_what_the_closed_form_says(
    tokenizer: Tokenizer, size: int, tmp_path: Path
) -> None:
    """Letters of the question, drawn independently: a permutation of two with probability 1/2, of three with 2/9."""
    of = Instances({"name": "shuffle", "letters": size}, tokenizer, 250)
    found = measure(model(of, tokenizer, "absorbing", guessing()), of, tmp_path, [1])
    row = found.tables["task_accuracy.parquet"].iloc[0]
    share, count, expected = row["accuracy"], row["instances"], {2: 1 / 2, 3: 2 / 9}[size]
    assert count == len(of)
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / count)
    assert row["accuracy_stderr"] == pytest.approx(math.sqrt(share * (1 - share) / count))
    assert (row["validity"], row["calls"]) == (1, 1)
    assert any(f"solves {expected:.4g} of the instances" in text for text in found.texts)


def test_a_model_that_guesses_is_right_by_chance(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Of a question `x:z,ab=`, two of z a b and the comma: two pairs of sixteen are right, nine are letters."""
    of = Instances({"name": "replace", "letters": 2}, tokenizer, 250)
    found = measure(model(of, tokenizer, None, guessing()), of, tmp_path, [1])
    row = found.tables["task_accuracy.parquet"].iloc[0]
    for figure, chance in (("accuracy", 2 / 16), ("validity", 9 / 16)):
        assert abs(row[figure] - chance) < 4 * math.sqrt(chance * (1 - chance) / row["instances"])
    assert row["calls"] == 2


def test_a_form_without_a_right_answer_is_valid_and_not_solved(tokenizer: Tokenizer, tmp_path: Path) -> None:
    of = Instances({"name": "reverse", "letters": 6}, tokenizer)
    found = measure(model(of, tokenizer, "absorbing", guessing("q")), of, tmp_path, [1])
    row = found.tables["task_accuracy.parquet"].iloc[0]
    assert (row["accuracy"], row["validity"]) == (0, 1)
    assert any("one right answer" in text for text in found.texts)
    assert any("solves 1 of the instances" in text for text in found.texts), "the closed form"


def test_an_end_of_text_within_an_answer_is_no_part_of_a_right_one(tokenizer: Tokenizer, tmp_path: Path) -> None:
    of = Instances({"name": "json"}, tokenizer)
    knows = knowing(of)

    def ends(question: str, place: int) -> Tensor:
        blank = of.answers[question][place] == " "
        return knows(question, place) if not blank else torch.eye(V)[tokenizer.eos_id] * SURE

    found = measure(model(of, tokenizer, "absorbing", ends), of, tmp_path, [1]).tables["tasks.parquet"]
    assert (found["solved"] == [not answer.endswith(" ") for answer in found["expected"]]).all()
    assert found["solved"].any()
    assert not found["solved"].all()


def test_the_same_evaluation_gives_the_same_answers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    of = Instances({"name": "shuffle", "letters": 3}, tokenizer, 80)
    own = model(of, tokenizer, "uniform", guessing())
    first, again, other = (
        measure(own, of, tmp_path / str(n), [2], seed=seed, forms=["infilling"]).tables["tasks.parquet"]
        for n, seed in enumerate((3, 3, 4))
    )
    assert first.equals(again)
    assert (first["written"] != other["written"]).any()


def test_infilling_gives_the_same_places_whatever_else_is_asked(tokenizer: Tokenizer) -> None:
    of = Instances({"name": "copy", "letters": 9}, tokenizer)
    tokens = np.stack(of.rows)
    few = Asked(of.task, [4, 9], tokens[[4, 9]], ["", ""], 0.5, 3).frozen("infilling")
    more = Asked(of.task, range(COUNT), tokens, [""] * COUNT, 0.5, 3).frozen("infilling")
    assert (few == more[[4, 9]]).all()
    begin = of.task.question_length
    assert more[:, :begin].all()
    assert more[:, -1].all()
    assert (more[:, begin:-1].sum(-1) == 4).all()
    assert len({tuple(row) for row in more}) > COUNT / 2
    plain = Asked(of.task, range(COUNT), tokens, [""] * COUNT, 0.5, 3).frozen("generation")
    assert not plain[:, begin:-1].any()


def test_what_is_given_stands(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Guesses of a letter that no answer has: what is right in the written text was given."""
    of = Instances({"name": "arithmetic", "digits": 8}, tokenizer)
    own = model(of, tokenizer, "uniform", guessing("x"))
    for row in (
        measure(own, of, tmp_path, [3], forms=["infilling"], given=0.25).tables["tasks.parquet"].to_dict("records")
    ):
        kept = [new for new in row["written"] if new != "x"]
        assert len(kept) == 2
        assert row["tokens"] == 6
        assert all(new in ("x", old) for old, new in zip(row["expected"], row["written"], strict=True))


def test_sequences_that_are_not_one_instance_each_are_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    of = Instances({"name": "copy", "letters": 4}, tokenizer)
    of.rows = [np.roll(row, 1) for row in of.rows]
    with pytest.raises(ValueError, match="sequences of 12 tokens are not one instance of the task each, which has 12"):
        measure(model(of, tokenizer, "absorbing", guessing()), of, tmp_path, [1])


def test_a_model_that_trusts_the_question_too_little_is_said_to(tokenizer: Tokenizer, tmp_path: Path) -> None:
    of = Instances({"name": "copy", "letters": 2}, tokenizer, 8)
    for noise, wanted in (("uniform", True), ("absorbing", False), (None, False)):
        found = measure(model(of, tokenizer, noise, knowing(of)), of, tmp_path, [1])
        assert any("trusts it too little" in text for text in found.texts) == wanted


def test_a_model_that_reads_levels_is_told_that_the_question_is_clean(tokenizer: Tokenizer, tmp_path: Path) -> None:
    of = Instances({"name": "copy", "letters": 2}, tokenizer, 8)
    own, levels = model(of, tokenizer, "uniform", knowing(of)), []
    answers = own.denoiser

    def read(tokens: Tensor, level: Tensor | None) -> Tensor:
        assert level is not None
        levels.append(level)
        return answers(DenoiserInput(tokens, level)).logits()

    told = dataclasses.replace(own, denoiser=FromLogits(read), told=True)  # type: ignore[arg-type]
    found = measure(told, of, tmp_path, [2])
    assert not any("trusts it too little" in text for text in found.texts)
    begin = of.task.question_length
    for level in levels:
        assert (level[:, :begin] == 0).all()
        assert (level[:, begin:-1] > 0).all()
        assert (level[:, -1] == 0).all()
