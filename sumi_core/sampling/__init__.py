"""Samplers: how a trained denoiser writes text."""

from typing import TYPE_CHECKING

from sumi_core.registry import Registry

if TYPE_CHECKING:
    from sumi_core.sampling.sampler import Sampler

SAMPLERS: "Registry[Sampler]" = Registry(
    "sampler",
    {
        "ancestral": "sumi_core.sampling.ancestral:Ancestral",
        "left_to_right": "sumi_core.sampling.left_to_right:LeftToRight",
    },
)
