"""How well a model predicts long text: sequences of new tokens, each after the tokens that stand before it.

The figures are those of ``evaluation.likelihood`` where every piece has a context: exact given it, or the bound of the
reverse process beside it (``evaluation.continuations``). Documents are the independent units of the error over text.

rolling.parquet    nats of every (sequence, draw)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sumi_core.base.progress import Progress, unwatched
from sumi_core.base.statistics import ratio_over_units
from sumi_core.data.sequences import spread_indices
from sumi_core.evaluation.continuations import Window, address_of, read_windows
from sumi_core.evaluation.likelihood import documents_of
from sumi_core.evaluation.measurement import Findings, named_estimates

if TYPE_CHECKING:
    from sumi_core.data.sequences import PackedSequences
    from sumi_core.evaluation.config import EvaluationConfig
    from sumi_core.evaluation.measurement import Model

VERSION = "2"  # raise it whenever the code would find something else


def rolling_likelihood(
    model: Model, new: PackedSequences, overlap: int, config: EvaluationConfig, *, progress: Progress = unwatched
) -> Findings:
    """Read ``config.sequences`` sequences of ``new`` (all, if there are fewer), evenly spread, each after the
    ``overlap`` tokens before it, as far as there are any.

    Raises ValueError for a likelihood that is not finite."""
    import pandas as pd

    chosen = spread_indices(min(config.sequences, len(new)), len(new))
    reach = -(-overlap // new.length)
    asked = []
    for index in chosen:
        before = [np.asarray(new[at], dtype=np.int64) for at in range(max(0, index - reach), index)]
        context = np.concatenate([np.zeros(0, dtype=np.int64), *before])[-overlap:]
        asked.append(Window(context, np.asarray(new[index], dtype=np.int64), address_of(f"rolling {index}")))
    found = read_windows(
        model.objective.reading,
        model.denoiser,
        asked,
        draws=config.times_per_sequence,
        width=overlap + new.length,
        epsilon=config.time_epsilon,
        seed=config.seed,
        told=model.told,
        device=model.device,
        progress=progress,
    )
    exact, nats = model.objective.reading.exact, [part.total for part in found]
    size = np.array([new.bytes(index) for index in chosen], dtype=np.int64)
    documents = documents_of(new, chosen)
    bits = ratio_over_units(np.array(nats) / math.log(2), size, documents)
    per_token = ratio_over_units(nats, [new.length] * len(chosen), documents)
    noise = math.sqrt(sum(part.mc_stderr**2 for part in found)) / math.log(2) / float(size.sum())
    figures: dict[str, Any] = {
        "exact": exact,
        "bits_per_byte": bits.value,
        "bits_per_byte_stderr": bits.stderr,
        "bits_per_byte_mc_stderr": math.nan if config.times_per_sequence < 2 and not exact else noise,
        "nats_per_token": per_token.value,
        "nats_per_token_stderr": per_token.stderr,
        "sequences": len(chosen),
        "documents": len(np.unique(documents)),
        "tokens": len(chosen) * new.length,
        "bytes": int(size.sum()),
    }
    figures = {name: value for name, value in figures.items() if value == value}
    draws = [
        {
            "sequence": number,
            "bytes": int(size[number]),
            "document": int(documents[number]),
            "draw": draw,
            "nats": value,
        }
        for number, part in enumerate(found)
        for draw, value in enumerate(part.nats.sum(1).tolist())
    ]
    return Findings(
        summary={**figures, "overlap": overlap},
        estimates=named_estimates("rolling", figures),
        tables={"rolling.parquet": pd.DataFrame(draws)},
    )
