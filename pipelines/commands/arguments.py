"""Arguments that several commands share."""

from typing import Annotated

import typer

from sumi_core.base.options import ConfigError
from sumi_core.experiments.changed_names import is_override


def check_changes(items: list[str] | None) -> list[str] | None:
    """Return the arguments after a name, each of which is ``key=value``. Raises ConfigError for any other, such as a
    second name."""
    for item in items or ():
        if not is_override(item):
            raise ConfigError("command line", item, "expected key=value; write one name, and after it what to change")
    return items


# After the name of one cell: what differs from its file.
Changes = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="key=value",
        help="Changes to the cell, as they followed its name in `sumi run`.",
        callback=check_changes,
    ),
]
