"""The own-token sensitivity of an exported model: what the measurement `calibration` finds, on a few sequences."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sumi_core.base.numerics import choose_device, deterministic
from sumi_core.data.shards import TokenShards
from sumi_core.evaluation.calibration import Calibration, figures_of
from sumi_core.evaluation.config import EvaluationConfig
from sumi_core.evaluation.likelihood import documents_of
from sumi_core.evaluation.measurement import Context, Model

if TYPE_CHECKING:
    from sumi_core.data.tokenizers.tokenizer import Tokenizer
    from sumi_core.experiments.build import Parts
    from sumi_core.experiments.schema import Experiment
    from sumi_core.models.denoiser import Denoiser

NOISE, SEQUENCES, PROBES = 0.5, 16, 4  # 80 passes over a sequence: a look in passing, on a CPU too


def own_token_sensitivity(
    denoiser: Denoiser, parts: Parts, tokenizer: Tokenizer, experiment: Experiment, shards: Path
) -> dict[str, Any] | None:
    """``value`` and ``stderr`` (None where it is not known) with what they were measured on, plain data; None for a
    model without noise. ``value`` is 0 by definition where the noise writes no tokens, and None where no probe drew
    another token.

    denoiser: in evaluation mode, on the CPU, to which it returns. shards: the folder of the token shards."""
    if parts.process is None:
        return None
    how = {"noise": NOISE, "sequences": SEQUENCES, "probes": PROBES, "calibration_version": Calibration.version}
    if not parts.process.noise_writes_tokens:
        return {"value": 0.0, "stderr": None, **how, "sequences": 0, "probes": 0}
    text, device = TokenShards(shards).split("validation"), choose_device(experiment.runtime.device)
    config = EvaluationConfig(sequences=SEQUENCES)
    context = Context(config, text, shards, experiment.runtime.evaluation_batch)  # nothing is written there
    calibration = Calibration(Calibration.Options(noise=[NOISE], probes=PROBES))
    with deterministic(experiment.runtime.threads):
        model = Model(denoiser.to(device), parts.objective, parts.sampler, parts.process, tokenizer, device)
        seen = calibration.seen(model, context, 0)
        denoiser.to("cpu")
    found = figures_of(seen, documents_of(text, context.chosen), calibration.options.bins)
    value, stderr = (_known(found[f"own_token_sensitivity{end}"]) for end in ("", "_stderr"))
    return {"value": value, "stderr": stderr, **how, "sequences": len(context.chosen)}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
