"""Another cell's model, opened to be asked and never trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from sumi_core.base.references import referenced_folder
from sumi_core.models.config import ModelConfig
from sumi_core.models.foreign import InitialiserError, Tensors

if TYPE_CHECKING:
    from sumi_core.models.denoiser import Denoiser

REFERENCE_WEIGHTS = "weights.safetensors"


def frozen(reference: Mapping[str, Any], num_states: int, weights: str = REFERENCE_WEIGHTS) -> Denoiser:
    """The trained denoiser that a resolved reference means, in evaluation mode and without gradients. weights: the file
    of the referenced folder that holds its parameters.

    Raises LookupError outside of the stages that read it, and InitialiserError where its weights are not whole."""
    from sumi_core.models.denoiser import Denoiser

    path = referenced_folder(reference) / weights
    if not path.is_file():
        raise InitialiserError(f"there is no {path}; compute '{reference['cell']}' again, or copy the folder whole")
    tensors = Tensors({path: None})
    with torch.inference_mode(False), torch.no_grad():  # an evaluation opens what a training in its process may use
        denoiser = Denoiser(ModelConfig(**reference["experiment"]["model"]), num_states, seed=None)
        for name, parameter in denoiser.named_parameters():
            values = tensors.read(name) if name in tensors.names() else None
            if values is None or values.shape != parameter.shape:
                raise InitialiserError(f"{path} does not hold '{name}'; compute '{reference['cell']}' again")
            parameter.copy_(values)
    return denoiser.requires_grad_(False).eval()
