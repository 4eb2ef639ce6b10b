"""Cron expressions: whatever is taken here, Dagster takes, and means the same by it."""

from __future__ import annotations

import pytest
from dagster._utils.schedules import is_valid_cron_schedule
from hypothesis import given
from hypothesis import strategies as st

from sumi_core.experiments.cron import cron_mistake

FIELD = st.lists(
    st.from_regex(r"(\*|[0-9]{1,2}(-[0-9]{1,2})?|(mon|Sun|feb|DEC)(-fri)?)(/[0-9]{1,2})?", fullmatch=True),
    min_size=1,
    max_size=2,
).map(",".join)


@given(st.lists(FIELD, min_size=5, max_size=5).map(" ".join))
def test_dagster_takes_what_is_taken_here(text: str) -> None:
    if cron_mistake(text) is None:
        assert is_valid_cron_schedule(text)


@pytest.mark.parametrize(
    "text",
    [
        "@hourly",
        "@daily",
        "@weekly",
        "@monthly",
        "0 3 * * *",
        "0 3 * * 5-1",
        "*/15 8-18 * * mon-fri",
        "0,30 0-23/2 1,15 jan-MAR 0",
        "59 23 31 12 7",
        "5 4 29 feb *",
    ],
)
def test_what_people_write_is_taken(text: str) -> None:
    assert cron_mistake(text) is None
    assert is_valid_cron_schedule(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "'' is not a cron expression; write minute hour day month weekday, as in 0 3 * * *"),
        ("nightly", "'nightly' is not a cron expression; write minute hour day month weekday, as in 0 3 * * *"),
        ("0 3 * * * *", "'0 3 * * * *' is not a cron expression; write minute hour day month weekday, as in 0 3 * * *"),
        ("@never", "'@never' is not a cron expression; write minute hour day month weekday, as in 0 3 * * *"),
        ("60 3 * * *", "'60' is not a minute; write *, or numbers from 0 to 59, such as 0, 1-5 or */2"),
        ("0 24 * * *", "'24' is not an hour; write *, or numbers from 0 to 23, such as 0, 1-5 or */2"),
        ("0 3 0 * *", "'0' is not a day; write *, or numbers from 1 to 31, such as 1, 1-5 or */2"),
        ("0 3 * mai *", "'mai' is not a month; write *, or numbers from 1 to 12, such as 1, 1-5 or */2"),
        ("0 3 * * 5-9", "'5-9' is not a weekday; write *, or numbers from 0 to 7, such as 0, 1-5 or */2"),
        ("*/0 3 * * *", "'*/0' is not a minute; write *, or numbers from 0 to 59, such as 0, 1-5 or */2"),
        ("0 3 30 2 *", "'0 3 30 2 *' never fires: none of its months has such a day; name another day or month"),
    ],
)
def test_each_mistake_has_its_sentence(text: str, sentence: str) -> None:
    assert cron_mistake(text) == sentence
