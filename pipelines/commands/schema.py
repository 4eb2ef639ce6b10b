"""``sumi schema``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sumi_core.base.files import write_atomically
from sumi_core.experiments.reference import file_schema


def schema_command(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it to this file instead.")] = None,
) -> None:
    """Print the JSON schema of experiment files, with which an editor completes and checks them.

    For a YAML language server, name it in the first line of a file: # yaml-language-server: $schema=FILE"""
    text = json.dumps(file_schema(), indent=2, ensure_ascii=False)
    if output is None:
        print(text)
    else:
        write_atomically(output, text + "\n")
