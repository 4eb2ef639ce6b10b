"""`sumi score` on a real model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from sumi_core.api import open_model
from sumi_core.base.options import ConfigError
from sumi_core.lineage.project import Project


@pytest.fixture(scope="module")
def project(tiny: Project) -> Project:
    return tiny


def score(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["score", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_token_has_a_row_and_the_text_a_total(project: Project) -> None:
    printed = score("tiny.uniform", "a\x1bé", "--levels", "8")
    *rows, blank, total = printed.splitlines()
    assert len(rows) >= 5, "three characters of four bytes, and the end of the text"
    assert blank == ""
    assert "end of text" in rows[-1]
    assert "\x1b" not in printed, "nothing that acts on a terminal"
    whole = open_model("tiny.uniform").likelihood(["a\x1bé"]).iloc[0]
    assert total.startswith(f"−log p ≤ {whole['nats']:.3f} nats, ≤ {whole['bits_per_byte']:.3f}"[:24])
    assert total.endswith("bits per byte, 5 tokens")
    assert "±" in rows[-1]


def test_a_file_is_scored_as_a_whole_and_the_rows_are_json_for_programs(project: Project, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("and the\nevening", encoding="utf-8")
    rows = [json.loads(line) for line in score("tiny.uniform", "--file", str(file), "--json").splitlines()]
    assert "".join(row["string"] for row in rows) == "and the\nevening"
    assert set(rows[0]) == {"position", "token", "string", "nats", "nats_mc_stderr", "exact"}
    again = open_model("tiny.uniform").score(["and the\nevening"], levels=64)
    assert [row["nats"] for row in rows] == pytest.approx(list(again["nats"]))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "TEXT: write a text to score, or --file FILE, and not both"),
        (["a", "--file", "b"], "TEXT: write a text to score, or --file FILE, and not both"),
        (["--file", "missing.txt"], "cannot read missing.txt: No such file or directory; name a text file"),
        ([""], "text 0 is empty; leave it out"),
    ],
)
def test_a_text_that_cannot_be_scored_is_refused_in_a_sentence(
    project: Project, arguments: list[str], problem: str
) -> None:
    result = CliRunner().invoke(app, ["score", "tiny.uniform", *arguments])
    assert isinstance(result.exception, ConfigError)
    assert problem in str(result.exception)
