"""How the command line looks in a terminal: colours, and lines as wide as it is. A pipe or a file gets neither."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO

import typer

from sumi_core.base.text import filled

STATES = {
    "done": typer.colors.GREEN,
    "cached": typer.colors.GREEN,
    "running": typer.colors.BLUE,
    "waits": typer.colors.BLUE,
    "stale": typer.colors.YELLOW,
    "interrupted": typer.colors.YELLOW,
    "compute": typer.colors.YELLOW,
    "failed": typer.colors.RED,
    "damaged": typer.colors.RED,
    "blocked": typer.colors.RED,
    "ok": typer.colors.GREEN,
    "info": typer.colors.BLUE,
    "warn": typer.colors.YELLOW,
    "bad": typer.colors.RED,
}


def shown_state(state: str, width: int) -> str:
    """A state, padded to ``width``; in a terminal in its colour, unless NO_COLOR is set (no-color.org)."""
    padded = f"{state:<{width}}"
    plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return padded if plain or state not in STATES else typer.style(padded, fg=STATES[state])


def columns_of(file: TextIO) -> int:
    """How wide a terminal is: COLUMNS, else what it says itself."""
    with contextlib.suppress(OSError, ValueError):
        return int(os.environ.get("COLUMNS", 0)) or os.get_terminal_size(file.fileno()).columns or 80
    return 80


def fitted(start: str, text: str, file: TextIO | None = None) -> str:
    """``start`` and a line of text. A terminal that is narrower gets several lines, which break between words."""
    line = f"{start}{text}"
    if not (file or sys.stdout).isatty():
        return line
    width = columns_of(file or sys.stdout)
    return line if len(line) <= width else filled(text, width, first=start, further=" " * min(len(start), width // 2))
