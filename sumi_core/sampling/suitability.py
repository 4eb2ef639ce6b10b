"""Which samplers write with a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sumi_core.models import ATTENTION_PATTERNS
from sumi_core.sampling import SAMPLERS

if TYPE_CHECKING:
    from sumi_core.corruption.process import ForwardProcess
    from sumi_core.layouts.layout import Layout


def unsuitable(sampler: str, others: Mapping[str, Any]) -> str | None:
    """Why a sampler cannot write with the model of an experiment, as a sentence; None: it can, unless its own
    ``incompatibility`` refuses. others: every section of the resolved experiment by name, as plain data."""
    layout, attention, cls = others["layout"]["name"], others["model"]["attention"]["name"], SAMPLERS.get(sampler)
    if layout not in cls.layouts:
        fitting = (other for other in SAMPLERS.names() if layout in SAMPLERS.get(other).layouts)
        able = " or ".join(other for other in fitting if unsuitable(other, others) is None)
        choose = f"choose {able}, or " if able else ""
        return f"sampler '{sampler}' cannot write under layout '{layout}'; {choose}leave it out"
    if cls.needs_process and others["process"] is None:
        return f"sampler '{sampler}' needs a corruption process; leave it out"
    if cls.causal not in (None, ATTENTION_PATTERNS.get(attention).causal):
        return f"sampler '{sampler}' cannot write with {attention} attention; leave it out"
    return None


def usual_samplers(process: ForwardProcess | None, layout: Layout, two_modes: bool) -> tuple[str, ...]:
    """Samplers worth comparing for a finished model: those of its modes where it has two; for a model of whole texts
    ancestral steps, and one mask at a time where noise is masks on one clock. The adaptive samplers of whole
    texts are compared where they are named: what ``speed`` showed before there were any stays the same."""
    from sumi_core.corruption.absorbing import Absorbing
    from sumi_core.corruption.clocks import Shared
    from sumi_core.layouts.blocks import Blocks

    if process is None:
        return ()
    if isinstance(layout, Blocks):
        modes = ("ar", "canvas", "speculative") if two_modes else ("canvas",)
        of_blocks = [name for name in SAMPLERS.names() if "blocks" in SAMPLERS.get(name).layouts]
        return tuple(name for mode in modes for name in of_blocks if SAMPLERS.get(name).mode == mode)
    masks = type(process) is Absorbing and isinstance(process.clock, Shared)
    return ("ancestral", "first_hitting") if masks else ("ancestral",)
