"""``sumi explain``."""

from __future__ import annotations

from typing import Annotated

import typer

from sumi_core.base.options import ConfigError
from sumi_core.base.text import visible
from sumi_core.experiments.reference import explain, reference_page


def explain_command(
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY…", help="Such as training.lr_schedule, training, process or process.clustered."),
    ] = None,
    page: Annotated[bool, typer.Option("--page", help="Print all keys and parts as one Markdown page.")] = False,
) -> None:
    """Print type, default, limits and meaning of keys of experiment files, and of the parts that they name."""
    if page:
        print(reference_page(), end="")
    elif not keys:
        raise ConfigError("command line", "", "name a key such as training.steps, or ask for everything by --page")
    print("\n\n".join(visible(explain(key)) for key in keys or ()), end="\n" if keys else "")
