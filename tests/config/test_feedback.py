"""Feedback in a config: the form and the source of it go together, and another cell's model is an input like any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sumi_core.base.options import ConfigError
from sumi_core.experiments.references import located, stage_refs
from sumi_core.experiments.resolve import resolve
from sumi_core.experiments.size import experiment_size, flops_of_token
from sumi_core.experiments.sweeps import load_sweep
from sumi_core.stages.identity import experiment_fingerprints, stage_identity
from tests.config.conftest import Write
from tests.config.test_references import cells, parents

KEY = "objective.feedback.of"
FED = {"model": {"feedback": "residual_context"}, "objective": {"name": "nelbo", "feedback": "same"}}
CHILD = """
model: {feedback: residual_context}
objective: {name: nelbo, feedback: {name: reference, of: base}}
"""


def test_what_is_not_there_stands_in_no_recipe() -> None:
    """So that cells that were computed before there was feedback keep their fingerprints."""
    plain = resolve({}, "a.yaml")
    assert plain.to_dict()["model"]["feedback"] is None
    for section in ("model", "objective"):
        assert "feedback" not in plain.identity()[section]
        assert "feedback" in resolve(FED, "a.yaml").identity()[section]


def test_defaults_are_written_out() -> None:
    experiment = resolve(FED, "a.yaml")
    assert experiment.model.feedback == {"name": "residual_context", "reading": "own", "rho": 1.0}
    assert experiment.objective["feedback"] == {"name": "same", "share": 0.5}
    path = resolve({**FED, "objective": {"feedback": "path", "name": "nelbo"}}, "a.yaml")
    assert path.objective["feedback"] == {"name": "path", "share": 0.5, "lag": 0.05}


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (
            {"model": FED["model"]},
            "model.feedback: 'residual_context' reads the predictions of an earlier pass, and the ",
        ),
        (
            {"objective": FED["objective"]},
            "objective.feedback: the model makes nothing of an earlier pass; name a form ",
        ),
        (
            {**FED, "model": {"feedback": "residual"}},
            "model.feedback: no form of feedback is called 'residual'; did you",
        ),
        (
            {**FED, "model": {"feedback": {"name": "residual_context", "rho": 2}}},
            "model.feedback.rho: must be at most 1",
        ),
        (
            {**FED, "objective": {"name": "nelbo", "feedback": {"name": "same", "lag": 0.1}}},
            "objective.feedback.lag: unknown key",
        ),
        (
            {**FED, "objective": {"name": "nelbo", "feedback": {"name": "same", "share": 1}}},
            "objective.feedback.share: must be below 1",
        ),
        (
            {**FED, "objective": {"name": "nelbo", "feedback": "reference"}},
            "objective.feedback.of: is missing; write the name of a cell",
        ),
        (
            {"model": FED["model"], "process": None, "objective": "autoregressive"},
            "model.feedback: 'residual_context' reads the predictions of an earlier pass",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_sentence(data: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve(data, "a.yaml")
    assert str(refused.value).startswith(f"a.yaml: {complaint}")


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ("process: absorbing", "process"),
        ("schedule: cosine", "schedule"),
        ("parameterisation: posterior", "parameterisation"),
        ("clock: spans", "clock"),
        ("tokenizer: bpe", "tokenizer"),
    ],
)
def test_a_reference_that_reads_other_noise_or_other_tokens_is_refused(
    more: str, key: str, write: Write, tmp_path: Path
) -> None:
    write("base", "seed: 0")
    write("child", f"{CHILD}\n{more}")
    with pytest.raises(ConfigError, match=rf"{key}: is not that of 'base'"):
        load_sweep(tmp_path / "experiments" / "child.yaml", tmp_path)


def test_the_reference_is_an_input_of_the_training_and_its_flops_count(write: Write, tmp_path: Path) -> None:
    write("base", "axes: {seed: [0, 1]}\nmodel: {num_layers: 2}")
    write("child", f"{CHILD}\naxes: {{seed: [0, 1]}}")
    found = cells(tmp_path)
    assert parents(found) == {"child.s0": ["base.s0"], "child.s1": ["base.s1"]}
    child, base = found["child.s1"].experiment, found["base.s1"].experiment
    assert [(ref.key, ref.stage) for ref in stage_refs(child)] == [(KEY, "pretrained_denoiser")]
    training = stage_identity(child, "pretrained_denoiser")
    assert training["inputs"][KEY] == experiment_fingerprints(base)["pretrained_denoiser"]
    assert training["config"]["objective"]["feedback"] == {"name": "reference", "share": 0.5}
    assert stage_identity(child, "exported_model")["inputs"][KEY] == training["inputs"][KEY], "which holds its weights"
    assert KEY not in stage_identity(child, "evaluation")["inputs"]
    own, earlier = experiment_size(child, 256), experiment_size(base, 256)
    assert own.total_flops == own.flops + earlier.flops
    write("other", "model: {feedback: residual_context}\nobjective: {name: nelbo, feedback: same}")
    same = cells(tmp_path)["other"].experiment
    assert flops_of_token(base, 256) < flops_of_token(child, 256) < flops_of_token(same, 256)
    write("base", "axes: {seed: [0, 1]}\nmodel: {num_layers: 2}\ntraining: {learning_rate: 0.5}")
    changed = experiment_fingerprints(cells(tmp_path)["child.s1"].experiment)
    before = experiment_fingerprints(child)
    assert {stage for stage in before if before[stage] != changed[stage]} == {
        "pretrained_denoiser",
        "exported_model",
        "evaluation",
    }
    placed = located(child, {KEY: tmp_path})
    assert placed.objective["feedback"]["of"]["folder"] == str(tmp_path.resolve())
    assert placed.identity() == child.identity()
