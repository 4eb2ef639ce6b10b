"""`sumi reproduce` on a real cell: trained, exported and evaluated again, to the last bit."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.commands.reproduce import print_reproduction
from sumi_core.lineage.project import Project
from sumi_core.lineage.reproduction import Figure, Reproduction
from tests.lineage.fakes import PLAIN_STAGES


@pytest.fixture(scope="module")
def project(tiny: Project) -> Project:
    return tiny


def test_a_real_cell_is_reproduced_exactly(project: Project) -> None:
    result = CliRunner().invoke(app, ["reproduce", "tiny.uniform", "--clean", "--json"], catch_exceptions=False)
    found = json.loads(result.stdout)
    assert found["different"] == []
    assert result.exit_code == 0
    assert {figure["stage"] for figure in found["figures"]} == set(PLAIN_STAGES)
    assert {figure["name"] for figure in found["files"]} >= {"weights.safetensors", "model.safetensors"}
    figures = {figure["name"]: figure for figure in found["figures"] if figure["stage"] == "evaluation"}
    assert figures["bits_per_byte"]["difference"] == 0
    assert figures["bits_per_byte"]["new"] > 0
    clocks = {figure["name"] for figure in found["figures"] if not figure["compared"]}
    assert clocks <= {"seconds", "tokens_per_second", "mfu", "peak_memory_bytes", "resumed"}
    assert not list((project.home / "reproduce").glob("tiny.uniform-*[0-9a-f]"))
    assert not (project.home / "mlflow.db").exists(), "nothing is tracked"


def test_an_interrupt_says_how_to_go_on(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.commands.reproduce.reproduce", interrupted)
    result = CliRunner().invoke(app, ["reproduce", "tiny.uniform"])
    assert result.exit_code == 130
    assert result.stdout == ""
    assert result.stderr == "sumi: interrupted; the same command continues where it was\n"


def test_the_table_tells_old_new_and_difference(capsys: pytest.CaptureFixture[str]) -> None:
    figures = [
        Figure("evaluation", "bits_per_byte", 2.25, 2.5),
        Figure("evaluation", "yardsticks.xz", 3.0, 3.0),
        Figure("evaluation", "sample_text", "a", "b"),
        Figure("pretrained_denoiser", "seconds", 1.0, 9.0, compared=False),
    ]
    files = [Figure("pretrained_denoiser", "weights.safetensors", "a" * 64, "b" * 64)]
    print_reproduction(Reproduction("cell", "folder", figures, files, [], ["torch 1 → 2"], ["corpus"]))
    text = capsys.readouterr().out
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    assert list(lines)[:3] == ["evaluation", "figure", "-------------"], "a table a stage"
    assert lines["bits_per_byte"] == ["2.25", "2.5", "+0.25"]
    assert lines["yardsticks.xz"] == ["3", "3", "0"]
    assert lines["sample_text"] == ["a", "b", "differs"]
    assert lines["weights.safetensors"] == ["a" * 16, "b" * 16, "NO"]
    assert "pretrained_denoiser/seconds 1 / 9" in text
    assert "torch 1 → 2" in text
    assert "NOT reproduced; 3 of 4 differ: evaluation/bits_per_byte, evaluation/sample_text" in " ".join(text.split())
