"""What the objectives of corruption processes share: the noise they train on, and the bound they are reported with."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field

from sumi_core.base.options import later, part
from sumi_core.base.registry import Part
from sumi_core.corruption import CLOCKS, PROCESSES, SCHEDULES
from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.batch import Batch
from sumi_core.kernels.row_loss import RowLoss, cross_entropy_loss
from sumi_core.layouts import LAYOUTS
from sumi_core.models.interface import DenoiserFunction, DenoiserInput, DenoiserOutput
from sumi_core.objectives import FEEDBACK_SOURCES
from sumi_core.objectives.feedback import FeedbackSource, LayOut, Same
from sumi_core.objectives.likelihood import Bound, Reading
from sumi_core.objectives.log_partition import SquaredLogPartition
from sumi_core.objectives.noising import NoisyBatch, corrupt
from sumi_core.objectives.objective import Loss, Objective

if TYPE_CHECKING:
    from torch import Tensor

_TIMES = 1000  # of the mean over noise levels that ``expected_supervision`` takes
_LEAST_HIT = 1e-14  # times are distinguished by α, and float64 near 1 steps by 1e-16


class Diffusion(Objective):
    """Trains on a corrupted batch, a loss per token; reports the tight bound, whatever the loss.

    Subclasses give ``token_loss``. ``loss`` is the mean over all tokens of

        weight · token_loss + z_loss · (log Σ exp logits)²         (z_loss: PaLM, 2204.02311, Sec. 5; Sumi has 1e-5)

    with t uniform on [ε, 1 − ε], or drawn otherwise and weighted so that the mean is the same. time_sampling:
    ``stratified`` spreads the times of a batch evenly (VDM, 2107.00630, App. I.1); ``iid`` draws each by itself;
    ``importance`` draws, stratified, the noise levels that a uniform time would have under another schedule,
    ``time_density``, and divides each sequence's loss by the density. The process, the level its denoiser is given, and
    the evaluation keep their own schedule: only the variance changes.

    Under a layout of blocks each block of a text has a level of its own, frac(u + k/K) for block k of K, u being what
    is drawn for the text: blocks are noised apart from each other, and their levels are spread as those of texts are.

    feedback: where the predictions come from that a model with ``model.feedback`` is given beside a text in noise. Such
    a model is reported with the bound of that source, at one more pass; the bounds of its own prediction of the same
    text in noise (``diffusion_same``), and of a pass without feedback (``diffusion``), are readings of it too.

    token_levels: this share of the sequences, drawn for each by its address, is trained with an independent level at
    every token (diffusion forcing, 2407.01392; Sumi, 2606.19005, has half). Their loss is not a bound, whatever its
    weight: the chain rule adds up what is learnt of each token *along one path* from noise to text, and independent
    levels mix the contexts of all paths. With masks, a shared level shows a token every number of others with the same
    probability, independent ones show a binomial number: of three tokens that are always equal the entropy and the
    bound are log 2, the independent figure is ¾ log 2. So ``likelihood`` always uses the process's own clock.

    all_noise: this share of the blocks, or of whole texts, drawn by address, is pure noise, and its loss is the plain
    cross-entropy of the text, nats per token: what one step from noise to text costs, which is how speculation drafts.
    Diffusion weights teach next to nothing there: that of ``snr`` vanishes with α, in uniform noise as α². The others
    have their own loss, so that it is the mean of both. (TiDAR, 2511.08923, trains drafts on masks alone.)

    loss_share: below 1, each position has a loss with this probability, drawn anew whenever a text is seen, and weighs
    1/loss_share; the others weigh nothing. The mean of the loss is the same. It is the control for noise that has a
    loss at some positions only, as that of span clocks.
    """

    @dataclass
    class Options(Part.Options):
        time_epsilon: Annotated[float, Field(gt=0.0, le=0.4, description="train on t in [ε, 1 − ε]")] = 1e-3
        time_sampling: Annotated[
            Literal["iid", "stratified", "importance"],
            Field(
                description="how the times of a batch are drawn: independently, spread evenly, or under time_density"
            ),
        ] = "stratified"
        time_density: Annotated[Any, Field(description="the schedule whose noise levels importance sampling draws")] = (
            part(SCHEDULES, None, optional=True)
        )
        token_levels: Annotated[
            float,
            Field(
                ge=0.0,
                le=1.0,
                description="share of the sequences that are trained with an independent noise level at every token",
            ),
        ] = 0.0
        loss_share: Annotated[
            float,
            Field(gt=0.0, le=1.0, description="share of the positions that have a loss, others drawn for each text"),
        ] = later(1.0)
        all_noise: Annotated[
            float,
            Field(
                ge=0.0,
                lt=1.0,
                description="share of the blocks, or of whole texts, that are pure noise and trained by cross-entropy",
            ),
        ] = later(0.0)
        z_loss: Annotated[float, Field(ge=0.0, description="weight of the squared log-partition of the logits")] = 0.0
        feedback: Annotated[
            Any, Field(description="whose predictions a model with model.feedback is given; null: no model is")
        ] = part(FEEDBACK_SOURCES, None, optional=True, later=True)

        def check(self) -> None:
            """Raises ValueError for a density without importance sampling, or the reverse."""
            if (self.time_sampling == "importance") != (self.time_density is not None):
                raise ValueError(
                    "time_sampling: importance and time_density, a schedule, go together; write both or none"
                )

    process: ForwardProcess
    options: Options

    @classmethod
    def incompatibility(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[str, str] | None:
        if own["feedback"] and not others["model"]["feedback"]:
            problem = "the model makes nothing of an earlier pass; name a form under model.feedback, such as "
            return "objective.feedback", f"{problem}residual_context, or leave this out"
        if own["time_sampling"] == "importance":
            if not CLOCKS.get(others["clock"]["name"]).one_level:
                return (
                    "objective.time_sampling",
                    "importance draws times, and only under the shared clock are they levels",
                )
            epsilon = own["time_epsilon"]
            schedules = (SCHEDULES.from_config(config) for config in (others["schedule"], own["time_density"]))
            if all(schedule.noise_fraction_at(epsilon) < _LEAST_HIT for schedule in schedules):
                return (
                    "objective.time_density",
                    f"at time_epsilon {epsilon:g} neither this nor the schedule has hit enough tokens to tell times "
                    "apart by their share; lower an exponent or raise objective.time_epsilon",
                )
        return super().incompatibility(own, others)

    @classmethod
    def level_per_token(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
        return bool(own["token_levels"]) or bool(CLOCKS.from_config(others["clock"]).level_per_token)

    @classmethod
    def expected_supervision(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> float:
        process, clock = others["process"], CLOCKS.from_config(others["clock"])
        levels, epsilon = SCHEDULES.from_config(others["schedule"]), own["time_epsilon"]
        low, width = epsilon, 1 - 2 * epsilon
        if own["time_density"]:  # its times run between the same levels
            ends = [levels.noise_fraction_at(t) for t in (epsilon, 1 - epsilon)]
            levels = SCHEDULES.from_config(own["time_density"])
            low, high = (levels.time_of_noise_fraction(end) for end in ends)
            width = high - low
        times = (low + width * (i + 0.5) / _TIMES for i in range(_TIMES))
        of_levels = PROCESSES.get(process["name"]).expected_supervision
        at_levels = sum(cls.supervision_at(of_levels(process, levels.noise_fraction_at(t))) for t in times) / _TIMES
        running = clock.running(others["shards"]["sequence_length"])
        of_levels = own["loss_share"] * at_levels * (running + (1 - running) * own["token_levels"])
        return float((1 - own["all_noise"]) * of_levels + own["all_noise"])

    @classmethod
    def supervision_at(cls, bound: float) -> float:
        """The share of the positions with a loss at a level at which ``bound`` of them count in the bound."""
        return bound

    @classmethod
    def reported_reading(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> str:
        layout, feedback = others["layout"], own.get("feedback")
        return str(LAYOUTS.get(layout["name"]).bound_name(layout, feedback["name"] if feedback else ""))

    def __init__(self, options: Options, **context: Any) -> None:
        super().__init__(options, **context)
        options.check()
        self.feedback: FeedbackSource | None = None
        if options.feedback:
            self.feedback = FEEDBACK_SOURCES.from_config(options.feedback)
        self._density = SCHEDULES.from_config(options.time_density) if options.time_density else None

    # --- training ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def token_loss(self, noisy: NoisyBatch) -> RowLoss:
        """What each token adds to the loss at its level: a loss of the denoiser's own logits, rows in the order of
        ``[B, L]``."""

    def supervised(self, noisy: NoisyBatch) -> Tensor:
        """Which positions have a loss that depends on what is predicted there, bool ``[B, L]``."""
        return (noisy.weight != 0) & self.process.supervised(noisy.z, noisy.level)

    def metrics(self, token_loss: Tensor, noisy: NoisyBatch) -> dict[str, Tensor]:
        """Scalars to log, made of the weighted loss of every token ``[B, L]``, which has no gradient."""
        return {}

    def loss(self, denoiser: DenoiserFunction, batch: Batch) -> Loss:
        noisy, layout = self.training_noise(batch), self.layout.at(batch.step)

        def lay_out(denoiser: DenoiserFunction) -> DenoiserFunction:
            return layout.of(denoiser, batch.tokens, self.eos_id)

        return self.loss_of(lay_out(denoiser)(self.fed(denoiser, lay_out, noisy, batch)), noisy)

    def fed(self, denoiser: DenoiserFunction, lay_out: LayOut, noisy: NoisyBatch, batch: Batch) -> DenoiserInput:
        """What the denoiser is given of a batch in noise, with feedback for the rows that have some."""
        if self.feedback is None:
            return noisy.given
        chosen = batch.noise("feedback").uniform(1) < self.feedback.options.share
        noise = batch.noise("feedback_path")
        return self.feedback.feed(denoiser, lay_out, self.process, noisy.given, noisy.level, noise, chosen)

    def loss_of(self, output: DenoiserOutput, noisy: NoisyBatch) -> Loss:
        """The training loss of what the denoiser made of a batch in noise."""
        losses = [self.token_loss(noisy)]
        if self.options.z_loss:
            losses.append(SquaredLogPartition(self.num_tokens))
        if noisy.pure is not None:
            losses.append(cross_entropy_loss(noisy.x, self.num_tokens))
        found = output.apply_all(losses)
        token_loss = noisy.weight.to(found[0].dtype) * found[0]
        value, supervised = token_loss.mean(), self.supervised(noisy)
        metrics = self.metrics(token_loss.detach(), noisy)
        metrics["changed_tokens"] = (noisy.z != noisy.x).to(torch.float32).mean()
        if noisy.pure is not None:
            share, of_pure = self.options.all_noise, (noisy.pure * found[-1]).mean()
            value, supervised = (1 - share) * value + of_pure, supervised | noisy.pure
            metrics["draft_cross_entropy"] = of_pure.detach() / share  # by the expected share, as all that is logged
        metrics["supervised_tokens"] = supervised.to(torch.float32).mean()
        if self.options.z_loss:
            squared = found[1].mean()
            value = value + self.options.z_loss * squared
            metrics["squared_log_partition"] = squared.detach()
        return Loss(value, metrics)

    def training_noise(self, batch: Batch) -> NoisyBatch:
        """The noise of a training step, by the options: a function of the examples' addresses alone."""
        options, x = self.options, batch.tokens
        uniform = batch.times(0.0, 1.0, stratified=options.time_sampling != "iid").unsqueeze(-1)
        time, weight = self._drawn(self.layout.at(batch.step).times(uniform, x.shape[-1]))
        level = conditioning_level = time
        if time.shape[-1] == 1:
            reading = self.process.clock.draw(batch.noise("clock"), x.shape[-1]).at(time.squeeze(-1))
            level, conditioning_level, weight = reading.level, reading.conditioning_level, weight * reading.speed
        clocked = torch.ones_like(uniform, dtype=torch.bool)
        if options.token_levels:
            noise = batch.noise("token_levels")
            clocked = noise.uniform(1, dtype=torch.float64) >= options.token_levels
            own_level, own_weight = self._drawn(noise.uniform(x.shape[-1], dtype=torch.float64))
            conditioning_level = torch.where(
                clocked,
                conditioning_level.unsqueeze(-1) if conditioning_level.ndim == 1 else conditioning_level,
                own_level,
            )
            level, weight = torch.where(clocked, level, own_level), torch.where(clocked, weight, own_weight)
        if options.loss_share < 1:
            has_loss = batch.noise("loss_share").uniform(x.shape[-1]) < options.loss_share
            weight = weight * has_loss / options.loss_share
        noisy = corrupt(self.process, batch, level, weight, conditioning_level, clocked, options.time_epsilon)
        return self._some_pure(noisy, batch) if options.all_noise else noisy

    def _some_pure(self, noisy: NoisyBatch, batch: Batch) -> NoisyBatch:
        """The batch with pure noise in the share ``all_noise`` of its blocks; the others weigh more, so that the mean
        of what they estimate is that of the whole batch."""
        share, length = self.options.all_noise, noisy.x.shape[-1]
        part = self.layout.at(batch.step).parts(length).to(noisy.x.device)
        pure = batch.noise("all_noise").uniform(int(part[-1]) + 1)[:, part] < share
        told = noisy.conditioning_level
        return replace(
            noisy,
            z=torch.where(pure, self.process.sample_prior(batch.noise("pure"), length), noisy.z),
            level=torch.where(pure, 1 - self.options.time_epsilon, noisy.level),
            weight=torch.where(pure, 0.0, noisy.weight / (1 - share)),
            conditioning_level=torch.where(pure, 1.0, told.unsqueeze(-1) if told.ndim == 1 else told),
            pure=pure,
        )

    def _drawn(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Uniform numbers as times in [0, 1] with the density in question, and one over that density there."""
        if self._density is None:
            return uniform, torch.ones_like(uniform)
        process, density, epsilon = self.process, self._density, self.options.time_epsilon
        ends = process.alpha(uniform.new_tensor([epsilon, 1 - epsilon]))
        low, high = density.time_of_alpha(ends)
        drawn = low + (high - low) * uniform
        t = process.time_of_alpha(density.alpha(drawn))
        # dt/ddrawn by way of α; both have α falling, so the ratio is positive.
        stretch = density.dalpha(drawn) / process.dalpha(t) * (high - low) / (1 - 2 * epsilon)
        return ((t - epsilon) / (1 - 2 * epsilon)).clamp(0, 1), stretch

    @property
    def readings(self) -> dict[str, Reading]:
        def bound(source: FeedbackSource | None = None) -> Bound:
            return Bound(self.process, self.layout, self.eos_id, source)

        own = self.layout.reading
        if self.feedback is None:
            return {own: bound()}
        trained = {f"{own}_{self.options.feedback['name']}": bound(self.feedback)}
        return {**trained, **({} if type(self.feedback) is Same else {f"{own}_same": bound(Same())}), own: bound()}
