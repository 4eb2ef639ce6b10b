"""`sumi evaluate` on a real model: its evaluation, and its likelihood of other texts."""

from __future__ import annotations

import gzip
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.entities import Run
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.commands.sample import exported_folder
from sumi_core.base.options import ConfigError
from sumi_core.data.sequences import spread_indices
from sumi_core.evaluation.likelihood import TextLikelihood
from sumi_core.evaluation.measurement import Context, Findings, Measurement, Model
from sumi_core.evaluation.samples import Samples
from sumi_core.export.loading import load_exported
from sumi_core.lineage.project import Project
from sumi_core.lineage.targets import find_target
from sumi_core.models.interface import DenoiserInput
from sumi_core.stages.other_text import KIND
from sumi_core.stages.store import Artifact
from tests.pipelines.homes import furnish
from tests.pipelines.tiny import compute, enter, tiny_project

VERSE = "and the evening and the morning were the day of naïve rest.\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A copy of the tiny project with databases of its own."""
    tiny = tiny_project(tmp_path_factory)
    root = tmp_path_factory.mktemp("evaluate") / "tiny"
    shutil.copytree(tiny.root / "experiments", root / "experiments")
    shutil.copytree(tiny.root / "texts", root / "texts")
    project = furnish(root, tmp_path_factory)
    shutil.copytree(tiny.store.root, project.store.root, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        enter(project, patch)
        compute(project, "tiny.uniform")
        compute(project, "tiny.left")
        yield project


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Three files of different kinds, each of which says something of its own."""
    (tmp_path / "a.txt").write_text(VERSE * 8, encoding="utf-8")
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"text": f"{n} {VERSE}" * 3}) + "\n" for n in range(3)))
    pd.DataFrame({"text": [f"{n} lights {VERSE}" * 2 for n in range(3)]}).to_parquet(tmp_path / "c.parquet")
    return tmp_path


def evaluate(*arguments: object) -> tuple[str, str]:
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def refusal(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    assert isinstance(result.exception, ConfigError), result.exception
    return str(result.exception)


def measured_texts(project: Project) -> dict[str, Artifact]:
    """Every likelihood of another text in the store."""
    return {own.fingerprint: own for own in project.store.artifacts() if own.stage == KIND}


def run_of(project: Project, key: str) -> Run:
    (run,) = [run for run in project.tracking.cell_runs(["tiny"]) if run.data.tags["sumi.cell"] == key]
    return run


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Measurement]:
    """Likelihoods that are measured."""
    made: list[Measurement] = []
    real = TextLikelihood.run

    def run(self: TextLikelihood, model: Model, context: Context) -> Findings:
        made.append(self)
        return real(self, model, context)

    monkeypatch.setattr(TextLikelihood, "run", run)
    return made


# --- the evaluation -------------------------------------------------------------------------------------------------


def test_a_finished_model_is_measured_into_its_run(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    real = Samples.run
    monkeypatch.setattr(Samples, "run", lambda *given: drawn.append(given[2].config.samples) or real(*given))
    out, said = evaluate("tiny.uniform")
    assert "validation text" in out
    assert "≤ " in out
    first = run_of(project, "tiny.uniform")
    assert first.info.status == "FINISHED"
    assert drawn == []

    out, said = evaluate("tiny.uniform", "evaluation.samples=3")
    assert drawn == [3]
    assert "likelihood is measured already" in said
    run = run_of(project, "tiny.uniform[evaluation.samples=3]")
    plain = run_of(project, "tiny.uniform").data
    assert (plain.metrics, plain.tags) == (first.data.metrics, first.data.tags), "it shows nothing of the change"
    assert json.loads(run.data.tags["sumi.evaluation"])["samples"] == 3
    assert run.data.metrics["bits_per_byte"] == first.data.metrics["bits_per_byte"]
    evaluate("tiny.uniform", "evaluation.samples=3")
    assert drawn == [3]


# --- other texts ----------------------------------------------------------------------------------------------------


def test_files_of_every_kind_are_measured_once_and_recorded(
    project: Project, texts: Path, counted: list[Measurement]
) -> None:
    before = set(measured_texts(project))
    out, _ = evaluate("tiny.uniform", "--text", texts / "*.txt", texts / "b.jsonl", texts / "c.parquet")
    (fingerprint,) = set(measured_texts(project)) - before
    artifact = measured_texts(project)[fingerprint]
    summary = artifact.summary
    assert (summary["text_documents"], summary["exact"]) == (7, False)
    assert summary["bits_per_byte_stderr"] > 0
    assert summary["bits_per_byte_mc_stderr"] > 0
    assert f"{summary['bits_per_byte']:.3f}"[:3] in out
    assert str(artifact.folder) in out
    assert {"likelihood.parquet", "loss_by_level.parquet", "findings.json"} <= set(artifact.manifest["files"])
    assert not list(artifact.folder.glob("tmp*")), "the tokens are not kept"

    run, name = run_of(project, "tiny.uniform"), summary["name"]
    assert run.data.metrics[f"text/{name}/bits_per_byte"] == summary["bits_per_byte"]
    inputs = project.tracking.client.get_run(run.info.run_id).inputs
    (dataset,) = [item.dataset for item in inputs.dataset_inputs if item.dataset.name == name]
    assert dataset.digest == summary["text"]
    assert run.info.status == "FINISHED"

    assert len(counted) == 1
    moved = texts / "moved"
    moved.mkdir()
    for path in (texts / "a.txt", texts / "b.jsonl", texts / "c.parquet"):
        shutil.copy(path, moved / path.name)
    again, _ = evaluate("tiny.uniform", "--text", moved / "*")
    assert again == out, "found, wherever the files lie"
    assert len(counted) == 1
    assert len(project.tracking.client.get_metric_history(run.info.run_id, f"text/{name}/bits_per_byte")) == 1

    evaluate("tiny.uniform", "evaluation.times_per_sequence=3", "--text", moved / "*")
    (moved / "a.txt").write_text(VERSE * 9, encoding="utf-8")
    evaluate("tiny.uniform", "--text", moved / "*")
    assert len(counted) == 3, "other settings and another text are measured"
    assert len(measured_texts(project)) == len(before) + 3


def test_an_exact_model_pays_what_its_logits_say(project: Project, texts: Path) -> None:
    """Bits per byte by hand: every document ends with end-of-text, sequences are cut every 32 tokens, and token i of a
    sequence is predicted from those before it."""
    before = set(measured_texts(project))
    evaluate("tiny.left", "--text", texts / "b.jsonl")
    (fingerprint,) = set(measured_texts(project)) - before
    model = load_exported(exported_folder(project, find_target(project, "tiny.left")))
    rows = [json.loads(line)["text"].encode() for line in (texts / "b.jsonl").read_text().splitlines()]
    stream = np.concatenate([[*row, model.tokenizer.eos_id] for row in rows])
    sequences = torch.from_numpy(stream[: len(stream) // 32 * 32].reshape(-1, 32))[[2, 6, 10, 14]]
    assert len(stream) // 32 == 17, "of which four are measured, spread evenly"
    shifted = torch.cat([torch.full((4, 1), model.tokenizer.eos_id), sequences[:, :-1]], dim=1)
    with torch.no_grad():
        nats = torch.nn.functional.cross_entropy(
            model.denoiser(DenoiserInput(shifted)).logits().double().flatten(0, 1), sequences.flatten(), reduction="sum"
        )
    size = int((sequences != model.tokenizer.eos_id).sum())
    summary = measured_texts(project)[fingerprint].summary
    assert (summary["exact"], summary["sequences"], summary["bytes"]) == (True, 4, size)
    assert summary["bits_per_byte"] == pytest.approx(float(nats) / math.log(2) / size, rel=1e-6)


def test_an_overlap_gives_every_sequence_the_text_before_it(project: Project, texts: Path) -> None:
    """8 new tokens behind 24; without a context only at the very beginning of the text."""
    before = set(measured_texts(project))
    shown, _ = evaluate("tiny.left", "--text", texts / "b.jsonl", "--overlap", "24")
    (fingerprint,) = set(measured_texts(project)) - before
    model = load_exported(exported_folder(project, find_target(project, "tiny.left")))
    eos = model.tokenizer.eos_id
    rows = [json.loads(line)["text"].encode() for line in (texts / "b.jsonl").read_text().splitlines()]
    stream = torch.from_numpy(np.concatenate([[*row, eos] for row in rows]).astype(np.int64))
    nats, size = 0.0, 0
    for index in spread_indices(4, len(stream) // 8):
        begin, at = max(0, index * 8 - 24), index * 8
        own = stream[begin : at + 8]
        with torch.no_grad():
            logits = (
                model.denoiser(DenoiserInput(torch.cat([torch.tensor([eos]), own[:-1]])[None])).logits()[0].double()
            )
        nats += float(torch.nn.functional.cross_entropy(logits[at - begin :], own[at - begin :], reduction="sum"))
        size += int((own[at - begin :] != eos).sum())
    summary = measured_texts(project)[fingerprint].summary
    assert (summary["exact"], summary["sequences"], summary["bytes"], summary["overlap"]) == (True, 4, size, 24)
    assert summary["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-6)
    assert summary["name"].endswith("-overlap-24")
    assert summary["name"] in shown
    evaluate("tiny.uniform", "--text", texts / "b.jsonl", "--overlap", "24")
    problem = refusal("tiny.left", "--text", texts / "b.jsonl", "--overlap", "32")
    assert problem == "command line: --text: an overlap of 32 tokens leaves no room in 32; give at most 31"
    problem = refusal("tiny.left", "--overlap", "8")
    assert problem == "command line: --overlap: goes with other text; name files with --text"


def test_an_exported_folder_is_measured_like_its_cell(
    project: Project, texts: Path, tmp_path: Path, counted: list[Measurement]
) -> None:
    """Its record has the fingerprint by which the store and the run are found."""
    cell, _ = evaluate("tiny.uniform", "--text", texts / "a.txt")
    copy = tmp_path / "elsewhere"
    shutil.copytree(exported_folder(project, find_target(project, "tiny.uniform")), copy)
    folder, said = evaluate(copy, "--text", texts / "a.txt")
    assert len(counted) == 1
    assert folder == cell
    assert "no MLflow run" not in said
    record = json.loads((copy / "sumi.json").read_text())
    record["experiment"]["evaluation"]["measurements"].append({"name": "gone"})
    (copy / "sumi.json").write_text(json.dumps(record))
    assert evaluate(copy, "--text", texts / "a.txt")[0] == cell, "a measurement of the record that is gone is not asked"
    assert "no measurement is called 'gone'" in refusal(copy)


def test_one_document_has_no_error_over_documents(project: Project, texts: Path) -> None:
    _, said = evaluate("tiny.uniform", "--text", texts / "a.txt")
    assert "is one document, and an error over documents takes two" in said


def test_what_cannot_be_measured_is_one_sentence(project: Project, tmp_path: Path) -> None:
    def said(name: str, content: bytes, *more: object) -> str:
        (tmp_path / name).write_bytes(content)
        return refusal("tiny.uniform", "--text", tmp_path / name, *more).removeprefix("command line: ")

    before = set(measured_texts(project))
    long = VERSE.encode() * 9
    assert said("short.txt", b"a word") == (
        "--text: the text has 7 tokens, and an error takes two sequences of 32; give more text"
    )
    assert said("empty.txt", b" \n").startswith("--text: no document is left to read (skipped: 1 × empty document")
    assert said("latin.txt", b"na\xefve").startswith("--text: no document is left to read (skipped: 1 × not UTF-8")
    (tmp_path / "good.txt").write_bytes(long)
    assert said("latin.txt", b"na\xefve", tmp_path / "good.txt") == (
        "--text: not all of the text can be read: 1 × not UTF-8 (first: latin.txt); correct it, or leave it out"
    )
    assert said("page.pdf", b"%PDF") == (
        "--text: page.pdf is not of a kind that is read; name .txt, .jsonl (packed or not) or .parquet files"
    )
    assert said("a.parquet", b"nonsense").startswith("--text: a.parquet is not a Parquet file, or is damaged")
    assert said("a.jsonl", b'{"body": "x"}\n') == "--column: no line of a.jsonl has 'text'; known: body"
    assert refusal("tiny.uniform", "--text", tmp_path / "none*").endswith(
        f"--text: no file matches '{tmp_path}/none*'; name files or globs that exist"
    )
    assert "is a folder; name the files in it" in refusal("tiny.uniform", "--text", tmp_path)
    assert "expected key=value" in refusal("tiny.uniform", "no-option.txt")
    assert set(measured_texts(project)) == before
    assert list(project.store.root.glob(f"{KIND}/*.partial")) == []


def test_a_text_that_the_tokenizer_changes_is_refused(
    project: Project, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sumi_core.data.tokenizers.tokenizer import Tokenizer

    real = Tokenizer.decode_bytes
    monkeypatch.setattr(Tokenizer, "decode_bytes", lambda self, ids: real(self, ids).replace(b"\xc3\xaf", b"i"))
    told = refusal("tiny.uniform", "seed=0", "--text", texts / "b.jsonl", "evaluation.seed=77")
    assert told.startswith("command line: --text: the text of 'b.jsonl:1' does not survive a round trip: ")
    assert told.endswith("; leave that text out")


def test_a_column_and_a_packed_file_can_be_named(project: Project, tmp_path: Path, counted: list[Measurement]) -> None:
    rows = "".join(json.dumps({"body": VERSE * 3, "text": "no"}) + "\n" for _ in range(3)).encode()
    (tmp_path / "rows.jsonl").write_bytes(rows)
    with gzip.open(tmp_path / "rows.jsonl.gz", "wb") as file:
        file.write(rows)
    plain, _ = evaluate("tiny.uniform", "--text", tmp_path / "rows.jsonl", "--column", "body")
    packed, _ = evaluate("tiny.uniform", "--text", tmp_path / "rows.jsonl.gz", "--column", "body")
    figures = [out.splitlines()[3].split()[1:] for out in (plain, packed)]
    assert figures[0] == figures[1]
    assert len(counted) == 2
