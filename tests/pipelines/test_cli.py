"""The command line as a whole: its help, its errors, and outputs that are no wide UTF-8 terminal."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import EXAMPLES, SUMMARIES, app
from sumi_core.lineage.project import Project
from tests.lineage.fakes import compute, fake_project, record
from tests.pipelines.homes import furnish


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with pytest.MonkeyPatch.context() as patch:
        project = fake_project(tmp_path_factory.mktemp("cli") / "project", patch)
        furnish(project.root, tmp_path_factory)
        record(project, compute(project, "demo.s0"))
        yield project


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own, in ``folder``."""
    inherited = {name: value for name, value in os.environ.items() if name != "SUMI_PROJECT"}
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=120,
    )


def test_the_help_fits_80_columns_whole() -> None:
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    lines = result.output.splitlines()
    listed = lines[lines.index("Commands:") + 1 :]
    assert max(map(len, listed)) <= 80
    assert [tuple(line.split(maxsplit=1)) for line in listed] == list(SUMMARIES.items())


@pytest.mark.parametrize("arguments", [["list"], ["plan", "demo"], ["compare", "demo"], ["sample", "demo"]])
def test_no_project_is_one_sentence(tmp_path: Path, arguments: list[str]) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    told = "there is no experiments folder; run sumi from a project, or name one in SUMI_PROJECT"
    assert done.stderr == f"sumi: {tmp_path}/experiments: {told}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_without_unicode_gets_ascii(tmp_path: Path) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "one.yaml").write_text("description: does 日 ≤ → work?\n", encoding="utf-8")
    done = run(tmp_path, "list", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert r"does \u65e5 <= -> work?" in done.stdout
    done = run(tmp_path, "plan", "日", PYTHONIOENCODING="ascii:strict")
    assert done.returncode == 2
    assert done.stderr.startswith(r"sumi: experiments: \u65e5: no experiment or cell has this name")


def test_json_and_csv_go_to_pipes(project: Project) -> None:
    result = CliRunner().invoke(app, ["compare", "demo", "--json", "-"], catch_exceptions=False)
    assert {row["name"] for row in json.loads(result.stdout)["rows"]} >= {"demo.s0", "demo.s3"}
    result = CliRunner().invoke(app, ["compare", "demo", "--csv", "-"], catch_exceptions=False)
    assert result.stdout.startswith("kind,name,state,why,")


def test_a_pipe_is_written_to_and_not_replaced(project: Project, tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True)
    CliRunner().invoke(app, ["compare", "demo", "--csv", str(pipe)], catch_exceptions=False)
    assert reader.communicate(timeout=60)[0].startswith("kind,name,state,why,")
    assert pipe.is_fifo()
    (tmp_path / "file").touch()
    link.symlink_to(tmp_path / "file")
    CliRunner().invoke(app, ["compare", "demo", "--csv", str(link)], catch_exceptions=False)
    assert link.is_symlink()
    assert (tmp_path / "file").read_text().startswith("kind,")


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "experiments").mkdir()
    for number in range(300):  # more than a pipe holds
        text = f"description: {'x' * 300}\n"
        (tmp_path / "experiments" / f"e{number}.yaml").write_text(text, encoding="utf-8")
    command = f"{sys.executable} -m pipelines.cli list | head -n 1"
    environment = {**os.environ, "SUMI_PROJECT": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("e0 ")
    assert done.stderr == ""


@pytest.mark.parametrize("name", SUMMARIES)
def test_the_help_of_a_command_ends_in_examples_that_it_takes(name: str) -> None:
    result = CliRunner().invoke(app, [name, "-h"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    _, _, examples = result.output.partition("Examples:\n")
    assert [line.strip() for line in examples.splitlines() if line.strip()] == list(EXAMPLES[name])
    for example in EXAMPLES[name]:
        words = shlex.split(example.partition(" >")[0])
        assert words[:2] == ["sumi", name]
        options = {word for word in words if word.startswith("--")}
        assert all(re.search(rf"{option}\b", result.output) for option in options)


def test_the_version_is_that_of_the_package() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.output == f"sumi {importlib.metadata.version('sumi')}\n"


def test_commands_are_completed_and_a_typo_names_few() -> None:
    environment = {"_SUMI_COMPLETE": "complete_bash", "COMP_WORDS": "sumi re", "COMP_CWORD": "1"}
    result = CliRunner().invoke(app, [], env=environment, prog_name="sumi")
    assert result.output.split() == ["reproduce"]
    result = CliRunner().invoke(app, ["compair"])
    assert result.exit_code == 2
    assert "Did you mean 'compare'?" in result.output
