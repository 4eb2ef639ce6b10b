"""How long trainings will take, by what earlier ones took on this machine."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable
from dataclasses import dataclass

from sumi_core.base.numerics import has_gpu
from sumi_core.experiments.size import expected_vocabulary, training_flops
from sumi_core.lineage.plan import CellPlan
from sumi_core.stages.store import Store

_TRAINING = "pretrained_denoiser"
_ASSUMED = 2e10  # FLOPs per second and thread of a CPU: a small model in float32 on a core of a server of 2020


@dataclass(frozen=True)
class Estimate:
    """Seconds of training, one cell after another. basis: what they were estimated by, in words."""

    seconds: float
    basis: str


@dataclass(frozen=True)
class _Measured:
    key: str
    flops: float
    per_second: float


def estimate_training(plans: Iterable[CellPlan], store: Store) -> Estimate | None:
    """How long the trainings take that are to be computed, without validation; None where there is none, or where
    nothing is known of the device. Each goes at the speed of the training in the store that is nearest to it in FLOPs,
    of those on this host and kind of device."""
    measured: dict[str, list[_Measured]] | None = None
    total, bases, seen = 0.0, dict[str, None](), set[str]()
    for planned in plans:
        training = next((stage for stage in planned.pending if stage.stage == _TRAINING), None)
        if training is None or training.fingerprint in seen or training.state == "blocked":
            continue
        seen.add(training.fingerprint)
        experiment, fitted = planned.cell.experiment, planned.artifacts.get("tokenizer")
        vocabulary = fitted.summary.get("vocab_size") if fitted else expected_vocabulary(experiment.tokenizer)
        flops = training_flops(experiment, vocabulary or 0)
        measured = _measured(store) if measured is None else measured
        if not 0 < flops < math.inf:
            return None
        device = experiment.runtime.device
        kind = device if device != "auto" else "cuda" if has_gpu() else "cpu"
        if known := measured.get(kind):
            nearest = min(known, key=lambda one: abs(math.log(one.flops / flops)))
            total += flops / nearest.per_second
            bases[f"at the speed of {nearest.key} here"] = None
        elif kind == "cpu":
            total += flops / (_ASSUMED * experiment.runtime.threads)
            bases[f"at an assumed {_ASSUMED / 1e9:.0f} GFLOP/s a thread, since nothing was trained here yet"] = None
        else:
            return None
    if not seen or not math.isfinite(total):
        return None
    named, more = list(bases)[:2], list(bases)[2:]
    return Estimate(total, " and ".join([*named, *(["others"] if more else [])]))


def _measured(store: Store) -> dict[str, list[_Measured]]:
    """The trainings of this host in the store, by the kind of device."""
    found: dict[str, list[_Measured]] = {}
    for artifact in store.artifacts():
        told = artifact.summary
        rate, flops, each = told.get("tokens_per_second"), told.get("flops"), told.get("flops_per_token")
        here = artifact.manifest.get("provenance", {}).get("host") == platform.node()
        if artifact.stage == _TRAINING and here and rate and flops and each:
            kind = "cpu" if told.get("device") == "cpu" else "cuda"
            found.setdefault(kind, []).append(_Measured(str(artifact.manifest.get("key")), flops, rate * each))
    return found
