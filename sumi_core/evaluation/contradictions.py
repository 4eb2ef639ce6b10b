"""Figures of one model on one text that cannot both be right, and the sentence that a report gets where there are such.

Proved for every network and every text, in expectation over the noise:

* The bound of blocks of one token that a denoiser predicts without a look at their noise, as under read-out
  ``previous``, is the cross-entropy of the causal model (docs/mathematics.md 10).
* Under masks alone and one clock, the bound of a network that is given no level is the mean of the chain rule over all
  orders (Hoogeboom et al., 2110.02037; docs/mathematics.md 9).
* A file that a range coder wrote is no smaller than −log₂ of the probabilities that it was given.

Nothing else that stands in these tables is ordered. Bounds of longer blocks, of another read-out and with feedback are
of other distributions than the autoregressive figure, and so is each single order of writing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from sumi_core.base.text import with_error
from sumi_core.evaluation.likelihood import SequenceLikelihoods, paired_difference
from sumi_core.evaluation.measurement import Model
from sumi_core.layouts.blocks import Blocks
from sumi_core.layouts.layout import Whole
from sumi_core.models.interface import reads_level
from sumi_core.objectives.likelihood import Bound

_SIGMAS = 2.0


@dataclass(frozen=True)
class _Equal:
    """Two figures with one expectation, where ``of`` a model that is so; ``because`` says why."""

    first: str
    second: str
    of: Callable[[Model], bool]
    because: str


def reads_no_noise_of_one_token(model: Model) -> bool:
    """Whether the denoiser of a block of one token is the causal model."""
    layout = model.objective.layout
    return isinstance(layout, Blocks) and layout.options.read_out == "previous"


def bound_is_mean_of_orders(model: Model) -> bool:
    """Whether the bound of whole texts is the mean of the chain rule over all orders of writing."""
    process, reading = model.process, model.objective.reading
    if process is None or not isinstance(reading, Bound) or reading.source is not None:
        return False
    masks_alone = bool(process.stationary().max() == 1) and not process.noise_writes_tokens
    whole = type(reading.layout) is Whole and process.clock.one_level
    return masks_alone and whole and not reads_level(model.denoiser)


_EQUAL = (
    _Equal(
        "autoregressive",
        "blocks_1",
        reads_no_noise_of_one_token,
        "under read-out `previous` a block of one token is predicted by the causal model itself",
    ),
    _Equal(
        "bound",
        "random_order",
        bound_is_mean_of_orders,
        "under masks alone the bound of a network that is given no level is the mean over all orders",
    ),
)


def contradictions(model: Model, measured: Mapping[str, SequenceLikelihoods]) -> tuple[str, ...]:
    """A sentence for each two figures that are provably equal for this model, and are more than two standard errors of
    their paired difference apart. measured: of the same sequences, by the name of the reading."""
    return tuple(
        sentence
        for own in _EQUAL
        if own.first in measured and own.second in measured and own.of(model)
        for sentence in _apart(own, model, measured)
    )


def _apart(own: _Equal, model: Model, measured: Mapping[str, SequenceLikelihoods]) -> tuple[str, ...]:
    first, second = measured[own.first], measured[own.second]
    difference, cut = paired_difference(second, first), _cut(model, first, second)
    if not abs(difference.value) > _SIGMAS * difference.stderr + cut:  # nor where the error is not known
        return ()
    where = "above" if difference.value > 0 else "below"
    apart = with_error(abs(difference.value), difference.stderr)
    return (
        f"**Two figures contradict each other:** `{own.second}` lies {apart} bits per byte {where} `{own.first}`, but "
        f"both estimate one number, since {own.because}. Noise alone puts them as far apart in one of twenty "
        "measurements; other noise (evaluation.seed) or more of it (times_per_sequence) tells whether it did.",
    )


def _cut(model: Model, first: SequenceLikelihoods, second: SequenceLikelihoods) -> float:
    """By how much the two may differ because a bound integrates levels on [ε, 1 − ε] alone, bits per byte: its prior
    term, and what the tokens cost that still stand at 1 − ε.

    For blocks of one token the bound is the cross-entropy plus KL(q(·|x) ‖ p) − KL(q(·|x) ‖ q_θ) at 1 − ε, of which the
    first is the prior term, and the second at most α times the cross-entropy, the divergence being convex."""
    assert model.process is not None
    standing = float(model.process.alpha(torch.tensor(1 - second.epsilon, dtype=torch.float64)))
    prior = sum(float(own.prior.mean(axis=1).sum()) for own in (first, second))
    cost = standing * max(float(own.nats.sum()) for own in (first, second))
    return (prior + cost) / math.log(2) / float(second.bytes.sum())


def file_contradiction(file_bits: float, least_bits: float) -> tuple[str, ...]:
    """The sentence for a file that is smaller than its texts can be. least_bits: −log₂ of the probabilities of its
    tokens, each at the largest that the coder may have rounded it to."""
    if file_bits >= least_bits:
        return ()
    return (
        f"**Two figures contradict each other:** the file holds {file_bits:,.0f} bits, but the likelihood of its texts "
        f"allows none below {least_bits:,.0f}. The likelihood and the coder do not read the same model.",
    )
