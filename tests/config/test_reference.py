"""The keys of experiment files from their declarations: the JSON schema, `sumi explain`, the reference page."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from pipelines.cli import app
from sumi_core.base.registry import Registry
from sumi_core.experiments.file_keys import FILE_KEYS, SweepOptions
from sumi_core.experiments.reference import explain, file_schema, keys_of, parts_by_key, reference_page
from sumi_core.experiments.schema import Experiment
from sumi_core.experiments.yaml_files import read_yaml
from tests.registries import REGISTRIES

ROOT = Path(__file__).parents[2]
SCHEMA = file_schema()
FILES = sorted((ROOT / "experiments").rglob("*.yaml"))


def problems(data: dict[str, Any]) -> list[str]:
    return [error.json_path for error in Draft202012Validator(SCHEMA).iter_errors(data)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_shipped_file_fits_the_schema(file: Path) -> None:
    assert problems(read_yaml(file)) == []


def test_the_schema_has_every_key_of_a_file() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    sections = {field.name for field in dataclasses.fields(Experiment)}
    assert set(SCHEMA["properties"]) == {*sections, *FILE_KEYS, "corruption"}


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"traning": {}}, "$"),
        ({"training": {"stps": 1}}, "$.training"),
        ({"training": {"steps": 0}}, "$.training.steps"),
        ({"training": {"steps": "many"}}, "$.training.steps"),
        ({"training": {"lr_schedule": "cosin"}}, "$.training.lr_schedule"),
        ({"process": "unifrom"}, "$.process"),
        ({"process": {"name": "uniform", "late": 1.0}}, "$.process"),
        ({"process": {"name": "clustered", "late": 9}}, "$.process"),
        ({"objective": {"name": "nelbo", "time_density": {"name": "cosine", "exponent": 2}}}, "$.objective"),
        ({"evaluation": {"metrics": ["distinct", "distict"]}}, "$.evaluation.metrics[1]"),
        ({"tokenizer": None}, "$.tokenizer"),
        ({"retries": 11}, "$.retries"),
        ({"corruption": "structurd"}, "$.corruption"),
    ],
)
def test_the_schema_refuses_what_reading_refuses(data: dict[str, Any], path: str) -> None:
    assert problems(data) == [path]


@pytest.mark.parametrize(
    "data",
    [
        {"training": None, "process": None, "seed": "${evaluation.seed}"},
        {"process": {"late": 2}},  # options of the part that the base names
        {"objective": {"name": "nelbo", "time_density": {"name": "polynomial", "exponent": 2}}},
        {"corpus": {"source": {"name": "mixture", "parts": [{"source": "web-bible", "weight": 2}]}}},
    ],
)
def test_the_schema_takes_what_a_file_may_hold(data: dict[str, Any]) -> None:
    assert problems(data) == []


def test_every_key_and_every_part_has_a_meaning() -> None:
    keys = [*keys_of(Experiment), *keys_of(SweepOptions)]
    for name, part in parts_by_key():
        assert part.__doc__, name
        keys += keys_of(part.Options, f"{name}.")
    assert [key.name for key in keys if not key.meaning] == []


def test_every_registry_is_open_to_parts_from_outside_under_a_key_of_its_own() -> None:
    assert {registry.key for registry in REGISTRIES.values()} == set(Registry.by_key)
    assert all(Registry.by_key[str(registry.key)] is registry for registry in REGISTRIES.values())


def test_a_key_is_explained_with_type_default_limits_and_meaning() -> None:
    assert explain("training.decay_fraction").splitlines() == [
        "training.decay_fraction: a number",
        "  wsd: the last part of the run, which decays",
        "  default: 0.2",
        "  limits: > 0, ≤ 1",
    ]
    assert "  choices: cosine, wsd, constant" in explain("training.lr_schedule").splitlines()
    assert "  default: null" in explain("budget.tokens").splitlines()
    assert "  limits: ≥ 0, ≤ 4,294,967,295" in explain("seed").splitlines()
    assert "  must be written" in explain("schedule.fitted.noise").splitlines()


def test_a_section_a_part_and_its_options_are_explained() -> None:
    assert "  training.steps                 optimizer steps" in explain("training").splitlines()
    for asked in ("process.clustered", "process.late", "process.clustered.late"):
        assert "process.clustered.late: a number" in explain(asked).splitlines()
    assert "corpus.source.text.paths: a list of texts" in explain("corpus.source.text").splitlines()
    assert any(line.startswith("  hybrid ") for line in explain("process").splitlines())
    assert explain("axes").startswith("axes\n  what the cells")


def test_an_unknown_key_is_answered_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(app, ["explain", "trainig.steps"])
    assert str(result.exception) == "command line: trainig.steps: no such key; did you mean 'training.steps'?"
    result = CliRunner().invoke(app, ["explain"])
    assert "name a key such as training.steps" in str(result.exception)


def test_the_command_writes_the_schema(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    assert CliRunner().invoke(app, ["schema", "--output", str(file)]).exit_code == 0
    assert json.loads(file.read_text(encoding="utf-8")) == SCHEMA
    assert json.loads(CliRunner().invoke(app, ["schema"]).output) == SCHEMA


def test_the_reference_page_is_current() -> None:
    """After a change of any key: sumi explain --page > docs/reference/config.md"""
    assert (ROOT / "docs" / "reference" / "config.md").read_text(encoding="utf-8") == reference_page()
