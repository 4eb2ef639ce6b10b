"""Cron expressions: when a sweep is looked at again.

    minute hour day month weekday      "0 3 * * *": at three every night
    @hourly @daily @weekly @monthly    what they say

A field is ``*``, a number, a range ``1-5``, any of them with a step ``*/15``, or several with commas; months and
weekdays may be three letters, and Sunday is 0 or 7. Times are those of Dagster's schedules, UTC.
"""

from __future__ import annotations

import calendar
import re

NICKNAMES = ("@hourly", "@daily", "@weekly", "@monthly")

_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
_DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("weekday", 0, 7, _DAYS),
)
_ITEM = re.compile(r"(?:\*|(?P<first>\w{1,9})(?:-(?P<last>\w{1,9}))?)(?:/(?P<step>\d{1,9}))?", re.ASCII)


def cron_mistake(text: str) -> str | None:
    """What is wrong with a cron expression, and what to do; None if it is a sound one."""
    if text in NICKNAMES:
        return None
    fields = text.split()
    if len(fields) != len(_FIELDS):
        return f"'{text}' is no cron expression; write minute hour day month weekday, as in 0 3 * * *"
    values: dict[str, set[int]] = {}
    for written, (name, low, high, names) in zip(fields, _FIELDS, strict=True):
        found = _values(written, low, high, names)
        if found is None:
            return f"'{written}' is no {name}; write *, or numbers from {low} to {high}, such as {low}, 1-5 or */2"
        values[name] = found
    longest = max(calendar.monthrange(2024, month)[1] for month in values["month"])  # 2024: a leap year
    if min(values["day"]) > longest and fields[4] == "*":
        return f"'{text}' never comes: no such month has {min(values['day'])} days"
    return None


def _values(field: str, low: int, high: int, names: dict[str, int]) -> set[int] | None:
    """What a field allows; None where it is no field."""
    allowed: set[int] = set()
    for item in field.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            return None
        first, last, step = match["first"], match["last"], match["step"]
        begin = low if first is None else _number(first, names)
        end = high if first is None else begin if last is None else _number(last, names)
        if begin is None or end is None or not low <= begin <= end <= high:
            return None
        if step is not None and (int(step) == 0 or int(step) > high or (first is not None and last is None)):
            return None
        allowed.update(range(begin, end + 1, int(step or 1)))
    return allowed


def _number(text: str, names: dict[str, int]) -> int | None:
    return int(text) if text.isdecimal() else names.get(text.lower())
