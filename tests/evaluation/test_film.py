"""The film of a model's texts: its page, its picture and its figures."""

from __future__ import annotations

import base64
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from sumi_core.data import TOKENIZERS
from sumi_core.data.tokenizers.tokenizer import Tokenizer
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.evaluation import MEASUREMENTS
from sumi_core.evaluation.config import EvaluationConfig
from sumi_core.evaluation.film import (
    DenoisingFilm,
    film_strings,
    revision_figures,
    revisions_by_step,
    revisions_by_token,
    shoot,
)
from sumi_core.evaluation.film_gif import write_gif
from sumi_core.evaluation.film_page import film_html
from sumi_core.evaluation.measurement import Context, Findings, Model, declared_model, declared_settings
from sumi_core.evaluation.revisions_plot import draw_revisions
from sumi_core.models.denoiser import Denoiser
from sumi_core.sampling import SAMPLERS
from sumi_core.sampling.film import Film
from tests.corruption.enumerable import build_process
from tests.evaluation.fakes import Sequences
from tests.models.stock import lively, small
from tests.sampling.test_film import film

LENGTH = 12


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    made = TOKENIZERS.build("byte", {})
    made.train(iter(["text"]))
    return made


def made(tokenizer: Tokenizer, noise: str = "uniform") -> Model:
    process = build_process(noise, "linear", tokenizer.vocab_size)
    vocabulary = Vocabulary(tokenizer.vocab_size, tokenizer.eos_id)
    denoiser = lively(Denoiser(small(), process.num_states))
    sampler = SAMPLERS.build("ancestral", {}, process=process, vocabulary=vocabulary)
    unused: Any = None
    return Model(denoiser, unused, sampler, process, tokenizer, torch.device("cpu"))


def measure(model: Model, folder: Path) -> Findings:
    config = declared_settings(EvaluationConfig(sampling_steps=[2, 5], seed=4), DenoisingFilm)
    context = Context(config, Sequences(2, LENGTH, 9), folder)
    return MEASUREMENTS.build("film", {"texts": 3}).run(declared_model(model, DenoisingFilm), context)


def embedded(page: str) -> dict[str, Any]:
    """What a page carries."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


@pytest.mark.parametrize("noise", ["uniform", "absorbing"])
def test_the_page_replays_the_texts_that_the_sampler_draws(tokenizer: Tokenizer, noise: str, tmp_path: Path) -> None:
    model = made(tokenizer, noise)
    found = measure(model, tmp_path)
    wanted = model.sampler.sample(model.denoiser, num=3, length=LENGTH, steps=5, seed=4).tokens
    data = embedded((tmp_path / "plots" / "film.html").read_text())
    assert data["frames"] == 6
    for row, text in enumerate(data["texts"]):
        tokens = list(text["first"])
        for changes in text["changes"]:
            for place, token in changes:
                assert tokens[place] != token
                tokens[place] = token
        assert tokens == wanted[row].tolist()
        assert len(base64.b64decode(text["confidence"])) == 6 * LENGTH
        assert text["calls"] == list(range(6))
    assert (noise == "absorbing") == ("▒▒▒" in data["strings"].values())
    assert [path.name for path in found.plots] == ["film.html", "film.gif", "revisions.png"]
    assert all(path.stat().st_size > 1000 for path in found.plots)
    tokens = found.tables["token_revisions.parquet"]
    assert len(tokens) == 3 * LENGTH
    assert tokens["revised"].mean() == pytest.approx(found.summary["revisions"]["revisions_per_token"])
    table = found.tables["revisions.parquet"]
    assert table["step"].tolist() == list(range(6))
    assert table["revised"].sum() == pytest.approx(found.summary["revisions"]["revisions_per_token"])
    if noise == "absorbing":
        assert found.summary["revisions"]["revised_share"] == 0
        assert table["changed"].sum() == pytest.approx(1)


def test_the_picture_moves_and_stands_still(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """As many frames as steps, each of one size; the same film gives the same bytes."""
    model = made(tokenizer)
    own = shoot(model.sampler, model.denoiser, num=1, length=LENGTH, steps=5, seed=4)
    strings = film_strings(own, tokenizer, None)
    first, second = (write_gif(own, strings, tmp_path / name / "film.gif", "A film") for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    with Image.open(first) as picture:
        assert picture.n_frames == 6  # type: ignore[attr-defined]
        seen = []
        for frame in range(6):
            picture.seek(frame)
            seen.append(np.asarray(picture.convert("RGB")))
    assert len({image.shape for image in seen}) == 1
    assert all((one != other).any() for one, other in itertools.pairwise(seen))


def test_a_long_film_is_cut_to_frames_that_are_spread_over_it(tmp_path: Path) -> None:
    steps = 200
    own = film([[step] for step in range(steps)], [[0.5]] * steps)
    path = write_gif(own, {step: str(step % 10) for step in range(steps)}, tmp_path / "film.gif", "Long")
    with Image.open(path) as picture:
        assert 40 <= picture.n_frames <= 42  # type: ignore[attr-defined]


def test_a_token_cannot_leave_the_data_of_the_page() -> None:
    own = film([[0, 1], [1, 0]], [[float("nan")] * 2, [1.0, 0.2]])
    page = film_html(own, {0: "</script><b>", 1: "{{note}}"}, "<i>", "a & b")
    assert "<b>" not in page
    assert "<title>&lt;i&gt;</title>" in page
    assert "a &amp; b" in page
    assert embedded(page)["strings"] == {"0": "</script><b>", "1": "{{note}}"}


def test_figures_are_means_over_texts() -> None:
    one = film([[1, 1], [2, 2], [3, 2]], [[float("nan")] * 2, [0.9, 0.1], [0.9, 0.9]])
    two = film([[1, 1], [1, 1], [1, 2]], [[float("nan")] * 2, [0.9, 0.1], [0.9, 0.9]])
    both = Film(
        *(np.concatenate([getattr(own, name) for own in (one, two)], 1) for name in ("tokens", "confidence")),
        *(np.concatenate([getattr(own, name) for own in (one, two)]) for name in ("frozen", "lengths")),
        np.concatenate([one.nfe, two.nfe], 1),
    )
    figures = revision_figures(both)
    assert figures["revised_share"] == pytest.approx((1 / 2 + 0) / 2)
    assert figures["revisions_per_token"] == pytest.approx(0.25)
    assert figures["last_change"] == pytest.approx(((1 + 0.5) / 2 + 1) / 2)
    assert figures["revised_share_stderr"] == pytest.approx(0.25)
    assert revisions_by_step(both)["changed"].tolist() == [0, 0.5, 0.5]
    tokens = revisions_by_token(both)
    assert tokens["text"].tolist() == [0, 0, 1, 1]
    assert tokens["position"].tolist() == [0, 1, 0, 1]
    assert tokens["changed"].tolist() == [2, 1, 0, 1]
    assert tokens["revised"].tolist() == [1, 0, 0, 0]


def test_the_plot_shows_shares_of_all_tokens_and_the_rare_ones_together() -> None:
    steps = pd.DataFrame({"step": range(4), "changed": [0.0, 1.0, 0.5, 0.25], "revised": [0.0, 0.0, 0.25, 0.0]})
    tokens = pd.DataFrame({"text": [0, 0, 1, 1], "position": [0, 40, 0, 40]})
    tokens = tokens.assign(changed=[1, 2, 9, 30], revised=[0, 0, 0, 1])
    by_step, times, by_position = draw_revisions(steps, tokens).axes
    assert [list(line.get_ydata()) for line in by_step.lines] == [[1.0, 0.5, 0.25], [0.0, 0.25, 0.0]]
    changed, revised = ([bar.get_height() for bar in kind] for kind in times.containers)
    assert changed == [0, 0.25, 0.25, 0, 0, 0, 0, 0, 0.5], "9 and 30 times are both many"
    assert revised == [0.75, 0.25, *[0] * 7]
    assert list(by_position.lines[0].get_ydata()) == [5.0, 16.0]
    assert times.get_xticklabels()[-1].get_text() == "8+"
