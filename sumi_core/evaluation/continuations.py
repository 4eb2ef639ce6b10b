"""What texts cost a model given a context: −log p(y | c), exact or as an upper bound.

A bound is estimated from K noise levels, spread evenly, for each continuation. Its noise is addressed by the key of the
question and by the place in the continuation, so that the options of one question share levels and noise as far as
their tokens reach: differences between them are paired (common random numbers).

A text that is longer than the model reads goes through windows: each predicts its new tokens given the last tokens
before them. Their nats add up to, or bound, the −log p of a distribution over texts, in which a token depends on no
more than its window.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from sumi_core.base.progress import Progress, unwatched
from sumi_core.data.batch import Batch
from sumi_core.data.noise import EVALUATION
from sumi_core.objectives.likelihood import Given

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sumi_core.evaluation.likelihood import Floats
    from sumi_core.models.interface import DenoiserFunction
    from sumi_core.objectives.likelihood import Reading

_ROWS = 64  # texts of one network call, and
_TOKENS = 2**14  # as many tokens, so that long texts do not need more memory


@dataclass(frozen=True)
class Window:
    """New tokens ``[n]``, n ≥ 1, given a context ``[m]``, both int64. address: of its noise, in [0, 2⁴⁸)."""

    context: NDArray[np.int64]
    new: NDArray[np.int64]
    address: int

    @property
    def length(self) -> int:
        return len(self.context) + len(self.new)


def address_of(key: str) -> int:
    """The address of the noise of a question, by its key, in [0, 2⁴⁸)."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=6).digest(), "big")


@dataclass(frozen=True)
class Continuation:
    """What new tokens cost. nats: ``[K, n]``, of each draw and token; K = 1 for an exact likelihood. time: ``[K]``, the
    place of each draw in the range of levels. greedy: whether they are what the model finds most probable; None where
    there is no such order, or it was not requested."""

    nats: Floats
    time: Floats
    greedy: bool | None = None

    @property
    def total(self) -> float:
        """Nats of all new tokens, the mean over the draws."""
        return float(self.nats.sum(1).mean())

    @property
    def mc_stderr(self) -> float:
        """The standard error of ``total`` over levels and noise; 0 for one draw, which is exact or has no estimate.

        Draws are paired with their neighbours in level (collapsed strata; Wolter, 2007, section 2.5), which errs on the
        large side where each level is drawn in its stratum by itself. Here they share one place: that the mean cost
        goes from a to b over the range of levels moves ``total`` by (b − a)/√12 K besides, which is small beside the
        noise of K draws unless a text is long, and is not counted."""
        return math.sqrt(float((half_differences(self.nats.sum(1), self.time) ** 2).sum()))


def half_differences(values: Floats, time: Floats) -> Floats:
    """The mean of K ``values`` varies by independent signs times these ``[K // 2]`` numbers, one for each pair of
    neighbouring times (half-samples; Wolter, 2007, chapter 3). Of an odd number the last three are one
    stratum, whose two contrasts are two of the numbers: ``[K // 2 + 1]`` for K ≥ 3. None for one value."""
    ordered, count = values[np.argsort(time, kind="stable")], len(values)
    if count < 2:
        return np.zeros(0)
    if count % 2 == 0:
        return (ordered[0::2] - ordered[1::2]) / count
    pairs, (a, b, c) = ordered[:-3], ordered[-3:]
    three = [(a - b) * math.sqrt(0.75) / count, (a + b - 2 * c) / 2 / count]
    return np.concatenate([(pairs[0::2] - pairs[1::2]) / count, three])


def windows(context: NDArray[np.int64], new: NDArray[np.int64], key: str, *, length: int, overlap: int) -> list[Window]:
    """Windows of at most ``length`` tokens that together read ``new`` once, each given at least ``overlap`` tokens
    before its own, as far as there are any. The first holds as much of the context as fits beside all of ``new``. key:
    of the question, for its noise. Raises ValueError for an overlap that leaves no room."""
    if not 0 <= overlap < length:
        raise ValueError(f"a context of {overlap} tokens leaves nothing to read in {length}; give at most {length - 1}")
    text, at = np.concatenate([context, new]), len(context)
    found: list[Window] = []
    while at < len(text):
        before = min(at, max(length - (len(text) - at), overlap))
        end = min(len(text), at - before + length)
        found.append(Window(text[at - before : at], text[at:end], address_of(f"{key}\n{len(found)}")))
        at = end
    return found


def read_windows(
    reading: Reading,
    denoiser: DenoiserFunction,
    asked: Sequence[Window],
    *,
    draws: int,
    width: int,
    epsilon: float,
    seed: int,
    told: bool = False,
    greedy: bool = False,
    device: torch.device | str = "cpu",
    progress: Progress = unwatched,
) -> list[Continuation]:
    """What each window costs, in the order of ``asked``.

    draws: noise levels of each window; an exact likelihood takes one. width: the most tokens that a window has
    anywhere, which addresses the noise. told: as of ``Given``. greedy: ask also whether the tokens are the most
    probable ones. The denoiser must be in evaluation mode, on ``device``. Raises ValueError for a likelihood that is
    not finite."""
    draws = 1 if reading.exact else draws
    order = sorted(range(len(asked)), key=lambda number: asked[number].length)
    nats = [np.zeros((draws, len(window.new))) for window in asked]
    time = np.zeros((len(asked), draws))
    same: list[bool | None] = [None] * len(asked)
    done = 0
    for rows in _calls([(number, asked[number].length) for number in order for _ in range(draws)]):
        places = [(number, (done + row) % draws) for row, number in enumerate(rows)]
        done += len(rows)
        batch, given = _batch([(asked[number], draw) for number, draw in places], draws, width, seed, told, device)
        with torch.inference_mode():
            values = reading.by_position(denoiser, batch, epsilon, given).double().cpu().numpy()
            most = reading.greedy(denoiser, batch, given) if greedy else None
        times = batch.times(0.0, 1.0).cpu().numpy()
        for row, (number, draw) in enumerate(places):
            begin, end = len(asked[number].context), asked[number].length
            nats[number][draw], time[number, draw] = values[row, begin:end], times[row]
            same[number] = None if most is None else bool(most[row])
        progress(done / draws, len(asked), "texts", "likelihood")
    if not all(np.isfinite(own).all() for own in nats):
        raise ValueError("the likelihood of a text is not finite; the model has diverged")
    return [Continuation(*found) for found in zip(nats, time, same, strict=True)]


def _calls(rows: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    """The numbers of rows, given with their rising lengths, of each network call."""
    call: list[int] = []
    for number, length in rows:
        if call and (len(call) == _ROWS or (len(call) + 1) * length > _TOKENS):
            yield call
            call = []
        call.append(number)
    if call:
        yield call


def _batch(
    rows: Sequence[tuple[Window, int]], draws: int, width: int, seed: int, told: bool, device: torch.device | str
) -> tuple[Batch, Given]:
    """Windows with the number of a draw each, padded behind."""
    longest = max(window.length for window, _ in rows)
    tokens = torch.zeros(len(rows), longest, dtype=torch.int64)
    for row, (window, _) in enumerate(rows):
        tokens[row, : window.length] = torch.from_numpy(np.concatenate([window.context, window.new]))
    batch = Batch(
        tokens=tokens.to(device),
        examples=torch.tensor([(window.address << 14) + draw for window, draw in rows]),
        # Each window spreads its levels evenly from a place of its own.
        positions=torch.tensor([draw + draws * window.address / 2**48 for window, draw in rows], dtype=torch.float64),
        global_size=draws,
        step=0,
        seed=EVALUATION + seed,
        width=width,
    )
    context = torch.tensor([len(window.context) for window, _ in rows], device=device)
    return batch, Given(context, torch.tensor([window.length for window, _ in rows], device=device), told)
