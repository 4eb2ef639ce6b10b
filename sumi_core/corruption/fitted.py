"""A noise schedule fitted to where a model's bound comes from, so that one noise level tells as much as it can.

The diffusion term is ∫_0^1 g(u) du over the noise u = 1 − α, g(u) = E[G | u] the nats per unit of α at that noise, G
their estimate from one text and one draw of z. Drawing u with density p estimates the term by G/p, whose variance is
    ∫ E[G²|u] / p(u) du − (∫ g du)².
By Cauchy-Schwarz (∫ √E[G²|u] du)² ≤ ∫ E[G²|u]/p du · ∫ p du, with equality where p ∝ √E[G²|u]: that is the density
with least variance. Time uniform on [0, 1] draws u with density p if t(u) = ∫_0^u p, so the fitted schedule is the
inverse of that integral. (VDM, 2107.00630, App. I, learns the schedule by gradients to the same end.)
That is for draws that are independent; draws stratified over a large batch are better off with √Var[G|u].

Near the clean end a token is hit with probability u and then costs O(1/u) per unit of α, so that E[G²] grows as 1/u and
p as u^−½, which no straight line between knots follows. Densities here are therefore per unit of √u, where the best one
is ∝ √(u E[G²]) and stays finite.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.corruption.schedules import NoiseSchedule

if TYPE_CHECKING:
    from torch import Tensor


class Density:
    """A density on [0, 1]: linear between knots, constant beyond the outer ones, of integral 1.

    places: rising. weight: positive heights there, in any unit. Its integral is quadratic between knots, so both it and
    its inverse are exact. Methods keep the shape of their float64 argument.
    """

    def __init__(self, places: Sequence[float], weight: Sequence[float]) -> None:
        """Raises ValueError for knots that do not define a density."""
        check_knots(places, weight)
        at = torch.tensor([0.0, *places, 1.0], dtype=torch.float64)
        heights = torch.tensor([weight[0], *weight, weight[-1]], dtype=torch.float64)
        kept = torch.cat([at.diff() > 0, torch.tensor([True])])  # a knot at an end stands for that end
        self._places, heights = at[kept], heights[kept]
        self._heights = heights / torch.trapezoid(heights, self._places)
        self._slopes = self._heights.diff() / self._places.diff()
        self._below = torch.cat([at.new_zeros(1), torch.cumulative_trapezoid(self._heights, self._places)])

    def mirrored(self) -> Density:
        """The same density seen from the other end."""
        return Density((1 - self._places).flip(0).tolist(), self._heights.flip(0).tolist())

    def at(self, place: Tensor) -> Tensor:
        """Its height."""
        start, height, slope, _ = self._piece(self._places, place)
        return height + slope * (place - start)

    def below(self, place: Tensor) -> Tensor:
        """Its integral from 0, rising to 1."""
        start, height, slope, below = self._piece(self._places, place)
        reach = place - start
        return below + reach * (height + slope * reach / 2)

    def quantile(self, share: Tensor) -> Tensor:
        """The place below which this share of it lies."""
        start, height, slope, below = self._piece(self._below, share)
        area = share - below
        # The root of slope/2 · r² + height · r = area in the form that holds for any slope, 0 included.
        return start + 2 * area / (height + (height**2 + 2 * slope * area).clamp(min=0).sqrt())

    def _piece(self, edges: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Start, height and slope of the piece that each value lies in, and the integral below it."""
        index = torch.bucketize(value.contiguous(), edges.to(value), right=True).sub(1).clamp(0, len(self._slopes) - 1)
        start, height, slope, below = (
            table.to(value)[index] for table in (self._places, self._heights, self._slopes, self._below)
        )
        return start, height, slope, below


def check_knots(noise: Sequence[float], weight: Sequence[float]) -> None:
    """Raises ValueError unless places rise within [0, 1] and every knot has a positive weight."""
    if len(noise) != len(weight) or not noise:
        raise ValueError(f"a profile needs as many weights as noise levels, got {len(weight)} and {len(noise)}")
    rises = all(low < high for low, high in itertools.pairwise(noise))
    if not rises or noise[0] < 0 or noise[-1] > 1:
        raise ValueError("the noise levels of a profile must rise within [0, 1]; sort them and drop repeated ones")
    if not all(0 < value < math.inf for value in weight):
        raise ValueError("the weights of a profile must be above 0; raise those of levels that cost nothing a little")


class Fitted(NoiseSchedule):
    """√(1 − α(t)) is the share-t quantile of a density given by knots: t dwells where the weight is high.

    noise: rising levels u = 1 − α in [0, 1]. weight: at each, √(u E[G²]), G the nats per unit of α, in any unit; linear
    in √u between knots. ``fit_profile`` makes both from an evaluation's loss by noise level.
    """

    @dataclass
    class Options(Part.Options):
        noise: Annotated[
            list[float], Field(description="rising noise levels 1 − α in [0, 1], the knots of the density")
        ]
        weight: Annotated[list[float], Field(description="the density's value at each knot, in any unit")]

        def check(self) -> None:
            """Raises ValueError for knots that do not define a density."""
            check_knots(self.noise, self.weight)

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._root = Density([math.sqrt(u) for u in options.noise], options.weight)
        self._rest = self._root.mirrored()  # the noisy half is counted from its own end, where α is small

    def alpha(self, t: Tensor) -> Tensor:
        root, rest = self._root.quantile(t), self._rest.quantile(1 - t)  # √u and 1 − √u
        return torch.where(root < 0.5, 1 - root**2, rest * (2 - rest))

    def noise_fraction(self, t: Tensor) -> Tensor:
        root, rest = self._root.quantile(t), self._rest.quantile(1 - t)
        return torch.where(root < 0.5, root**2, (1 - rest) ** 2)

    def dalpha(self, t: Tensor) -> Tensor:
        root = self._root.quantile(t)
        return -2 * root / self._root.at(root)

    def time_of_alpha(self, alpha: Tensor) -> Tensor:
        root = (1 - alpha).sqrt()
        return torch.where(alpha > 0.5, self._root.below(root), 1 - self._rest.below(alpha / (1 + root)))


def fit_profile(curve: Mapping[str, Any], floor: float = 0.05) -> dict[str, list[float]]:
    """Knots ``{noise, weight}`` of least variance from a table of loss by noise level.

    curve: columns noise and per_alpha_square, the mean of G², of ``evaluation.likelihood.loss_by_level``; the model's
    schedule does not matter, but its positions must share a clock: under spans G mixes many levels. A row is the mean
    over an interval of noise, so its knot stands in the middle of the interval's √u, where a density even in √u has the
    interval's share, however E[G²] runs inside. The curve is drawn on to both ends. No weight is below ``floor`` times
    their mean: a level hardly ever drawn gets a loss that is hardly ever checked. Raises ValueError for a curve without
    levels or without numbers.
    """
    noise, square = ([float(value) for value in curve[name]] for name in ("noise", "per_alpha_square"))
    if not noise:
        raise ValueError("there are no noise levels to fit a schedule to: an exact likelihood has none")
    if not all(math.isfinite(value) for value in square):
        raise ValueError("some noise levels have no nats per unit of alpha; evaluate more sequences or levels")
    between = [(low + high) / 2 for low, high in itertools.pairwise(noise)]
    edges = [0.0, *between, 1.0]
    if between:
        edges[0], edges[-1] = max(0.0, 2 * noise[0] - between[0]), min(1.0, 2 * noise[-1] - between[-1])
    roots = [(math.sqrt(low) + math.sqrt(high)) / 2 for low, high in itertools.pairwise(edges)]
    weight = [root * math.sqrt(value) for root, value in zip(roots, square, strict=True)]
    least = floor * sum(weight) / len(weight)
    roots, weight = _to_the_ends(roots, weight)
    knots = {"noise": [_short(root**2) for root in roots], "weight": [_short(max(w, least)) for w in weight]}
    check_knots(knots["noise"], knots["weight"])
    return knots


def _to_the_ends(roots: list[float], weight: list[float]) -> tuple[list[float], list[float]]:
    """Knots at 0 and 1 too, on the lines through the outer two at either side: where G varies little, the weight goes
    to 0 with √u, where single hits dominate it, it does not."""
    if len(roots) == 1:
        return roots, weight
    low = weight[0] - (weight[1] - weight[0]) / (roots[1] - roots[0]) * roots[0]
    high = weight[-1] + (weight[-1] - weight[-2]) / (roots[-1] - roots[-2]) * (1 - roots[-1])
    return [0.0, *roots, 1.0], [low, *weight, high]


def _short(value: float) -> float:
    """Six digits, as many as anybody wants to read in a config."""
    return float(f"{value:.6g}")
