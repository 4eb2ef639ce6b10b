"""Cron expressions: when a sweep is looked at again, as croniter reads them, which Dagster does too.

    minute hour day month weekday      "0 3 * * *": at three every night
    @hourly @daily @weekly @monthly    what they say

Times are those of Dagster's schedules, UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime

_FIELDS = (
    ("a minute", 0, 59),
    ("an hour", 0, 23),
    ("a day", 1, 31),
    ("a month", 1, 12),
    ("a weekday", 0, 7),
)


def cron_mistake(text: str) -> str | None:
    """What is wrong with a cron expression, and what to do; None if it is a sound one."""
    from croniter import CroniterBadDateError, croniter

    fields = text.split()
    if not (len(fields) == len(_FIELDS) or (text.startswith("@") and croniter.is_valid(text))):
        return f"'{text}' is not a cron expression; write minute hour day month weekday, as in 0 3 * * *"
    for place, (name, low, high) in enumerate(_FIELDS) if len(fields) > 1 else ():
        written = fields[place]
        alone = [written if other == place else "*" for other in range(len(_FIELDS))]
        if not croniter.is_valid(" ".join(alone)):
            return f"'{written}' is not {name}; write *, or numbers from {low} to {high}, such as {low}, 1-5 or */2"
    try:
        croniter(text, datetime(2024, 1, 1, tzinfo=UTC)).get_next()  # looks fifty years ahead
    except CroniterBadDateError:
        return f"'{text}' never fires: none of its months has such a day; name another day or month"
    return None
