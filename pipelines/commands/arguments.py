"""What several commands take."""

from typing import Annotated

import typer

# After the name of one cell: what differs from its file.
Changes = Annotated[
    list[str] | None, typer.Argument(metavar="key=value", help="Changes to the cell, as `sumi run` was given them.")
]
