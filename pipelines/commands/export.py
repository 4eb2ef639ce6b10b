"""``sumi export``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.arguments import Changes
from sumi_core.base.options import ConfigError
from sumi_core.lineage.models import exported_folder
from sumi_core.lineage.project import Project
from sumi_core.lineage.targets import artifact_at, find_target
from sumi_core.stages.store import MANIFEST


def export_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A cell, a run, or the folder of an exported model.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to put the model: a new or an empty folder.")],
    changes: Changes = None,
) -> None:
    """Copy a finished model out of the store: weights, tokenizer, model card and `sumi.json`.

    The copy opens in stock transformers where transformers has a class for the model, and `sumi lineage`, `sumi sample`
    and `sumi evaluate` take the folder."""
    project = Project.find()
    source = exported_folder(project, find_target(project, name, changes or ()))
    artifact = artifact_at(source)
    if artifact is not None and (damage := project.store.verify(artifact)):
        raise ConfigError("command line", name, f"{damage[0]}; `sumi doctor --fix` sets it aside, then run it again")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError("command line", str(folder), "is there already and not an empty folder; name another")
    try:
        shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
    except shutil.Error as error:
        raise ConfigError("command line", str(folder), f"cannot be written: {error.args[0][0][2]}") from None
    print(f"{folder.resolve()}")
