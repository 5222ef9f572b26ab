"""When P4 is told: a table over weekdays and clock changes, in local time of the place."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from alerting.severity import Hours, load, seconds
from tests.unit.rule_files import ROOT

TABLE = load(ROOT / "alert-rules" / "severity.yml")
HOURS = TABLE.hours["business-hours"]
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def is_open(hours: Hours, at: datetime) -> bool:
    """As Alertmanager's timeinterval.ContainsTime: local minute of the day, start included, end not."""
    local = at.astimezone(ZoneInfo(hours.location))
    first, _, last = hours.weekdays.partition(":")
    return (
        DAYS.index(first) <= local.weekday() <= DAYS.index(last or first)
        and hours.times[0] <= f"{local:%H:%M}" < hours.times[1]
    )


def opens(hours: Hours, after: datetime) -> datetime:
    """The first minute at or after `after` in which it is open."""
    at = after.replace(second=0, microsecond=0)
    while not is_open(hours, at):
        at += timedelta(minutes=1)
    return at


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("at", "opened"),
    [
        ("2026-01-05T16:59", "2026-01-05T17:00"),  # Monday, a minute before: winter, UTC-8
        ("2026-01-05T17:00", "2026-01-05T17:00"),
        ("2026-01-06T00:59", "2026-01-06T00:59"),  # Monday 16:59 there, though Tuesday in UTC
        ("2026-01-06T01:00", "2026-01-06T17:00"),  # 17:00 is closed
        ("2026-01-10T01:00", "2026-01-12T17:00"),  # Friday evening: Monday
        ("2026-01-10T18:00", "2026-01-12T17:00"),  # Saturday at ten
        ("2026-01-11T20:00", "2026-01-12T17:00"),  # Sunday
        ("2026-07-06T15:59", "2026-07-06T16:00"),  # summer, UTC-7
        ("2026-03-07T18:00", "2026-03-09T16:00"),  # clocks go forward on Sunday 8 March: Monday opens an hour sooner
        ("2026-03-06T17:00", "2026-03-06T17:00"),  # the Friday before: still 17:00
        ("2026-10-30T16:00", "2026-10-30T16:00"),  # the Friday before they go back
        ("2026-10-31T18:00", "2026-11-02T17:00"),  # clocks go back on Sunday 1 November
    ],
)
def test_p4_is_told_in_the_offices_own_hours(at: str, opened: str) -> None:
    """Nine to five from Monday to Friday where the people are, also over both clock changes."""
    assert opens(HOURS, utc(at)) == utc(opened)


@pytest.mark.parametrize("day", ["2026-03-09", "2026-11-02", "2026-07-06", "2026-12-07"])
def test_the_window_is_eight_hours_long(day: str) -> None:
    """Also on the first working day after a clock change."""
    begin = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(HOURS.location))
    minutes = [begin + timedelta(minutes=number) for number in range(24 * 60)]
    assert sum(is_open(HOURS, minute) for minute in minutes) == 480


@pytest.mark.parametrize("offset", range(0, 300, 37))
def test_it_leaves_within_six_minutes_of_the_opening(offset: int) -> None:
    """Wherever Alertmanager's flushes fall: the first one after the opening is at most one interval later."""
    interval = seconds(TABLE.levels["P4"].group_interval)
    flush = utc("2026-01-05T09:00") + timedelta(seconds=offset)
    opening = utc("2026-01-05T17:00")
    while not is_open(HOURS, flush):
        flush += timedelta(seconds=interval)
    assert timedelta() <= flush - opening <= timedelta(minutes=6)
