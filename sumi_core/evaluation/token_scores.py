"""What each token of given texts costs a model, in nats.

An exact likelihood splits by the chain rule: −log p(x_i | x_{<i}). A bound is a sum over positions too, of expectations
over noise: what a token adds is its share of the three terms, given the rest of the text *in noise*, on average over
all levels. It is not the −log p of that token given anything; only the sum bounds a log-probability. Texts, pieces and
noise are those of ``evaluation.text_likelihood``, so that the tokens of a text add up to its nats there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sumi_core.evaluation.text_likelihood import check_texts, draws_of, noise_seed, pieces_of, read_overlapping

if TYPE_CHECKING:
    import pandas as pd

    from sumi_core.data.tokenizers.tokenizer import Tokenizer
    from sumi_core.evaluation.likelihood import Floats
    from sumi_core.models.interface import DenoiserFunction
    from sumi_core.objectives.objective import Objective


def token_scores(
    objective: Objective,
    denoiser: DenoiserFunction,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    length: int,
    levels: int = 8,
    epsilon: float = 1e-3,
    seed: int = 1,
    device: torch.device | str = "cpu",
    overlap: int = 0,
    told: bool = False,
) -> pd.DataFrame:
    """One row for each token of each text, the end-of-text token last; arguments as of ``text_likelihoods``.

    Columns: text (its number, from 0), position (in the text, from 0), token (its id), string (what it stands for;
    empty for the end of text, and a replacement character for a part of one), nats, nats_mc_stderr (over noise levels
    and noise, of levels drawn independently, which errs on the large side since they are spread evenly; 0 for an exact
    likelihood, NaN for one level), exact. Raises ValueError as ``text_likelihoods``."""
    import pandas as pd

    check_texts(texts)
    reading, tables = objective.reading, []
    for number, (text, ids) in enumerate(zip(texts, tokenizer.encode_batch(list(texts)), strict=True)):
        tokens = np.append(ids, tokenizer.eos_id).astype(np.int64)
        draws = 1 if reading.exact else levels
        nats, errors = [], []
        if overlap:
            read = read_overlapping(
                objective, denoiser, text, tokens, length, overlap, levels, epsilon, seed, told, device
            )
            for part in read:
                nats.append(part.nats.mean(0))
                errors.append(_spread(part.nats, reading.exact))
        for step, pieces in enumerate(() if overlap else pieces_of(tokens, length)):
            found = []
            for batch in draws_of(pieces, draws, noise_seed(text, seed), step, device):
                with torch.inference_mode():
                    found.append(reading.by_position(denoiser, batch, epsilon).double().cpu())
            values = torch.cat(found).reshape(len(pieces), draws, -1).numpy()
            nats.append(values.mean(1).reshape(-1))
            errors.append(_spread(values.swapaxes(0, 1), reading.exact).reshape(-1))
        columns: dict[str, Any] = {
            "text": number,
            "position": np.arange(len(tokens)),
            "token": tokens,
            "string": ["" if token == tokenizer.eos_id else tokenizer.decode([int(token)]) for token in tokens],
            "nats": np.concatenate(nats),
            "nats_mc_stderr": np.concatenate(errors),
            "exact": reading.exact,
        }
        if not np.isfinite(columns["nats"]).all():
            raise ValueError(f"the likelihood of text {number} is not finite; the model has diverged")
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def _spread(values: Floats, exact: bool) -> Floats:
    """The standard error of the mean over draws, ``[K, …]`` → ``[…]``; 0 for an exact likelihood, NaN for one draw."""
    if exact or len(values) < 2:
        return np.full(values.shape[1:], 0.0 if exact else math.nan)
    error: Floats = values.std(0, ddof=1) / math.sqrt(len(values))
    return error
