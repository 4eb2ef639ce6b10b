"""What a run prints in a terminal: the log lines of the assets, one plain line each, without the framework's events.

While a step runs, Dagster has its output in a file, and a process that mirrors the file. Lines for a terminal go there
directly: as wide as it is, and progress as one line with a bar that moves."""

from __future__ import annotations

import logging
import os
import re
import sys
from typing import TextIO

from dagster import InitLoggerContext, logger
from dagster._core.execution import compute_logs

from pipelines import watch_quietly
from pipelines.terminal import columns_of, fitted

_STEP = re.compile(r"step (\d+)/(\d+) · \d+%")
_BAR = 12  # characters
_terminal: TextIO | None = None  # the one that this process was started in


def keep_terminal() -> None:
    """Remember the terminal before a step's output is redirected, and let Ctrl-C end what mirrors it without noise."""
    global _terminal
    compute_logs.watch_orphans = watch_quietly  # started by its file
    if _terminal is None and sys.stdout.isatty():
        _terminal = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)


def _told(record: logging.LogRecord) -> tuple[str, str]:
    """The asset and its message."""
    meta = getattr(record, "dagster_meta", {}) or {}
    step = meta.get("step_key") or ""
    return (f"  {step:<20} " if step else "  "), meta.get("orig_message") or record.getMessage()


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return "".join(_told(record))


class _InTerminal(logging.StreamHandler[TextIO]):
    """Lines that fit the terminal; those of a training's progress replace each other."""

    def __init__(self, terminal: TextIO) -> None:
        super().__init__(terminal)
        self._moving = False

    def emit(self, record: logging.LogRecord) -> None:
        start, text = _told(record)
        columns = columns_of(self.stream)
        ended = "\n" if self._moving else ""
        self._moving = False
        if match := _STEP.match(text):
            step, steps = map(int, match.groups())
            bar, parts = "━" * (_BAR * step // steps), text.split(" · ")
            parts.pop(1)  # the share, which the bar shows
            while len(line := f"{start}{bar:<{_BAR}} {' · '.join(parts)}") >= columns and len(parts) > 2:
                parts.pop(-2)  # the first and the last are the step and the time that is left
            line = line[: columns - 1]
            self._moving = step < steps
            self.stream.write(f"\r\x1b[2K{line}" + ("" if self._moving else "\n"))
        else:
            self.stream.write(f"{ended}{fitted(start, text, self.stream)}\n")
        self.stream.flush()


@logger({})
def console_logger(context: InitLoggerContext) -> logging.Logger:
    """A logger that prints messages of level INFO of the assets; the command that started the run reports failures."""
    made = logging.Logger("sumi")
    handler = logging.StreamHandler(sys.stdout) if _terminal is None else _InTerminal(_terminal)
    handler.setFormatter(_OneLine())
    handler.addFilter(lambda record: record.levelno in (logging.INFO, logging.WARNING))
    handler.addFilter(lambda record: "[pipes]" not in record.getMessage())  # the framework's own
    made.addHandler(handler)
    made.setLevel(logging.INFO)
    return made
