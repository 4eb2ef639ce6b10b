"""lm-evaluation-harness on models of a tiny project: local tasks, offline, against what the model itself computes."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pipelines.cli import app
from sumi_core.api import Model, open_model
from sumi_core.base.options import ConfigError
from sumi_core.lineage.project import Project
from sumi_core.models.interface import DenoiserInput
from sumi_core.serving.harness_tasks import TASKS, TaskError, write_tasks
from tests.pipelines.tiny import compute, enter, tiny_project

pytest.importorskip("lm_eval", reason="the extra `harness` is not installed")

TEXTS = [f"{n} and the evening and the morning were the day number {n} of the making, and " * 6 for n in range(5)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    shared = tiny_project(tmp_path_factory)
    project = Project(shutil.copytree(shared.root, tmp_path_factory.mktemp("harness") / "tiny"))
    with pytest.MonkeyPatch.context() as patch:
        enter(project, patch)
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        compute(project, "tiny.left")
        yield project


@pytest.fixture(scope="module")
def uniform(project: Project) -> Model:
    return open_model("tiny.uniform")


@pytest.fixture(scope="module")
def left(project: Project) -> Model:
    return open_model("tiny.left")


def asked(*args: Any, doc: int = 0, idx: int = 0) -> Any:
    return SimpleNamespace(args=args, task_name="task", doc_id=doc, idx=idx)


# --- the adapter ----------------------------------------------------------------------------------------------------


def chain_rule(model: Model, context: str, text: str) -> float:
    """log p(text | context) of byte tokens, from the network's logits."""
    own = list((context + text).encode())
    shown = torch.tensor([[model.exported.tokenizer.eos_id, *own[:-1]]])
    with torch.inference_mode():
        table = model._denoiser(DenoiserInput(shown)).logits()[0].double().log_softmax(-1)
    return float(sum(table[at, token] for at, token in enumerate(own) if at >= len(context.encode())))


def test_an_autoregressive_model_answers_exactly(left: Model) -> None:
    harness = left.harness()
    [(value, greedy)] = harness.loglikelihood([asked("and the", " day")])
    assert value == pytest.approx(chain_rule(left, "and the", " day"), rel=1e-5)
    assert greedy is False
    [(moved, _)] = harness.loglikelihood([asked("and the ", "day")])
    assert moved == pytest.approx(value), "spaces at the end of a context belong to the continuation"
    [rolling] = harness.loglikelihood_rolling([asked("and the day")])
    assert rolling == pytest.approx(chain_rule(left, "", "and the day"), rel=1e-5)


def test_a_long_text_goes_through_windows_that_overlap(left: Model) -> None:
    """Windows of 32 tokens: the first reads 32, each of the others 12 behind 20."""
    text = "and the evening and the morning were the day number 7 of the making"
    [value] = left.harness(overlap=20).loglikelihood_rolling([asked(text)])
    wanted = chain_rule(left, "", text[:32])
    for at in range(32, len(text), 12):
        begin = max(at - 20, 0) if at + 12 <= len(text) else max(len(text) - 32, 0)
        wanted += chain_rule(left, text[begin:at], text[at : at + 12])
    assert value == pytest.approx(wanted, rel=1e-5)


def test_a_diffusion_model_answers_with_a_bound_and_its_error(uniform: Model) -> None:
    harness = uniform.harness(levels=16)
    requests = [asked("and the", f" {end}", idx=number) for number, end in enumerate(("day", "making", "day"))]
    first, second, again = harness.loglikelihood(requests)
    assert first == again, "the options of one question share their noise"
    assert first != second
    assert not first[1], "a bound has no greedy text"
    assert all(answer.halves.size == 8 for answer in harness.answers.values())
    [other] = harness.loglikelihood([asked("and the", " day", doc=1)])
    assert other[0] != first[0], "another question has noise of its own"
    answer = harness.answers["task", 1, 0]
    assert answer.stderr == pytest.approx(float(np.sqrt((answer.halves**2).sum())))
    assert answer.stderr > 0


def test_an_overlap_that_leaves_no_room_is_refused(uniform: Model) -> None:
    with pytest.raises(ConfigError, match="overlap: is 32; a window has 32 tokens, so give fewer"):
        uniform.harness(overlap=32)


@pytest.mark.parametrize("name", ["uniform", "left"])
def test_texts_are_written_up_to_a_stop_string(request: pytest.FixtureRequest, name: str) -> None:
    model: Model = request.getfixturevalue(name)
    harness = model.harness(steps=4)
    options = {"until": ["e"], "max_gen_toks": 12, "do_sample": True, "temperature": 1.0}
    free = harness.generate_until([asked("and the", {**options, "until": []}), asked("the evening", options)])
    again = harness.generate_until([asked("and the", {**options, "until": []}), asked("the evening", options)])
    assert free == again
    assert free[0]
    stop = next(character for character in free[0] if character.isprintable())
    held, _ = harness.generate_until([asked("and the", {**options, "until": [stop]}), asked("the evening", options)])
    assert held == free[0][: free[0].index(stop)]
    empty, _ = harness.generate_until([asked("and the", {**options, "until": [""]}), asked("the evening", options)])
    assert empty == free[0], "an empty string stops nothing"


def test_greedy_requests_are_greedy_where_that_means_something(left: Model) -> None:
    one, two = (left.harness(seed=seed).generate_until([asked("and", {"max_gen_toks": 4})]) for seed in (1, 2))
    assert one == two
    drawn = [
        left.harness(seed=seed).generate_until([asked("and", {"max_gen_toks": 4, "do_sample": True})])
        for seed in (1, 2)
    ]
    assert drawn[0] != drawn[1]


# --- whole runs -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    assert write_tasks(TEXTS, folder, questions=4) == [f"sumi_{name}" for name in TASKS]
    return folder


def test_local_tasks_run_offline_with_both_errors(project: Project, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    command = ["lm-eval", "tiny.uniform", "--include-path", str(folder), "--tasks", "sumi_*", "--levels", "6"]
    result = CliRunner().invoke(app, [*command, "--steps", "2", "--output", str(file)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "lower bounds, from 6 noise levels each" in result.output
    assert "trusts what is given too little" in result.output
    found = json.loads(file.read_text())
    rows = {(row["task"], row["metric"]): row for row in found["table"]}
    assert {task for task, _ in rows} == {f"sumi_{name}" for name in TASKS}
    bits = rows["sumi_rolling", "bits_per_byte"]
    assert bits["kind"] == "upper bound"
    assert bits["mc_stderr"] > 0
    assert rows["sumi_next_word", "exact_match"]["kind"] == "texts"
    assert rows["sumi_next_word", "exact_match"]["mc_stderr"] is None
    assert rows["sumi_cloze", "acc"]["mc_stderr"] >= 0
    [line] = [line for line in result.output.splitlines() if "bits_per_byte" in line]
    assert "≤" in line


def test_the_errors_of_an_exact_model_are_0_and_its_bits_those_of_its_texts(left: Model, folder: Path) -> None:
    from sumi_core.serving.harness_run import run_tasks

    harness = left.harness()
    found = run_tasks(harness, ["sumi_rolling", "sumi_pairs"], include_path=folder)
    rows = {(row["task"], row["metric"]): row for row in found.table.to_dict("records")}
    assert set(found.table["kind"]) == {"exact"}
    assert rows["sumi_pairs", "acc"]["mc_stderr"] == 0
    docs = [json.loads(line)["text"] for line in (folder / "rolling.jsonl").read_text().splitlines()]
    nats = -sum(harness.answers["sumi_rolling", number, 0].value for number in range(len(docs)))
    bits = nats / math.log(2) / sum(len(doc.encode()) for doc in docs)
    assert rows["sumi_rolling", "bits_per_byte"]["value"] == pytest.approx(bits)


def test_the_error_of_a_linear_metric_is_that_of_the_strata(uniform: Model, folder: Path) -> None:
    """Bits per byte are linear in the log-likelihoods, so the replicates vary as the half-differences add up."""
    from sumi_core.serving.harness_run import run_tasks

    harness = uniform.harness(levels=8)
    found = run_tasks(harness, ["sumi_rolling"], include_path=folder)
    error = found.table.set_index("metric").loc["bits_per_byte", "mc_stderr"]
    docs = [json.loads(line)["text"] for line in (folder / "rolling.jsonl").read_text().splitlines()]
    variance = sum(float((answer.halves**2).sum()) for answer in harness.answers.values())
    wanted = math.sqrt(variance) / math.log(2) / sum(len(doc.encode()) for doc in docs)
    assert error == pytest.approx(wanted, rel=0.2), "200 replicates have it to 5 %"


def test_a_task_that_is_not_there_is_refused(left: Model, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lm_eval.tasks

    from sumi_core.serving.harness_run import HarnessError, run_tasks

    real = lm_eval.tasks.TaskManager  # without its thousands of tasks, which take seconds to list

    def without_defaults(include_path: str, include_defaults: bool = True) -> Any:
        return real(include_path=include_path, include_defaults=False)

    monkeypatch.setattr(lm_eval.tasks, "TaskManager", without_defaults)
    with pytest.raises(HarnessError, match="no task 'sumi_nothing'"):
        run_tasks(left.harness(), ["sumi_nothing"], include_path=folder)


# --- tasks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "lines", "complaint"),
    [
        ({}, None, "cannot be read as YAML"),
        ({"dataset_kwargs": {"data_files": {"test": "/nowhere/questions.jsonl"}}}, "", "cannot be loaded"),
        ({}, "", "task 'own'"),
        ({}, '{"context": "a b", "gold": 0}\n', "task 'own' cannot be loaded"),
    ],
    ids=["no YAML", "no data", "no documents", "no choices"],
)
def test_a_task_that_cannot_be_asked_is_refused(
    left: Model, tmp_path: Path, change: dict[str, Any], lines: str | None, complaint: str
) -> None:
    from sumi_core.serving.harness_run import HarnessError, run_tasks

    data = tmp_path / "questions.jsonl"
    data.write_text(lines or "")
    task = {"task": "own", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}}
    text = json.dumps({**task, "test_split": "test", **TASKS["cloze"], **change})
    (tmp_path / "own.yaml").write_text(text[:-1] if lines is None else text)
    with pytest.raises(HarnessError, match=complaint):
        run_tasks(left.harness(), ["own"], include_path=tmp_path)


def test_a_folder_without_tasks_is_refused(left: Model, tmp_path: Path) -> None:
    from sumi_core.serving.harness_run import HarnessError, run_tasks

    with pytest.raises(HarnessError, match="has no YAML files of tasks"):
        run_tasks(left.harness(), ["own"], include_path=tmp_path)


def test_a_command_line_that_cannot_be_followed_is_refused_before_anything_is_computed(
    project: Project, folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    run = ["lm-eval", "tiny.left", "--tasks", "sumi_*", "--include-path"]
    for command, complaint in (
        ([*run, str(file)], "is not a folder"),
        ([*run, str(folder), "--output", str(tmp_path / "none" / "out.json")], "--output"),
        (["lm-eval", "tiny.left", "--write-tasks", str(file)], f"cannot write into {file}"),
    ):
        result = CliRunner().invoke(app, command)
        assert isinstance(result.exception, ConfigError)
        assert complaint in str(result.exception)


def test_questions_are_made_of_the_texts_and_the_seed(folder: Path, tmp_path: Path) -> None:
    write_tasks(TEXTS, tmp_path / "again", questions=4)
    write_tasks(TEXTS, tmp_path / "other", questions=4, seed=1)
    for name in TASKS:
        own = (folder / f"{name}.jsonl").read_text()
        assert (tmp_path / "again" / f"{name}.jsonl").read_text() == own
        if name != "rolling":
            assert (tmp_path / "other" / f"{name}.jsonl").read_text() != own
    joined = [" ".join(text.split()) for text in TEXTS]
    for line in (folder / "cloze.jsonl").read_text().splitlines():
        doc = json.loads(line)
        assert len(set(doc["choices"])) == len(doc["choices"]) > 1
        assert any(f"{doc['context']} {doc['choices'][doc['gold']]}" in text for text in joined)
    for line in (folder / "pairs.jsonl").read_text().splitlines():
        doc = json.loads(line)
        assert any(doc["choices"][doc["gold"]] in text for text in joined)
        assert sorted(doc["choices"][0].split()) == sorted(doc["choices"][1].split())
        assert doc["choices"][0] != doc["choices"][1]
    golds = [np.bincount([json.loads(line)["gold"] for line in (folder / "cloze.jsonl").read_text().splitlines()])]
    assert golds[0].sum() == 4


def test_texts_that_are_too_short_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="fewer than two texts have more than 27 words"):
        write_tasks(["a b c"], tmp_path)


def test_the_command_makes_tasks_of_validation_text(project: Project, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["lm-eval", "tiny.left", "--write-tasks", str(tmp_path / "t"), "--questions", "2"])
    assert result.exit_code == 0, result.output
    assert "sumi_cloze, sumi_pairs, sumi_rolling, sumi_next_word" in result.output
    with pytest.raises(ConfigError, match="name tasks to run, or --write-tasks FOLDER"):
        CliRunner().invoke(app, ["lm-eval", "tiny.left"], catch_exceptions=False)
