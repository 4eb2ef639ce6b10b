"""A trained model opened from Python: likelihoods, samples, plots and the card."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from typer.testing import CliRunner

from pipelines.cli import app
from sumi_core.api import Model, open_model
from sumi_core.base.options import ConfigError
from sumi_core.lineage.project import Project
from sumi_core.lineage.targets import LineageError
from sumi_core.models.interface import DenoiserInput
from sumi_core.stages.identity import stage_fingerprint
from tests.pipelines.tiny import compute, enter, tiny_project

TEXTS = ["and the evening", "the morning were the day number 7 of the making, and it was good", "ö"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    shared = tiny_project(tmp_path_factory)  # a copy of it: other tests count on what is missing there
    project = Project(shutil.copytree(shared.root, tmp_path_factory.mktemp("api") / "tiny"))
    with pytest.MonkeyPatch.context() as patch:
        enter(project, patch)
        yield project


@pytest.fixture(scope="module")
def model(project: Project) -> Model:
    return open_model("tiny.uniform")


@pytest.fixture(scope="module")
def exact(project: Project) -> Model:
    compute(project, "tiny.left")
    return open_model("tiny.left")


def test_each_text_has_a_bound_with_its_monte_carlo_error(model: Model) -> None:
    table = model.likelihood(TEXTS)
    assert list(table.index) == [0, 1, 2, "all"]
    assert list(table["bytes"]) == [15, 64, 2, 81]
    assert list(table["tokens"]) == [16, 65, 3, 84], "byte tokens, and the end of the text"
    assert not table["exact"].any()
    assert (table["bits_per_byte_mc_stderr"] > 0).all()
    assert table["bits_per_byte_stderr"].isna().tolist() == [True, True, True, False]
    for row in table.itertuples():
        assert row.bits_per_byte == pytest.approx(row.nats / math.log(2) / row.bytes)
    assert table.loc["all", "nats"] == pytest.approx(table["nats"].iloc[:3].sum())


def test_a_text_has_the_same_figures_in_any_company(model: Model) -> None:
    together, alone = model.likelihood(TEXTS), model.likelihood(TEXTS[1:2])
    assert alone.loc[0, "nats"] == pytest.approx(together.loc[1, "nats"], rel=1e-6)
    assert math.isnan(alone.loc["all", "bits_per_byte_stderr"]), "an error over texts takes two"
    other = model.likelihood(TEXTS[1:2], seed=2)
    assert other.loc[0, "nats"] != pytest.approx(alone.loc[0, "nats"], rel=1e-6)


def test_more_levels_make_the_bound_less_noisy_and_leave_it_where_it_is(model: Model) -> None:
    few, many = model.likelihood(TEXTS[1:2], levels=8).loc[0], model.likelihood(TEXTS[1:2], levels=512).loc[0]
    assert many["bits_per_byte_mc_stderr"] < few["bits_per_byte_mc_stderr"] / 3
    error = math.hypot(few["bits_per_byte_mc_stderr"], many["bits_per_byte_mc_stderr"])
    assert abs(few["bits_per_byte"] - many["bits_per_byte"]) < 4 * error


def test_an_autoregressive_model_gives_the_chain_rule_exactly(exact: Model) -> None:
    """The text's tokens and its end, cut every 32 tokens; each piece is read after an end-of-text token."""
    table = exact.likelihood(TEXTS)
    assert table["exact"].all()
    assert (table["bits_per_byte_mc_stderr"] == 0).all()
    eos, nats = exact.exported.tokenizer.eos_id, 0.0
    ids = [*TEXTS[1].encode(), eos]
    for start in range(0, len(ids), 32):
        piece = ids[start : start + 32]
        for place, token in enumerate(piece):
            seen = torch.tensor([[eos, *piece[:place]]])
            with torch.inference_mode():
                logits = exact.exported.denoiser(DenoiserInput(seen)).logits()[0, -1]
            nats -= float(logits[: exact.exported.parts.num_tokens].double().log_softmax(-1)[token])
    assert table.loc[1, "nats"] == pytest.approx(nats, rel=1e-5)


@pytest.mark.parametrize("kind", ["model", "exact"])
def test_the_tokens_of_a_text_add_up_to_its_nats(kind: str, request: pytest.FixtureRequest) -> None:
    opened: Model = request.getfixturevalue(kind)
    scores, whole = opened.score(TEXTS), opened.likelihood(TEXTS)
    for number, own in scores.groupby("text"):
        assert own["nats"].sum() == pytest.approx(whole["nats"][number], rel=1e-6)
        assert list(own["position"]) == list(range(whole["tokens"][number]))
        assert bytes(own["token"].iloc[:-1]) == TEXTS[int(str(number))].encode()
        assert own["token"].iloc[-1] == opened.exported.tokenizer.eos_id
    assert "".join(scores[scores["text"] == 0]["string"]) == TEXTS[0]
    assert (scores["nats_mc_stderr"] == 0).all() == (kind == "exact")
    assert scores["exact"].all() == (kind == "exact")


def test_pieces_that_overlap_are_read_behind_the_end_of_the_one_before(exact: Model, model: Model) -> None:
    """65 tokens in windows of 32: the first reads 32, then 12 behind 20, and the rest behind all that fits."""
    eos, table = exact.exported.tokenizer.eos_id, exact.likelihood(TEXTS[1:2], overlap=20)
    ids, at, nats, places = [*TEXTS[1].encode(), eos], 0, 0.0, [(0, 32), (12, 44), (24, 56), (33, 65)]
    for begin, end in places:
        with torch.inference_mode():
            logits = exact.exported.denoiser(DenoiserInput(torch.tensor([[eos, *ids[begin : end - 1]]]))).logits()[0]
        logs = logits[:, : exact.exported.parts.num_tokens].double().log_softmax(-1)
        nats -= sum(float(logs[place - begin, ids[place]]) for place in range(at, end))
        at = end
    assert table.loc[0, "nats"] == pytest.approx(nats, rel=1e-5)
    for opened in (exact, model):
        whole, scores = opened.likelihood(TEXTS, overlap=20), opened.score(TEXTS, overlap=20)
        for number, own in scores.groupby("text"):
            assert own["nats"].sum() == pytest.approx(whole["nats"][number], rel=1e-6)
        assert (whole["bits_per_byte_mc_stderr"] > 0).all() == (opened is model)
    with pytest.raises(ConfigError, match="overlap: is 32; a piece has 32 tokens, so give fewer"):
        model.likelihood(TEXTS, overlap=32)


def test_the_error_of_a_token_covers_other_levels_and_noise(model: Model) -> None:
    one, other = (model.score(TEXTS[1:2], levels=128, seed=seed) for seed in (1, 2))
    error = np.hypot(one["nats_mc_stderr"], other["nats_mc_stderr"])
    square = float((((one["nats"] - other["nats"]) / error) ** 2).mean())
    assert 0.3 < square < 1.5
    assert model.score(["a"], levels=1)["nats_mc_stderr"].isna().all()


def test_tokens_that_cannot_be_scored_are_refused(model: Model) -> None:
    with pytest.raises(ConfigError, match="score: texts: text 1 is empty; leave it out"):
        model.score(["a", ""])


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        ([], "expected at least one text"),
        ("one", "expected a list of texts, got one text; write [text]"),
        (["a", ""], "text 1 is empty; leave it out"),
        (["\ud800"], "text 0 is not valid UTF-8; leave it out"),
    ],
)
def test_texts_that_cannot_be_measured_are_refused_in_a_sentence(model: Model, texts: list[str], problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        model.likelihood(texts)
    assert str(refused.value).startswith("likelihood: texts: ")
    assert problem in str(refused.value)


def test_samples_are_those_of_the_command_line(model: Model) -> None:
    prompted = model.sample(num=2, length=20, steps=3, seed=5, prompt="and the ")
    assert all(text.startswith("and the ") for text in prompted)
    assert model.sample(num=1, length=20, steps=3, seed=5, prompt="and the ") == prompted[:1]
    assert model.sample(num=2, length=20, steps=3, seed=6, prompt="and the ") != prompted
    printed = CliRunner().invoke(app, ["sample", "tiny.uniform", "--num", "1", "--seed", "3"]).stdout
    printable = "".join(c for c in model.sample(num=1, seed=3)[0] if c.isascii() and c.isprintable())
    assert all(character in printed for character in printable)
    with pytest.raises(ConfigError, match="sample: prompt: has 9 tokens, which leaves nothing to write in 9;"):
        model.sample(length=9, prompt="and the e")


def test_texts_keep_their_conditions(model: Model) -> None:
    (text,) = model.sample(num=1, steps=2, prompt="Day ", regex=r"\d{2}")
    assert re.fullmatch(r"Day \d{2}", text)
    gap, number = model.sample(num=1, steps=2, conditions=[{"template": "a[[3]]b"}, {"schema": {"type": "integer"}}])
    assert (gap[0], gap[-1]) == ("a", "b")
    assert isinstance(json.loads(number), int)
    with pytest.raises(ConfigError, match="sample: rgex: unknown key; did you mean 'regex'"):
        model.sample(rgex="a")
    with pytest.raises(ConfigError, match=r"sample: conditions\[1\]\.suffix: expected text, got 3"):
        model.sample(conditions=[{}, {"suffix": 3}])
    with pytest.raises(ConfigError, match="sample: conditions: hold every text's own keys; write no others"):
        model.sample(prompt="a", conditions=[{}])


def test_corrections_are_those_of_the_command_line(model: Model, exact: Model) -> None:
    text = "and the evening"
    corrected = model.correct(text, num=2, seed=5)
    assert len(corrected) == 2
    assert model.correct(text, num=1, seed=5) == corrected[:1]
    assert model.correct(text, num=2, seed=6) != corrected
    printed = CliRunner().invoke(app, ["sample", "tiny.uniform", "--correct", text, "--num", "1", "--seed", "5"]).stdout
    assert all(c in printed for c in corrected[0] if c.isascii() and c.isprintable())
    with pytest.raises(ConfigError, match="correct: text: has 1 token; a text to correct has at least 2"):
        model.correct("a")
    with pytest.raises(ConfigError, match="writes token by token and changes no finished text"):
        exact.correct(text)


def test_the_card_and_the_plots_are_those_of_the_stages(model: Model) -> None:
    assert "# tiny.uniform" in model.card
    plots = model.plots()
    assert set(plots) == {"loss_history", "loss_by_level", "bits_per_byte", "sample_quality"}
    assert all(isinstance(figure, Figure) for figure in plots.values())
    labels = [text.get_text() for text in plots["bits_per_byte"].axes[0].texts]
    assert sum(label.startswith("≤ ") for label in labels) == 1, "the model is a bound, yardsticks carry no sign"


def test_an_exact_model_has_no_curve_over_noise_levels(exact: Model) -> None:
    assert "loss_by_level" not in exact.plots()


def test_a_folder_needs_no_project(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = shutil.copytree(model.folder, tmp_path / "copied")
    (copied / "manifest.json").unlink()
    monkeypatch.setenv("SUMI_PROJECT", str(tmp_path / "nothing"))
    alone = open_model(copied)
    assert alone.plots() == {}
    assert alone.sample(num=1, seed=1) == model.sample(num=1, seed=1)
    assert alone.likelihood(TEXTS).equals(model.likelihood(TEXTS))


def test_overrides_name_what_they_made(project: Project) -> None:
    with pytest.raises(LineageError, match=r"run `sumi run tiny\.uniform training\.steps=5` first"):
        open_model("tiny.uniform", ["training.steps=5"])
    opened = open_model("tiny.uniform", ["evaluation.sampling_steps=[3]"])
    assert opened.experiment.evaluation.sampling_steps == [3], "another evaluation of the same export"
    cell = next(cell for cell in project.sweeps()["tiny"].cells if cell.key == "tiny.uniform")
    assert opened.folder.name == stage_fingerprint(cell.experiment, "exported_model")
