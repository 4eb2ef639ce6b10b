"""How a text is shown to the denoiser: as one stream, or as blocks of noise beside the clean text."""

from sumi_core.base.registry import Registry

LAYOUTS = Registry(
    "layout",
    "sumi_core.layouts.layout:Layout",
    {
        "blocks": "sumi_core.layouts.blocks:Blocks",
        "whole": "sumi_core.layouts.layout:Whole",
    },
    key="layout",
)
