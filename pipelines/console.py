"""What a run prints in a terminal: the log lines of the assets, one plain line each, without the framework's events."""

from __future__ import annotations

import logging
import sys

from dagster import InitLoggerContext, logger

from pipelines.terminal import fitted


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        meta = getattr(record, "dagster_meta", {}) or {}
        message = meta.get("orig_message") or record.getMessage()
        step = meta.get("step_key") or ""
        return fitted(f"  {step:<20} " if step else "  ", message)


@logger({})
def console_logger(context: InitLoggerContext) -> logging.Logger:
    """A logger that prints messages of level INFO of the assets; the command that started the run reports failures."""
    made = logging.Logger("sumi")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_OneLine())
    handler.addFilter(lambda record: record.levelno in (logging.INFO, logging.WARNING))
    handler.addFilter(lambda record: "[pipes]" not in record.getMessage())  # the framework's own
    made.addHandler(handler)
    made.setLevel(logging.INFO)
    return made
