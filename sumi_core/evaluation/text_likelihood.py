"""How well a model predicts given texts, each by itself: nats and bits per byte with their standard errors.

A text is its tokens and an end-of-text token, cut into pieces of at most the trained length. Pieces share no context,
so a text that is cut costs more than it would in one piece; with an ``overlap`` each piece is given the end of the one
before. ``evaluation.likelihood`` has the terms and the two errors.
The noise of a text is addressed by its content: the same text has the same figures, whatever stands beside it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sumi_core.base.statistics import ratio_over_units
from sumi_core.data.batch import Batch
from sumi_core.data.noise import EVALUATION
from sumi_core.evaluation.continuations import Continuation, read_windows, windows
from sumi_core.evaluation.likelihood import Floats, monte_carlo_stderr

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from sumi_core.data.tokenizers.tokenizer import Tokenizer
    from sumi_core.models.interface import DenoiserFunction
    from sumi_core.objectives.objective import Objective

ALL = "all"  # the row of all texts together
_ROWS = 64  # sequences of one network call


def text_likelihoods(
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
    """One row for each text, numbered from 0, and the row ``all``.

    length: tokens of a piece at most. levels: noise levels drawn for each piece. epsilon: the bound integrates t over
    [ε, 1 − ε]. overlap: tokens that pieces after the first repeat, given clean: their cost is that of the new tokens
    after them (``evaluation.continuations``). told: as of ``Given``. The denoiser must be in evaluation mode, on
    ``device``.

    Columns: tokens (end-of-text counted), bytes (UTF-8), nats, bits_per_byte; bits_per_byte_stderr: over texts, in the
    row ``all`` of two texts or more; bits_per_byte_mc_stderr: over noise levels and noise, 0 for an exact likelihood,
    NaN for one level per piece; exact: False for an upper bound. Raises ValueError, naming the text by its number, for
    a text that is empty or not valid UTF-8 and for a likelihood that is not finite, and for no text at all; and for an
    overlap that leaves no room.
    """
    import pandas as pd

    check_texts(texts)
    rows: list[dict[str, Any]] = []
    nats_errors: list[float] = []
    for number, (text, ids) in enumerate(zip(texts, tokenizer.encode_batch(list(texts)), strict=True)):
        data = text.encode()
        tokens = np.append(ids, tokenizer.eos_id).astype(np.int64)
        own = noise_seed(text, seed)
        nats, variance = 0.0, 0.0
        if overlap:
            read = read_overlapping(
                objective, denoiser, text, tokens, length, overlap, levels, epsilon, seed, told, device
            )
            nats = sum(part.total for part in read)
            alone = levels < 2 and not objective.reading.exact
            variance = math.nan if alone else sum(part.mc_stderr**2 for part in read)
        for step, pieces in enumerate(() if overlap else pieces_of(tokens, length)):
            draws = 1 if objective.reading.exact else levels
            values, times = _measured(objective, denoiser, pieces, draws, epsilon, own, step, device)
            nats += float(values.mean(axis=1).sum())
            variance += 0.0 if objective.reading.exact else monte_carlo_stderr(values, times) ** 2
        if not math.isfinite(nats):
            raise ValueError(f"the likelihood of text {number} is not finite; the model has diverged")
        scale = 1 / math.log(2) / len(data)
        rows.append(
            {
                "tokens": len(tokens),
                "bytes": len(data),
                "nats": nats,
                "bits_per_byte": nats * scale,
                "bits_per_byte_stderr": math.nan,
                "bits_per_byte_mc_stderr": math.sqrt(variance) * scale,
                "exact": objective.reading.exact,
            }
        )
        nats_errors.append(math.sqrt(variance))
    table = pd.DataFrame([*rows, _together(rows, nats_errors)], index=pd.Index([*range(len(rows)), ALL], name="text"))
    return table


def read_overlapping(
    objective: Objective,
    denoiser: DenoiserFunction,
    text: str,
    tokens: NDArray[np.int64],
    length: int,
    overlap: int,
    levels: int,
    epsilon: float,
    seed: int,
    told: bool,
    device: torch.device | str,
) -> list[Continuation]:
    """What the windows of a text cost, in their order; its noise is addressed by its content."""
    return read_windows(
        objective.reading,
        denoiser,
        windows(tokens[:0], tokens, text, length=length, overlap=overlap),
        draws=levels,
        width=length,
        epsilon=epsilon,
        seed=seed,
        told=told,
        device=device,
    )


def check_texts(texts: Sequence[str]) -> None:
    """Raise ValueError, naming the text by its number, for anything but a list of texts that can be read."""
    if isinstance(texts, str):
        raise ValueError("expected a list of texts, got one text; write [text]")
    if not texts:
        raise ValueError("expected at least one text, got none")
    for number, text in enumerate(texts):
        if not text:
            raise ValueError(f"text {number} is empty; leave it out")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError(f"text {number} is not valid UTF-8; leave it out") from None


def pieces_of(ids: NDArray[np.int64], length: int) -> Iterator[NDArray[np.int64]]:
    """The pieces of full length ``[N, length]``, and what is left ``[1, rest]``, where there is any."""
    whole = len(ids) // length
    if whole:
        yield ids[: whole * length].reshape(whole, length)
    if len(ids) % length:
        yield ids[None, whole * length :]


def noise_seed(text: str, seed: int) -> int:
    """The seed of a text's noise, by its content."""
    return EVALUATION + seed + int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")


def draws_of(
    pieces: NDArray[np.int64], draws: int, seed: int, step: int, device: torch.device | str
) -> Iterator[Batch]:
    """Pieces ``[N, L]``, each ``draws`` times in a row, in batches: N · draws rows in all. The levels of a piece are
    spread evenly."""
    count = len(pieces)
    rows, tokens = count * draws, torch.from_numpy(pieces)
    for start in range(0, rows, _ROWS):
        row = torch.arange(start, min(start + _ROWS, rows))
        piece, draw = row // draws, row % draws
        yield Batch(
            tokens=tokens[piece].to(device),
            examples=row,
            positions=draw * count + piece,
            global_size=rows,
            step=step,
            seed=seed,
        )


def _measured(
    objective: Objective,
    denoiser: DenoiserFunction,
    pieces: NDArray[np.int64],
    draws: int,
    epsilon: float,
    seed: int,
    step: int,
    device: torch.device | str,
) -> tuple[Floats, Floats]:
    """Nats and times of every draw of pieces ``[N, L]``: two arrays ``[N, draws]``."""
    nats, times = [], []
    for batch in draws_of(pieces, draws, seed, step, device):
        with torch.inference_mode():
            found = objective.likelihood(denoiser, batch, epsilon)
        nats.append(found.total.double().cpu().numpy())
        times.append(found.time.double().cpu().numpy())
    return np.concatenate(nats).reshape(-1, draws), np.concatenate(times).reshape(-1, draws)


def _together(rows: Sequence[dict[str, Any]], nats_errors: Iterable[float]) -> dict[str, Any]:
    """All texts as one: Σ nats / Σ bytes."""
    total = {name: sum(row[name] for row in rows) for name in ("tokens", "bytes", "nats")}
    bits = [row["nats"] / math.log(2) for row in rows]
    estimate = ratio_over_units(bits, [row["bytes"] for row in rows], range(len(rows)))
    return {
        **total,
        "bits_per_byte": estimate.value,
        "bits_per_byte_stderr": estimate.stderr,
        "bits_per_byte_mc_stderr": math.hypot(*nats_errors) / math.log(2) / total["bytes"],
        "exact": rows[0]["exact"],
    }
