"""Feedback: how what an earlier pass predicted enters the embeddings of the next one.

    Δ_i = Σ_v P_i(v) E(v)        the mean embedding of the tokens that were predicted at position i

A sampler's step discards all of its prediction but one draw. Residual context (RCD, 2601.22954) and self-conditioning
(Analog Bits, 2208.04202) give the rest to the next step. Where the prediction comes from, and what that does to the
likelihood, is the objective's business (``sumi_core.objectives.feedback``); docs/mathematics.md 13 has both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.models import feedback_source
from sumi_core.models.config import ModelConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn


class FeedbackForm(Part, ABC):
    """What is made of an earlier prediction. A pass without one is that of the same denoiser without the form."""

    stock: ClassVar[bool] = True  # whether the weights are still those of a stock class

    @dataclass
    class Options(Part.Options):
        reading: Annotated[
            Literal["own", "posterior", "leave_one_out"],
            Field(description="what is fed back: p(x_i | z), p(x_i | z without z_i), or which of both is predicted"),
        ] = "own"

    options: Any

    @classmethod
    def incompatibility(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[str, str] | None:
        if feedback_source(others["objective"]):
            return None
        problem = f"'{own['name']}' reads the predictions of an earlier pass, and the objective names no source of them"
        return "model.feedback", f"{problem}; write objective: {{feedback: same}}, or leave model.feedback out"

    @property
    def reading(self) -> str:
        """Which distribution is fed back."""
        found: str = self.options.reading
        return found

    @abstractmethod
    def module(self, config: ModelConfig) -> nn.Module:
        """A function of embeddings ``[B, L, D]`` and ``Feedback`` to embeddings."""

    def num_parameters(self, config: ModelConfig) -> int:
        """Parameters of the module."""
        return 0

    def matrices(self, config: ModelConfig) -> int:
        """Weights of the module that multiply each slot."""
        return 0


class ResidualContext(FeedbackForm):
    """e_i = (1 − ρ a_i) E(z_i) + ρ a_i Δ_i, one form of RCD (2601.22954) for every noise; no parameters.

    reading ``posterior``: P_i = p(x_i | z), a_i = H(P_i)/log V. reading ``leave_one_out``: P_i = x_θ(· | z_{−i}),
    a_i = c_i H(P_i)/log V, c_i being the chance that what stands there is noise. With masks both are RCD's rule, which
    keeps tokens as they are and gives masks H(p)/log V of their prediction. Where nothing marks noise, what is fed back
    is the part of the prediction that z_i does not carry: a → 0 as t → 0, c → 1 as t → 1. Both are read at the z that
    is denoised now, wherever the prediction comes from.
    """

    description = "the mean embedding of the predicted tokens takes the place of a token's, as far as it is uncertain"

    @dataclass
    class Options(FeedbackForm.Options):
        rho: Annotated[
            float, Field(ge=0.0, le=1.0, description="ρ: most of an embedding that a prediction may replace; 0: none")
        ] = 1.0

    def module(self, config: ModelConfig) -> nn.Module:
        from sumi_core.models.feedback_layers import Residual

        return Residual(self.options.rho)


class SelfConditioning(FeedbackForm):
    """e_i = E(z_i) + down(silu(gate(n(Δ_i))) · up(n(Δ_i))), n an RMSNorm and ``down`` zero at first: three matrices
    D·I. DiffusionGemma conditions on its own predictions so, with a norm after the sum that this one leaves out."""

    description = "a gated layer reads the mean embedding of the predicted tokens, and what it makes of it is added"
    stock = False

    def module(self, config: ModelConfig) -> nn.Module:
        from sumi_core.models.feedback_layers import Gated

        return Gated(config)

    def num_parameters(self, config: ModelConfig) -> int:
        return self.matrices(config) + config.hidden_size

    def matrices(self, config: ModelConfig) -> int:
        return 3 * config.hidden_size * config.intermediate_size
