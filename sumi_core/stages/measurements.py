"""Measurements in the store: each is an output of its own, found by what decides it and by nothing else.

    <root>/evaluation.<name>/<fingerprint>/

An evaluation is their union. One more measurement, or another option of one, computes that one; an evaluation that was
killed finds those that it had finished; cells with the same tokens share what depends on no model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sumi_core.base.errors import StoreError
from sumi_core.base.hashing import fingerprint
from sumi_core.base.progress import Log
from sumi_core.base.provenance import provenance as circumstances
from sumi_core.evaluation import MEASUREMENTS
from sumi_core.experiments.schema import Experiment
from sumi_core.stages.store import Artifact, Store

_PREFIX = "evaluation."


def measurement_kind(name: str) -> str:
    """The folder of the store that holds the outputs of a measurement."""
    return f"{_PREFIX}{name}"


def is_measurement(kind: str) -> bool:
    """Whether a folder of the store holds measurements, and not the outputs of a stage."""
    return kind.startswith(_PREFIX)


def measurement_identity(
    experiment: Experiment,
    name: str,
    inputs: Mapping[str, str],
    made_from: Mapping[str, Any],
    code: Mapping[str, Any],
    references: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The plain data that a measurement's fingerprint is the hash of.

    inputs: fingerprints of stages. By key (``evaluation.sampler``, …), made_from: what the parts of the experiment are
    made from beside their options; code: digests of the code of those that Sumi does not ship; references: outputs of
    other cells, plain data with their fingerprints. Of all three only what the measurement reads is taken, and the code
    of the measurement itself."""
    measurement = MEASUREMENTS.get(name)
    section = experiment.identity()["evaluation"]
    place, options = next((i, one) for i, one in enumerate(section["measurements"]) if one["name"] == name)
    own = f"evaluation.measurements[{place}]"
    read = [*(f"evaluation.{key}" for key in measurement.reads), own]
    identity = {
        "measurement": name,
        "version": measurement.version,
        "config": {"options": options, **{key: section[key] for key in measurement.reads}},
        "inputs": {stage: inputs[stage] for stage in measurement.inputs},
    }
    for kind, parts in (("source", made_from), ("code", code), ("references", references or {})):
        found = {
            key.replace(own, "evaluation.options"): value  # wherever it stands in the list
            for key, value in parts.items()
            if any(key == one or key.startswith((f"{one}.", f"{one}[")) for one in read)
        }
        if found:
            identity[kind] = found
    return identity


def ensure_measured(
    store: Store,
    kind: str,
    identity: dict[str, Any],
    measure: Callable[[Path], dict[str, Any]],
    *,
    key: str,
    experiment: Experiment,
    provenance: Mapping[str, Any],
    log: Log,
) -> tuple[Artifact, bool]:
    """The whole output of a measurement, and whether it was found ready.

    measure: writes into the folder that it is given and returns the summary. Raises what it raises, and StoreError."""
    with store.building(kind, fingerprint(identity), log=log) as build:
        if build.artifact is not None:
            if wrong := store.verify(build.artifact):  # its figures would be published under a new, whole manifest
                raise StoreError(f"{wrong[0]}; `sumi doctor --deep --fix` sets its output aside, then run again")
            return build.artifact, True
        started = time.time()
        summary = measure(build.folder)
        manifest = {
            "key": key,
            "identity": identity,
            "experiment": experiment.to_dict(),
            "inputs": identity["inputs"],
            **({"references": identity["references"]} if "references" in identity else {}),
            "summary": summary,
            "started": started,
            "seconds": time.time() - started,
            "provenance": {**circumstances(), **provenance},
        }
        return build.finish(manifest), False
