"""Which samplers write with a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sumi_core.models import ATTENTION_PATTERNS
from sumi_core.sampling import SAMPLERS

if TYPE_CHECKING:
    from sumi_core.corruption.process import ForwardProcess
    from sumi_core.layouts.layout import Layout
    from sumi_core.sampling.sampler import Sampler

_OF_BLOCKS = ("blockwise", "entropy_bound", "threshold")


def unsuitable(sampler: str, others: Mapping[str, Any]) -> str | None:
    """Why a sampler cannot write with the model of an experiment, as a sentence; None: it can, unless its own
    ``incompatibility`` refuses. others: every section of the resolved experiment by name, as plain data."""
    layout, attention, cls = others["layout"]["name"], others["model"]["attention"]["name"], SAMPLERS.get(sampler)
    causal, noise = ATTENTION_PATTERNS.get(attention).causal, others["process"] is not None

    def writes(other: type[Sampler]) -> bool:
        return layout in other.layouts and other.causal in (None, causal) and (noise or not other.needs_process)

    if layout not in cls.layouts:
        able = [name for name in SAMPLERS.names() if writes(SAMPLERS.get(name))]
        choice = f"choose {' or '.join(able)}, or leave it out" if able else "leave it out"
        return f"sampler '{sampler}' cannot write under layout '{layout}'; {choice}"
    if cls.needs_process and not noise:
        return f"sampler '{sampler}' needs a corruption process; leave it out"
    if cls.causal not in (None, causal):
        return f"sampler '{sampler}' cannot write with {attention} attention; leave it out"
    return None


def usual_samplers(process: ForwardProcess | None, layout: Layout, two_modes: bool) -> tuple[str, ...]:
    """Samplers worth comparing for a finished model: those of its modes where it has two; for a model of whole texts
    ancestral steps, and one mask at a time where noise is masks on one clock."""
    from sumi_core.corruption.absorbing import Absorbing
    from sumi_core.corruption.clocks import Shared
    from sumi_core.layouts.blocks import Blocks

    if process is None:
        return ()
    if isinstance(layout, Blocks):
        return ("autoregressive", *_OF_BLOCKS, "speculative") if two_modes else _OF_BLOCKS
    masks = type(process) is Absorbing and isinstance(process.clock, Shared)
    return ("ancestral", "first_hitting") if masks else ("ancestral",)
