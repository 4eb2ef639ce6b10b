"""`sumi sample --film` and `--watch`: what a text looks like while it is written."""

from __future__ import annotations

import dataclasses
import errno
import io
from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.commands.sample import exported_folder
from pipelines.watching import LiveCanvas, style_of
from sumi_core.evaluation.corruption_picture import token_text
from sumi_core.export.loading import load_exported
from sumi_core.lineage.project import Project
from sumi_core.lineage.targets import find_target
from sumi_core.sampling.canvas import Canvas
from tests.pipelines.tiny import sample, texts


@pytest.fixture(scope="module")
def project(tiny: Project) -> Project:
    return tiny


@pytest.mark.parametrize("name", ["film.html", "film.GIF"])
def test_a_film_is_written_beside_the_texts(project: Project, tmp_path: Path, name: str) -> None:
    stdout, said = sample("tiny.uniform", "--num", "2", "--seed", "3", "--film", str(tmp_path / name))
    assert stdout == sample("tiny.uniform", "--num", "2", "--seed", "3")[0], "the texts are those without"
    assert f"sumi: film: {tmp_path / name}" in said
    written = (tmp_path / name).read_bytes()
    assert written.startswith(b"GIF89a" if name == "film.GIF" else b"<!doctype html>")


@pytest.mark.parametrize("name", ["film.html", "film.gif"])
def test_a_film_that_cannot_be_written_costs_no_text_and_leaves_no_file(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sumi_core.base.files.sync", full)
    result = CliRunner().invoke(app, ["sample", "tiny.uniform", "--num", "2", "--film", str(tmp_path / name)])
    assert len(texts(result.stdout)) == 2
    assert isinstance(result.exception, OSError)
    assert result.exception.filename == str(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--film", "film.txt"], "--film: film.txt is neither .html nor .gif; name a file of that kind"),
        (["--film", "folder.html"], "--film: folder.html is a folder; name a file"),
        (["--film", "nowhere/film.gif"], "nowhere; create it"),
        (["--watch"], "--watch: needs a terminal; write --film FILE to look later"),
    ],
)
def test_what_cannot_be_shown_is_refused_before_anything_is_written(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.html").mkdir()
    result = CliRunner().invoke(app, ["sample", "tiny.uniform", *arguments])
    assert result.exit_code == 1
    assert told in str(result.exception)


def test_the_terminal_shows_the_canvas_as_it_stands(project: Project) -> None:
    exported = load_exported(exported_folder(project, find_target(project, "tiny.uniform", ())))
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=80)
    seen: list[str] = []
    sampler = exported.parts.sampler
    with LiveCanvas(console, sampler, exported.tokenizer) as live:

        def look(canvas: Canvas) -> None:
            live(canvas)
            seen.append(live.picture(canvas).plain)

        drawn = sampler.sample(exported.denoiser.eval(), num=1, length=12, steps=3, seed=1, watch=look)
    assert [text.split("\n")[0] for text in seen] == [f"{calls} network calls" for calls in range(4)]
    shown = "".join(token_text(int(token), exported.tokenizer, None) for token in drawn.tokens[0])
    assert seen[-1].split("\n", 1)[1].replace("\n", "") == shown
    assert "48;2;" in console.file.getvalue()  # type: ignore[attr-defined]  # a background colour


def test_the_terminal_underlines_what_was_revised(project: Project) -> None:
    exported = load_exported(exported_folder(project, find_target(project, "tiny.uniform", ())))
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=80)
    start = Canvas.of(torch.tensor([[65, 66, 67]]), torch.tensor([[False, False, True]]), seed=0, steps=2)
    sure = torch.tensor([[0.9, 0.1, 0.9]])
    later = [
        dataclasses.replace(start, tokens=torch.tensor([tokens]), confidence=sure, nfe=torch.tensor([call]))
        for call, tokens in enumerate([[65, 66, 67], [68, 69, 67]], 1)
    ]
    with LiveCanvas(console, exported.parts.sampler, exported.tokenizer) as live:
        for canvas in (start, *later):
            live(canvas)
        shown = live.picture(later[-1])
        live(start)
        assert "revised" not in live.picture(start).plain, "another text begins"
    assert shown.plain.split("\n")[0] == "2 network calls · 1 tokens revised, underlined"
    styles = [str(span.style) for span in shown.spans]
    assert [style.startswith("underline") for style in styles] == [True, False, True], "D was revised, C was given"
    assert styles[2] == "underline"


def test_colours_are_dark_for_what_is_unsure() -> None:
    assert (style_of(0.0), style_of(1.0)) == ("white on rgb(0,34,78)", "black on rgb(254,232,56)")
