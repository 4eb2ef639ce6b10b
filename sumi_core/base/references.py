"""Options of parts that name a cell: what the part is made from is the output of one of that cell's stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any


def stage_ref(stage: str) -> Any:
    """An option that is written as the name of a cell and means that cell's output of ``stage``.

    Resolved, it is plain data that is whole by itself: ``{cell, experiment}``, the cell's name and its resolved
    experiment. While a stage runs that reads the part, it also holds ``folder``, where the output is (see
    ``referenced_folder``). It enters fingerprints as the fingerprint of that output, so it is a location as far as
    they are concerned."""
    return field(default=None, metadata={"stage_ref": stage, "location": True})


def referenced_folder(reference: Mapping[str, Any]) -> Path:
    """The folder of the output that a resolved reference means. Raises LookupError outside of the stage that reads
    it: the output has not been looked up there."""
    if "folder" not in reference:
        raise LookupError(f"the output of '{reference['cell']}' is at hand only while the stage that reads it runs")
    return Path(reference["folder"])


def named_references(config: Any) -> Any:
    """Plain data with the names of cells in the place of resolved references, for readers: the recipes of those cells
    are their own records'."""
    if isinstance(config, Mapping):
        if {"cell", "experiment"} <= config.keys():
            return config["cell"]
        return {key: named_references(value) for key, value in config.items()}
    if isinstance(config, list):
        return [named_references(value) for value in config]
    return config
