"""The film of how a model writes: the canvas over the steps, and which tokens change their mind, how often, how late.

plots/film.html           texts with a scrub bar: confidence, age and revisions of every token
plots/film.gif            the first of them
plots/revisions.png       when, how often and where tokens changed and were revised
revisions.parquet         a row for each step: shares of the tokens that changed and that were revised in it
token_revisions.parquet   a row for each token: how often it changed and was revised
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from sumi_core.base.files import replacing
from sumi_core.base.progress import Progress, unwatched
from sumi_core.base.registry import Part
from sumi_core.base.statistics import mean_estimate
from sumi_core.base.text import with_error
from sumi_core.evaluation.corruption_picture import token_text
from sumi_core.evaluation.film_gif import write_gif
from sumi_core.evaluation.film_page import film_html
from sumi_core.evaluation.measurement import Context, Findings, Measurement, Model, named_estimates
from sumi_core.sampling.film import Camera

if TYPE_CHECKING:
    import pandas as pd

    from sumi_core.data.tokenizers.tokenizer import Tokenizer
    from sumi_core.models.interface import DenoiserFunction
    from sumi_core.sampling.film import Film
    from sumi_core.sampling.sampler import Sampler

DEFINITIONS = (
    "revision: a token is replaced to which the model gave probability ½ or more when it wrote it; noise or a "
    "mask that gives way is none. revised share: of the tokens, those revised at least once. revisions per token: of "
    "all tokens. ± over texts.",
    "last change: when a token that changed did so for the last time, as a share of the steps; the mean over such "
    "tokens of a text, over texts in which one did. 1: in the last step. ± over texts.",
)


class DenoisingFilm(Measurement):
    """Films of texts as the evaluation's sampler writes them, at the most of its numbers of steps."""

    reads = ("sampling_steps", "sampler", "seed")

    @dataclass
    class Options(Part.Options):
        """texts: that are written; the page shows all of them, the figures are of all."""

        texts: Annotated[int, Field(ge=2, le=64, description="texts that are filmed")] = 8

    def run(self, model: Model, context: Context) -> Findings:
        """Write the texts, the pictures and the figures."""
        steps, length = max(context.config.sampling_steps), len(context.text[0])
        film = shoot(
            model.sampler,
            model.denoiser,
            num=self.options.texts,
            length=length,
            steps=steps,
            seed=context.config.seed,
            progress=context.progress,
        )
        mask_id = model.process.mask_id if model.process else None
        files = context.plot("film.html"), context.plot("film.gif")
        for file in files:
            write_film(film, model.tokenizer, mask_id, file)
        figures, by_step, by_token = revision_figures(film), revisions_by_step(film), revisions_by_token(film)
        from sumi_core.evaluation.revisions_plot import plot_revisions

        picture = plot_revisions(by_step, by_token, context.plot("revisions.png"), "Tokens that change")
        return Findings(
            summary={"revisions": figures},
            estimates=named_estimates("revisions", figures),
            tables={"revisions.parquet": by_step, "token_revisions.parquet": by_token},
            plots=(*files, picture),
            texts=("## Revisions", _sentence(film, figures)),
            definitions=DEFINITIONS,
        )


def shoot(
    sampler: Sampler,
    denoiser: DenoiserFunction,
    *,
    num: int,
    length: int,
    steps: int,
    seed: int,
    progress: Progress = unwatched,
) -> Film:
    """The film of ``num`` texts: those that ``draw_texts`` draws with the same arguments."""
    camera = Camera()
    progress(0, 1, "films", "filming")
    sampler.sample(denoiser, num=num, length=length, steps=steps, seed=seed, watch=camera)
    return camera.film(sampler)


def write_film(film: Film, tokenizer: Tokenizer, mask_id: int | None, file: Path) -> None:
    """Write a film: as a page of all its texts where the file ends in ``.html``, else the first text as a GIF.

    Raises OSError, which names the file; nothing half-written stays."""
    title, strings = f"How a text of {film.tokens.shape[2]} tokens is written", film_strings(film, tokenizer, mask_id)
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(file) as temporary:
            if file.suffix.lower() == ".html":
                temporary.write_text(film_html(film, strings, title, film_note(film)), encoding="utf-8")
            else:
                write_gif(film, strings, temporary, title)
    except OSError as error:  # a full disk does not say where it is
        raise OSError(error.errno, error.strerror, str(file)) from error


def film_strings(film: Film, tokenizer: Tokenizer, mask_id: int | None) -> dict[int, str]:
    """How each state that a film holds is shown."""
    states = [int(state) for state in np.unique(film.tokens) if state >= 0]
    return {state: token_text(state, tokenizer, mask_id) for state in states}


def film_note(film: Film) -> str:
    """What the page says of its film."""
    return (
        f"{film.tokens.shape[1]} texts, {len(film.tokens) - 1} steps. Every token can be seen at every step: what "
        "stands there, how sure the model was of it when it drew it, how long it has stood, how often it was revised."
    )


def revision_figures(film: Film) -> dict[str, float]:
    """``revised_share``, ``revisions_per_token`` and ``last_change`` with their standard errors over texts."""
    written, changed, revisions = film.written, film.changed(), film.revised().sum(0)
    count = np.maximum(written.sum(-1), 1)
    frame = np.arange(len(changed))[:, None, None]
    last = np.where(changed, frame, 0).max(0) / max(len(changed) - 1, 1)  # of the steps
    moved = changed.any(0)
    figures = {
        "revised_share": (revisions > 0).sum(-1) / count,
        "revisions_per_token": revisions.sum(-1) / count,
        "last_change": (last * moved).sum(-1) / np.maximum(moved.sum(-1), 1),
    }
    figures["last_change"] = figures["last_change"][moved.any(-1)]
    found: dict[str, float] = {}
    for name, values in figures.items():
        if not len(values):
            continue
        estimate = mean_estimate(values)
        found |= {name: estimate.value, f"{name}_stderr": estimate.stderr}
    return found


def revisions_by_step(film: Film) -> pd.DataFrame:
    """Step, and the shares of the tokens that changed and that were revised in it."""
    import pandas as pd

    written = max(int(film.written.sum()), 1)
    shares = {
        name: own.sum((1, 2)) / written for name, own in (("changed", film.changed()), ("revised", film.revised()))
    }
    return pd.DataFrame({"step": np.arange(len(film.tokens)), **shares})


def revisions_by_token(film: Film) -> pd.DataFrame:
    """Text, position, and how often the token there changed and was revised; of the tokens that were written."""
    import pandas as pd

    text, position = np.nonzero(film.written)
    counts = {
        name: own.sum(0)[film.written] for name, own in (("changed", film.changed()), ("revised", film.revised()))
    }
    return pd.DataFrame({"text": text, "position": position, **counts})


def _sentence(film: Film, figures: dict[str, float]) -> str:
    shown = {name: with_error(figures[name], figures[f"{name}_stderr"]) for name in figures if "stderr" not in name}
    return (
        f"Over {len(film.tokens) - 1} steps, {shown['revised_share']} of the tokens were revised, "
        f"{shown['revisions_per_token']} times a token; a token changed for the last time after "
        f"{shown['last_change']} of the steps. plots/film.html shows it token by token, "
        "plots/revisions.png when and where."
    )
