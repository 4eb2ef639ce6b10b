"""`sumi sample` and `sumi fit-schedule` on a real model."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.commands.sample import exported_folder
from sumi_core.base.options import ConfigError
from sumi_core.corruption.fitted import fit_profile
from sumi_core.experiments.resolve import resolve
from sumi_core.lineage.models import sample_length
from sumi_core.lineage.project import Project
from sumi_core.lineage.targets import LineageError, find_target
from sumi_core.stages.identity import stage_fingerprint
from sumi_core.stages.store import Store
from tests.pipelines.tiny import compute, sample, texts

CONTROL = set(map(chr, [*range(32), *range(127, 160)])) - {"\n"}


@pytest.fixture(scope="module")
def project(tiny: Project) -> Project:
    return tiny


def test_the_seed_alone_decides_the_texts(project: Project) -> None:
    first, said = sample("tiny.uniform", "--num", "3", "--seed", "7")
    assert "3 texts of 32 tokens, seed 7, 4 network calls each" in said
    assert len(texts(first)) == 3
    assert sample("tiny.uniform", "--num", "3", "--seed", "7")[0] == first
    assert sample("tiny.uniform", "--num", "3", "--seed", "8")[0] != first
    assert texts(sample("tiny.uniform", "--num", "2", "--seed", "7")[0]) == texts(first)[:2], "whatever the number"


def test_an_untrained_model_cannot_act_on_the_terminal(project: Project) -> None:
    """Random bytes hold every control character; none may reach the terminal."""
    stdout, _ = sample("tiny.uniform", "--num", "20")
    assert CONTROL.isdisjoint(stdout)
    assert "\\x" in stdout


def test_the_prompt_stands_at_the_beginning(project: Project) -> None:
    for text in texts(sample("tiny.uniform", "--num", "3", "--prompt", "In the béginning")[0]):
        assert text.split("\n", 1)[1].startswith("In the béginning")


def test_steps_are_network_calls(project: Project) -> None:
    assert "9 network calls" in sample("tiny.uniform", "--num", "1", "--steps", "9")[1]


def test_a_length_beyond_the_trained_one_is_warned_of(project: Project) -> None:
    _, said = sample("tiny.uniform", "--num", "1", "--length", "48")
    assert "48 tokens is longer than the 32 it was trained on" in said
    assert "longer" not in sample("tiny.uniform", "--num", "1", "--length", "16")[1]


def test_a_longer_text_is_written_on_several_canvases(project: Project, tmp_path: Path) -> None:
    more = ("--num", "1", "--length", "80", "--steps", "3")
    stdout, said = sample("tiny.uniform", *more, "--overlap", "8")
    assert "1 text of 80 tokens, seed 0, 9 network calls" in said, "canvases at 0, 24 and 48"
    assert "each canvas of 32 tokens is given the last 8 before it" in said
    assert "trusts it too little" in said
    assert "decay" not in said
    assert stdout != sample("tiny.uniform", *more, "--overlap", "0")[0]
    short = ("--num", "1", "--steps", "3")
    assert sample("tiny.uniform", *short, "--overlap", "8")[0] == sample("tiny.uniform", *short)[0], "one canvas"
    for refused, sentence in {
        ("--overlap", "32"): "--overlap: 32 tokens of each canvas of 32 leave nothing to write; write 0 to 31",
        ("--overlap", "4", "--regex", "a*"): "--overlap: a text that is held to a language needs one canvas",
        ("--overlap", "4", "--correct", "In the"): "--correct: corrects a whole text as it is; leave out --overlap",
        ("--overlap", "4", "--film", str(tmp_path / "x.gif")): "--film: shows one canvas, and these texts take several",
    }.items():
        with pytest.raises(ConfigError) as caught:
            sample("tiny.uniform", *(more if "--correct" not in refused else ()), *refused)
        assert sentence in str(caught.value)


def test_a_length_beyond_all_patience_is_refused() -> None:
    assert (sample_length(None, 32), sample_length(2, 32), sample_length(512, 32)) == (32, 2, 512)
    with pytest.raises(ConfigError) as caught:
        sample_length(1_000_000, 32)
    assert str(caught.value) == (
        "command line: --length: 1,000,000 tokens is more than 16 times the 32 it was trained on, far beyond where its "
        "texts decay; write at most 512, or more texts with --num"
    )


def test_a_prompt_that_leaves_no_room_is_refused(project: Project) -> None:
    result = CliRunner().invoke(app, ["sample", "tiny.uniform", "--prompt", "x" * 32])
    assert isinstance(result.exception, ConfigError)
    assert "--prompt: has 32 tokens, which leaves nothing to write in 32" in str(result.exception)
    result = CliRunner().invoke(app, ["sample", "tiny.uniform", "--prompt", "\udcff"])
    assert "--prompt: is not UTF-8 text" in str(result.exception)


def test_a_copied_export_writes_the_same_texts(project: Project, tmp_path: Path) -> None:
    folder = exported_folder(project, find_target(project, "tiny.uniform"))
    shutil.copytree(folder, tmp_path / "model")
    assert sample(str(tmp_path / "model"), "--seed", "3")[0] == sample("tiny.uniform", "--seed", "3")[0]


def test_a_record_whose_sampler_is_gone_is_sampled_with_the_default_one(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(exported_folder(project, find_target(project, "tiny.uniform")), folder)
    record = json.loads((folder / "sumi.json").read_text())
    record["sampler"] = record["experiment"]["evaluation"]["sampler"] = {"name": "mine"}
    record["experiment"]["evaluation"]["measurements"].append({"name": "mine"})
    (folder / "sumi.json").write_text(json.dumps(record))
    told = "sampler 'mine' of the record is not at hand; sampling with 'ancestral'"
    assert told in sample(str(folder))[1]
    assert told not in sample("tiny.uniform")[1]


def test_a_cell_is_sampled_as_its_own_evaluation_says(project: Project, tmp_path: Path) -> None:
    """The export is shared by cells that differ in evaluation alone, and records the first one's."""
    changes = ["evaluation.sampling_steps=[6]", "runtime.threads=1"]
    said = sample("tiny.uniform", *changes, "--num", "1")[1]
    assert "sumi: 1 text of 32 tokens, seed 0, 6 network calls\n" in said
    shutil.copytree(exported_folder(project, find_target(project, "tiny.uniform", changes)), tmp_path / "model")
    assert "4 network calls each" in sample(str(tmp_path / "model"))[1], "a bare folder knows its own record alone"
    cell = compute(project, "tiny.uniform", changes)
    evaluation = project.store.find("evaluation", stage_fingerprint(cell.experiment, "evaluation"))
    assert evaluation is not None
    assert "6 network calls each" in sample(evaluation.fingerprint)[1], "an evaluation knows how it was sampled"


def test_a_cell_that_is_not_computed_is_told(project: Project) -> None:
    with pytest.raises(
        LineageError, match=r"'tiny.left' is not computed in its current recipe; run `sumi run tiny.left`"
    ):
        find_target(project, "tiny.left")


def test_a_cell_without_its_export_is_told(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = exported_folder(project, find_target(project, "tiny.uniform"))
    moved = folder.rename(tmp_path / "moved")
    try:
        with pytest.raises(
            LineageError, match=r"'tiny.uniform' has no exported model here; run `sumi run tiny.uniform`"
        ):
            exported_folder(project, find_target(project, "tiny.uniform"))
    finally:
        moved.rename(folder)


def test_the_autoregressive_baseline_writes_token_by_token(project: Project) -> None:
    compute(project, "tiny.left")
    stdout, said = sample("tiny.left", "--num", "2", "--prompt", "And", "--steps", "3")
    assert "--steps has no effect on tiny.left" in said
    assert all(text.split("\n", 1)[1].startswith("And") for text in texts(stdout))


# --- conditions -----------------------------------------------------------------------------------------------------


def written(stdout: str) -> list[str]:
    return [text.split("\n", 1)[1].removesuffix("\n") for text in texts(stdout)]


def test_gaps_are_filled_in_and_a_model_that_trusts_the_rest_too_little_is_said_to(project: Project) -> None:
    stdout, said = sample("tiny.uniform", "--prompt", "In ", "--suffix", " end.", "--num", "3")
    assert all(text.startswith("In ") and text.endswith(" end.") for text in written(stdout))
    assert "reads what is given as if noise could have written it, and trusts it too little" in said
    stdout, said = sample("tiny.uniform", "--template", "The [[3]] of [[2]].", "--num", "3")
    assert "3 texts of 14 tokens" in said
    assert all(text.startswith("The ") and text.endswith(".") for text in written(stdout))
    assert "trusts" not in sample("tiny.uniform", "--num", "1")[1]


def test_every_text_is_in_the_language_that_is_asked_for(project: Project, tmp_path: Path) -> None:
    stdout, said = sample("tiny.uniform", "--prompt", "Day ", "--regex", r"\d+(, \d+)*", "--num", "5")
    assert all(re.fullmatch(r"Day \d+(, \d+)*", text) for text in written(stdout))
    assert "every text is in its language; how often each is drawn is exact in one step and a heuristic in 4" in said
    assert "heuristic" not in sample("tiny.uniform", "--regex", "a*", "--num", "1", "--steps", "1")[1]
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    stdout, _ = sample("tiny.uniform", "--schema", str(tmp_path / "schema.json"), "--num", "3")
    assert all(isinstance(json.loads(text)["n"], int) for text in written(stdout))
    stdout, _ = sample("tiny.uniform", "--regex", "[a-z ]*", "--forbid", "e", "--require", "day", "--num", "5")
    assert all("e" not in text and "day" in text for text in written(stdout))
    with pytest.raises(ConfigError, match=r"command line: --regex: '\(' is not a regular expression"):
        sample("tiny.uniform", "--regex", "(")
    (tmp_path / "schema.json").write_text('{"type": "objekt"}')
    with pytest.raises(ConfigError, match=r"schema\.json: the schema: type is 'objekt'; write one of"):
        sample("tiny.uniform", "--schema", str(tmp_path / "schema.json"))


def test_a_file_gives_every_text_a_condition_of_its_own(project: Project, tmp_path: Path) -> None:
    file = tmp_path / "conditions.yaml"
    file.write_text("- prompt: In the\n- template: 'a[[3]]b'\n- {regex: '[xy]*', length: 8}\n")
    stdout, said = sample("tiny.uniform", "--conditions", str(file), "--num", "2")
    assert "6 texts of up to 32 tokens" in said
    found = written(stdout)
    assert [text[:6] == "In the" for text in found[:2]] == [True, True]
    assert all(text[0] == "a" and text[-1] == "b" for text in found[2:4])
    assert all(re.fullmatch("[xy]{0,8}", text) for text in found[4:])
    with pytest.raises(ConfigError, match="--prompt: the file of --conditions says it for each text; leave it out"):
        sample("tiny.uniform", "--conditions", str(file), "--prompt", "x")
    for content, complaint in [
        ("prompt: x", "expected a list, one mapping per text"),
        ("- promt: x", r"conditions\.yaml: \[0\]\.promt: unknown key; did you mean 'prompt'"),
        ("- {}\n- {forbid: x}", r"\[1\]\.forbid: expected a list of texts"),
        ("- {template: x}", r"\[0\]\.template: has no gap"),
        ("- {length: 600}", r"\[0\]\.length: 600 tokens is more than 16 times the 32 .*; write at most 512$"),
    ]:
        file.write_text(content)
        with pytest.raises(ConfigError, match=complaint):
            sample("tiny.uniform", "--conditions", str(file))
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory; name another file"):
        sample("tiny.uniform", "--conditions", str(tmp_path / "none.yaml"))


def test_a_correction_has_no_condition(project: Project) -> None:
    for option, value in [("--regex", "a"), ("--template", "a[[3]]"), ("--forbid", "b"), ("--suffix", "c")]:
        with pytest.raises(ConfigError, match=f"--correct: corrects a whole text as it is; leave out {option}"):
            sample("tiny.uniform", "--correct", "and the", option, value)


TOLD = ["objective={name: nelbo, token_levels: 0.5}", "model.time_conditioning=adaln"]


def test_what_is_exact_is_not_warned_of(project: Project) -> None:
    compute(project, "tiny.uniform", TOLD)
    assert "trusts" not in sample("tiny.uniform", *TOLD, "--prompt", "In ", "--num", "1")[1]


def test_a_model_that_writes_from_left_to_right_does_not_see_what_follows_a_gap(project: Project) -> None:
    compute(project, "tiny.left")
    stdout, said = sample("tiny.left", "--template", "a[[3]]b", "--num", "2")
    assert all(text[0] == "a" and text[-1] == "b" for text in written(stdout))
    assert "this model writes from left to right and does not see what is given after a gap" in said
    stdout, said = sample("tiny.left", "--regex", "(ab)*", "--num", "3")
    assert all(re.fullmatch("(ab)*", text) for text in written(stdout))
    assert "how often each is drawn is a heuristic, token by token" in said


def test_a_prompt_that_ends_inside_a_block_is_warned_of(project: Project) -> None:
    compute(project, "tiny.uniform", JOINT)
    asked = ("tiny.uniform", *JOINT, "--num", "1", "--steps", "2")
    told = "what is given ends inside a block, where this model reads it as if noise could have written it"
    assert told in sample(*asked, "--prompt", "And")[1]
    assert "give whole blocks of 8 tokens" in sample(*asked, "--prompt", "And")[1]
    assert told not in sample(*asked, "--prompt", "And then")[1]
    assert told not in sample(*asked, "--prompt", "And", "--mode", "ar")[1]
    said = sample(*asked, "--template", "And then[[8]] the end")[1]
    assert told not in said
    assert "this model writes from left to right and does not see what is given after a gap" in said
    stdout, _ = sample(*asked, "--regex", r"(\d{3} )*")
    assert re.fullmatch(r"---\n(\d{3} )*\n", stdout)
    own = "evaluation.sampler={name: threshold}"
    with pytest.raises(ConfigError, match="--regex: sampler 'threshold' decides about every token by itself"):
        sample(*asked, own, "--regex", "a*")
    with pytest.raises(ConfigError, match="--require: sampler 'threshold' decides"):
        sample(*asked, own, "--require", "a")


# --- modes ----------------------------------------------------------------------------------------------------------

JOINT = ["objective=joint", "model.attention=causal", "layout={name: blocks, length: 8, read_out: previous}"]


def test_a_model_with_two_modes_writes_in_three_ways_and_the_same_text_in_two(project: Project) -> None:
    compute(project, "tiny.uniform", JOINT)
    asked = ("tiny.uniform", *JOINT, "--num", "3", "--seed", "5", "--prompt", "And")
    alone, said = sample(*asked, "--mode", "ar")
    assert "29 network calls each, 1.00 tokens a call" in said
    drafted, said = sample(*asked, "--mode", "speculative")
    assert drafted == alone
    assert float(said.split(" tokens a call")[0].rpartition(" ")[2]) >= 1
    canvas, said = sample(*asked, "--mode", "canvas", "--steps", "3")
    assert canvas != alone
    assert "12 network calls each" in said, "three for each of four blocks"
    assert sample(*asked, "--steps", "3")[0] == canvas, "what its evaluation says"
    own = "evaluation.sampler={name: speculative, shape: fan, temperature: 0.5}"
    cold = sample("tiny.uniform", *JOINT, own, "--num", "3", "--mode", "speculative")[0]
    assert cold != sample("tiny.uniform", *JOINT, "--num", "3", "--mode", "speculative")[0]
    assert cold == sample("tiny.uniform", *JOINT, own, "--num", "3")[0]


def test_a_model_with_one_mode_has_none_to_choose(project: Project) -> None:
    with pytest.raises(ConfigError, match=r"--mode: tiny\.uniform is trained with objective 'nelbo' for one mode"):
        sample("tiny.uniform", "--mode", "ar")
    with pytest.raises(ConfigError, match=r"--mode: no mode is called 'fast'; one of ar, canvas, speculative, whole"):
        sample("tiny.uniform", "--mode", "fast")


# --- fit-schedule ---------------------------------------------------------------------------------------------------


def test_a_fitted_schedule_is_printed_as_an_experiment_takes_it(project: Project) -> None:
    result = CliRunner().invoke(app, ["fit-schedule", "tiny.uniform"], catch_exceptions=False)
    written = yaml.safe_load(result.stdout)
    schedule = resolve(written, "a.yaml").schedule
    own = find_target(project, "tiny.uniform").fingerprints["evaluation"]
    curve = project.store.folder("evaluation", own) / "loss_by_level.parquet"
    assert schedule == {"name": "fitted", **fit_profile(pd.read_parquet(curve))}


def test_a_text_of_many_levels_has_no_curve_to_fit(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = find_target(project, "tiny.uniform").fingerprints["evaluation"]
    artifact = project.store.find("evaluation", evaluation)
    assert artifact is not None
    artifact.manifest["experiment"]["clock"]["name"] = "spans"
    monkeypatch.setattr(Store, "find", lambda self, stage, own: artifact)
    result = CliRunner().invoke(app, ["fit-schedule", "tiny.uniform"])
    assert "has clock 'spans'" in str(result.exception)


def test_only_a_finished_diffusion_model_has_a_schedule_to_fit(project: Project) -> None:
    result = CliRunner().invoke(app, ["fit-schedule", "tiny.uniform", "seed=5"])
    assert "is not computed with seed=5; run `sumi run tiny.uniform seed=5` first" in str(result.exception)


def test_a_finished_text_is_corrected(project: Project) -> None:
    """A model of four steps has learned nothing, so it changes much; what it is given decides the length."""
    text = "and the evening and the mxrning were"
    first, said = sample("tiny.uniform", "--correct", text, "--num", "2", "--seed", "7")
    assert f"2 texts of {len(text)} tokens, seed 7, 33 network calls each" in said, (
        "32 corrections and a step to the text"
    )
    assert len(texts(first)) == 2
    assert sample("tiny.uniform", "--correct", text, "--num", "2", "--seed", "7")[0] == first
    changes = "evaluation.sampler={name: self_correction, noise: 0.01, corrections: 1}"
    said = sample("tiny.uniform", "--correct", text, "evaluation.sampler={name: self_correction, corrections: 5}")[1]
    assert "6 network calls each" in said, "the options of the evaluation's sampler"
    gentle = sample("tiny.uniform", "--correct", text, "--num", "1", changes)[0].split("\n", 1)[1]
    assert sum(a != b for a, b in zip(gentle, text, strict=False)) < len(text) / 2


def test_what_cannot_be_corrected_is_refused(project: Project) -> None:
    compute(project, "tiny.left")
    for arguments, told in (
        (
            ["tiny.uniform", "--correct", "abc", "--prompt", "a"],
            "--correct: corrects a whole text as it is; leave out --p",
        ),
        (
            ["tiny.uniform", "--correct", "a"],
            "--correct: has 1 token; a text to correct has at least 2 and at most 512",
        ),
        (["tiny.uniform", "--correct", "\udcff"], "--correct: is not UTF-8 text"),
        (["tiny.left", "--correct", "abc"], "--correct: tiny.left writes token by token and changes no finished text"),
    ):
        result = CliRunner().invoke(app, ["sample", *arguments])
        assert isinstance(result.exception, ConfigError)
        assert told in str(result.exception)
