"""How long sampling takes on this machine, beside autoregressive sampling with kept keys and values.

A time is a fact of one run and never repeats. Contenders take turns, pass by pass, so that what slows the machine down
slows all of them; a median over passes is reported, and the median of the ratios within each pass.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sumi_core.base.progress import Progress
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.models.config import ModelConfig
from sumi_core.sampling import SAMPLERS

if TYPE_CHECKING:
    import torch

    from sumi_core.evaluation.measurement import Model

Write = Callable[[int], Any]  # writes so many texts


def reference_writer(model: Model) -> tuple[Any, Any] | None:
    """An autoregressive sampler and a causal network of the model's dimensions for it, without what reads a noise level
    or feedback. Its weights are random: the time of a pass depends on shapes alone. None for a denoiser that is no
    ``Denoiser``, whose dimensions are not known."""
    from sumi_core.models.denoiser import Denoiser

    config = getattr(model.denoiser, "config", None)
    if not isinstance(model.denoiser, Denoiser) or not isinstance(config, ModelConfig):
        return None
    plain: Mapping[str, Any] = {
        "attention": {"name": "causal"},
        "time_conditioning": "none",
        "feedback": None,
        "marker": False,
    }
    vocabulary = Vocabulary(model.objective.num_tokens, model.objective.eos_id)
    network = Denoiser(dataclasses.replace(config, **plain, initialiser={"name": "random"}), vocabulary.size)
    sampler = SAMPLERS.build("left_to_right", {}, process=None, vocabulary=vocabulary)
    return sampler, network.to(model.device).eval()


def seconds_of(
    contenders: Sequence[Write],
    rows: int,
    passes: int,
    device: torch.device,
    progress: Progress,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Seconds that each contender takes to write ``rows`` texts, by contender and pass. All of them write in turn; a
    first pass of each is not counted (it compiles and allocates)."""
    found: list[list[float]] = [[] for _ in contenders]
    for number in range(passes + 1):
        progress(number, passes + 1, "passes", f"timing, {rows} at once")
        for own, write in zip(found, contenders, strict=True):
            _wait(device)
            begin = clock()
            write(rows)
            _wait(device)
            if number:
                own.append(clock() - begin)
    return found


def rate(seconds: Sequence[float], tokens: int, reference: Sequence[float] | None) -> dict[str, float]:
    """``tokens_per_second``: the median over passes. ``speedup``: how many times as fast as the reference, which wrote
    as many tokens: the median of the ratios within each pass; absent without a reference."""
    found = {"tokens_per_second": tokens / statistics.median(seconds)}
    if reference is not None:
        found["speedup"] = statistics.median(
            theirs / ours for theirs, ours in zip(reference, seconds, strict=True)
        )  # fmt: skip
    return found


def machine_of(device: torch.device) -> str:
    """What the times were taken on: the GPU's name, or the kind of processor and how many the machine has."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"


def _wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
