"""One model for two modes: next-token prediction on the clean text, denoising on blocks of noise beside it.

    L = w_AR · mean_i −log p(x_i | x_{<i}) + λ · mean_i token_loss_i        both from one forward pass of two streams

The clean stream is an autoregressive model that the noise never touches, the noisy one a denoiser of blocks
(docs/mathematics.md 10). Nemotron-Labs-Diffusion trains such a sum with masks and λ = 0.3, TiDAR (2511.08923) with a
canvas that is all masks. With both losses in nats (λ = 1, weighting ``elbo``) it is the sum of two code lengths of the
same text, but for the end terms of the second, which training leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from sumi_core.base.options import part
from sumi_core.base.registry import Part
from sumi_core.data.batch import Batch
from sumi_core.kernels.row_loss import cross_entropy_loss
from sumi_core.layouts import LAYOUTS
from sumi_core.layouts.blocks import Blocks
from sumi_core.models.interface import DenoiserFunction
from sumi_core.objectives import OBJECTIVES
from sumi_core.objectives.diffusion import Diffusion
from sumi_core.objectives.likelihood import ChainRule, Reading
from sumi_core.objectives.objective import Loss, Objective


class Joint(Objective):
    """The weighted sum of both losses, nats per token; the model has both likelihoods.

    diffusion: the loss of the noisy stream, any objective of a corruption process. reported: the likelihood that a
    model is ranked by, the exact one of its autoregressive mode or the bound of its blocks; the other is measured too.
    """

    causal: ClassVar[bool | None] = True
    logits_per_token: ClassVar[int] = 2

    @dataclass
    class Options(Part.Options):
        diffusion: Annotated[Any, Field(description="the loss of the noisy stream")] = part(OBJECTIVES, "nelbo")
        autoregressive_weight: Annotated[float, Field(ge=0.0, description="w_AR, of the clean stream's loss")] = 1.0
        diffusion_weight: Annotated[float, Field(ge=0.0, description="λ, of the noisy stream's loss")] = 0.3
        reported: Annotated[
            Literal["autoregressive", "blocks"], Field(description="the likelihood that the model is ranked by")
        ] = "autoregressive"

        def check(self) -> None:
            """Raises ValueError where nothing is trained, or not the mode that is reported unless another is named."""
            if not self.autoregressive_weight and not self.diffusion_weight:
                raise ValueError("autoregressive_weight and diffusion_weight are both 0; raise one of them")
            if not self.autoregressive_weight and self.reported == "autoregressive":
                raise ValueError(
                    "autoregressive_weight is 0, so the model would be ranked by a mode that is not trained; "
                    "write reported: blocks"
                )

    options: Options
    layout: Blocks

    @classmethod
    def incompatibility(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[str, str] | None:
        inner, layout = own["diffusion"], others["layout"]["name"]
        if not issubclass(OBJECTIVES.get(inner["name"]), Diffusion):
            problem = (
                f"'{inner['name']}' has no noise, which the noisy stream is trained with; choose nelbo, or another "
            )
            return "objective.diffusion", problem + "objective of a corruption process"
        if not LAYOUTS.get(layout).reads_causally:
            problem = f"objective 'joint' needs a clean stream beside the noise, which layout '{layout}' has not"
            return "layout", f"{problem}; write layout: blocks"
        if others["model"]["time_conditioning"] != "none":
            problem = "tells the denoiser a noise level, and the autoregressive mode of objective 'joint' has none"
            return "model.time_conditioning", f"{problem}; write none"
        return None

    @classmethod
    def expected_supervision(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> float:
        inner = own["diffusion"]
        noise: type[Diffusion] = OBJECTIVES.get(inner["name"])
        return 1.0 if own["autoregressive_weight"] else noise.expected_supervision(inner, others)

    @classmethod
    def reports_exactly(cls, own: Mapping[str, Any]) -> bool:
        return bool(own["reported"] == "autoregressive")

    @classmethod
    def reported_reading(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> str:
        inner, exact = own["diffusion"], own["reported"] == "autoregressive"
        noise: type[Diffusion] = OBJECTIVES.get(inner["name"])
        return "autoregressive" if exact else noise.reported_reading(inner, others)

    @classmethod
    def modes(cls, own: Mapping[str, Any]) -> dict[str, bool]:
        return {"next_token": own["autoregressive_weight"] > 0, "denoising": own["diffusion_weight"] > 0}

    def __init__(self, options: Options, **context: Any) -> None:
        super().__init__(options, **context)
        options.check()
        if not isinstance(self.layout, Blocks):
            raise ValueError("objective 'joint' needs a layout with a clean stream; give it blocks")
        self.diffusion: Diffusion = OBJECTIVES.from_config(options.diffusion, **context)

    def loss(self, denoiser: DenoiserFunction, batch: Batch) -> Loss:
        options, x = self.options, batch.tokens
        noisy = self.diffusion.training_noise(batch)
        layout = self.layout.at(batch.step)
        given = self.diffusion.fed(denoiser, lambda d: layout.of(d, x, self.eos_id), noisy, batch)
        of_noise, of_text = layout.both(denoiser, x, self.eos_id)(given)
        diffusion = self.diffusion.loss_of(of_noise, noisy)
        next_token = of_text.apply(cross_entropy_loss(x, self.num_tokens)).mean()
        value = options.autoregressive_weight * next_token + options.diffusion_weight * diffusion.value
        metrics = {**diffusion.metrics, "autoregressive": next_token.detach(), "diffusion": diffusion.value.detach()}
        if options.autoregressive_weight:
            metrics["supervised_tokens"] = next_token.new_ones(())  # whatever the noise, each has the other loss
        return Loss(value, metrics)

    @property
    def readings(self) -> dict[str, Reading]:
        both = {"autoregressive": ChainRule(self.num_tokens, self.eos_id), **self.diffusion.readings}
        own = "autoregressive" if self.options.reported == "autoregressive" else next(iter(self.diffusion.readings))
        return {own: both[own], **both}
