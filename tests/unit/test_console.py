"""The pure parts of the console: what guardrails said, entries of a timeline, the line of an episode, sessions and tries."""

from __future__ import annotations

import math

import pytest

from remediator import guardrails, tries
from remediator.console import graph, routes_of, sessions
from remediator.console.checks import ORDER, checks
from remediator.console.render import markdown, value, web_address
from remediator.console.timeline import MOST_ITEMS, entries, entry, folded, things
from remediator.events import Event, Kind
from remediator.ledger import Command
from tests.unit.cases import NOW, History
from tests.unit.test_approvals import asked

# -- guardrails ---------------------------------------------------------------------------------------------


def decided(answers: dict[str, str] | None) -> Event:
    data = {"reason": "muted", "sentence": "s", "earliest": None, "rung": "mild", "answers": answers}
    return Event("1" * 32, "e", 2, Kind.REFUSED, NOW, data)


def said(event: Event, command: Command | None = None) -> dict[str, str]:
    return {check.name: check.said for check in checks(event, command)}


def test_what_the_event_tells_is_shown_and_nothing_is_concluded() -> None:
    """In the order in which they are asked; who is not in the event was not asked, wherever it stands."""
    told = said(decided({"stale": "", "rule": "", "settling": "Waiting 30s.", "muted": "Silenced by s1."}))
    assert list(told) == [rule.__name__.replace("_", " ") for rule in ORDER]
    assert {name: word for name, word in told.items() if word != "not asked"} == {
        "stale": "passed",
        "settling": "refused",
        "rule": "passed",
        "muted": "refused",
    }
    (muted,) = [check for check in checks(decided({"muted": "Silenced by s1."})) if check.name == "muted"]
    assert (muted.why, muted.what) == (
        "Silenced by s1.",
        "A silence or an inhibition means a person, or a cause, is on it.",
    )


def test_a_guardrail_of_another_version_is_shown_too() -> None:
    """With its answer; what it is for this version does not know."""
    last = checks(decided({"stale": "", "moon_phase": "The moon is full."}))[-1]
    assert (last.name, last.said, last.why, last.what) == ("moon phase", "refused", "The moon is full.", "")


def test_a_command_has_those_that_hold_for_commands() -> None:
    """Behind a broken glass those that it breaks do not hold, and are not in the table."""
    whole = said(decided({"stale": ""}), Command("restart_service", "d", "ada", "why", False))
    broken = said(decided({"stale": ""}), Command("restart_service", "d", "ada", "why", True))
    assert "rule" not in whole
    assert "muted" not in whole
    assert set(whole) - set(broken) == {rule.__name__.replace("_", " ") for rule in guardrails.GLASS}


def test_where_no_guardrail_was_asked_there_is_no_table() -> None:
    """Other events, and those of a journal that does not tell it."""
    assert checks(decided(None)) == ()
    assert checks(decided({})) == ()
    assert checks(History().events[0]) == ()


# -- timeline -----------------------------------------------------------------------------------------------


def test_every_kind_of_event_has_its_entry() -> None:
    """With a sign and a title that differ from colour alone, and a sentence."""
    history = asked().intent(NOW, approval="x").outcome(NOW + 1).verdict(NOW + 60, "fixed")
    history.add(Kind.HANDED_OVER, NOW, reason="in_doubt", sentence="s", alertname="A", severity="P1")
    history.add(Kind.CLOSED, NOW, reason="fixed", sentence="Proven fixed.")
    told = entries(history.events)
    assert [one.seq for one in told] == list(range(1, len(history.events) + 1))
    assert all(one.sign and one.title and one.sentence for one in told)
    assert [one.tone for one in told if one.kind in ("outcome", "verdict")] == ["good", "good"]
    own = Event("2" * 32, "remediator", 1, Kind.STORM_BEGAN, NOW, {"storm": 1, "open": 12})
    assert entry(own).title == "Storm began"


def test_a_long_story_keeps_its_beginning_and_its_end() -> None:
    history = History()
    for number in range(20):
        history.add(Kind.REFUSED, NOW + number, reason="paused", sentence="s", earliest=None, rung="mild")
    cut = folded(history.events, 5)
    assert [one.seq for one in cut.entries] == [1, 18, 19, 20, 21]
    assert cut.hidden == 16
    assert folded(history.events, 5, whole=True).hidden == 0
    assert folded([], 5).entries == []


def test_what_would_be_touched_is_a_table_and_bounded() -> None:
    sheet = things("t", [{"id": "a", "pid": 1}, {"id": "b", "query": "select"}])
    assert sheet.columns == ("id", "pid", "query")
    assert sheet.rows == (("a", 1, None), ("b", None, "select"))
    many = things("t", [{"id": number} for number in range(MOST_ITEMS + 3)])
    assert (len(many.rows), many.more) == (MOST_ITEMS, 3)


# -- the line -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "line", "limit"),
    [
        ("up < 1", "up", 1.0),
        ("(sum by (x) (rate(a[5m])) >= 0.5)", "sum by (x) (rate(a[5m]))", 0.5),
        ("a > b", "a > b", None),
        ("a == 0", "a == 0", None),
        ("a > 5 and on () b", "a > 5 and on () b", None),
        ("not promql (", "not promql (", None),
    ],
)
def test_a_limit_is_drawn_and_not_compared(expression: str, line: str, limit: float | None) -> None:
    found, drawn = graph.split(expression)
    assert "".join(found.split()) == "".join(line.split())
    assert drawn == limit


def test_gaps_are_gaps_and_no_value_breaks_the_drawing() -> None:
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, math.nan), (3.0, math.inf), (9.0, 5.0), (10.0, 4.0)]
    paths, low, high, limit = graph.draw(points, 3.0, 0.0, 10.0, 1.0)
    assert len(paths) == 2
    assert (low, high) == (1.0, 5.0)
    assert limit is not None
    assert graph.EDGE < limit < graph.HEIGHT - graph.EDGE
    assert "nan" not in "".join(paths)
    assert "inf" not in "".join(paths)
    flat, _, _, _ = graph.draw([(0.0, 0.0), (1.0, 0.0)], None, 0.0, 0.0, 1.0)
    assert len(flat) == 1
    assert graph.draw([], None, 0.0, 1.0, 1.0)[0] == ()


def test_marks_that_lie_together_stand_below_each_other() -> None:
    history = History(NOW).intent(NOW + 1).outcome(NOW + 2).verdict(NOW + 3, "fixed")
    begin, end = graph.span(history.events, None, NOW + 4000)
    told = graph.marks(history.events, begin, end)
    assert [mark.said for mark in told] == ["alert", "acts: restart service", "outcome: done", "verdict: fixed"]
    assert [mark.row for mark in told] == [0, 1, 2, 0]
    assert all(0 <= mark.x <= graph.WIDTH for mark in told)


def test_the_time_shown_is_bounded() -> None:
    events = History(NOW).events
    for closed, now in ((None, NOW + 5), (NOW + 30, NOW + 9000), (None, NOW + 30 * 86400), (NOW + 1, NOW)):
        begin, end = graph.span(events, closed, now)
        assert begin < end <= max(now, NOW)
        assert end - begin <= graph.LONGEST


# -- what comes from outside, and who comes in ----------------------------------------------------------------


def test_only_web_addresses_become_links() -> None:
    assert web_address("https://wiki.example/x?a=1") != ""
    for text in ("javascript:alert(1)", "data:text/html,x", "//evil", "http://", "ftp://x/y", "https://[", 7, None):
        assert web_address(text) == "", text
    assert "<script" not in markdown("# a\n\n<script>alert(1)</script>\n\n[x](javascript:alert(1))")
    assert "href" not in markdown("[x](javascript:alert(1))")


def test_values_are_short() -> None:
    assert [value(of) for of in (None, "", True, 1.23456789, {"a": [1, None]}, [], "x")] == [
        "—",
        "—",
        "yes",
        "1.23457",
        "a=1, —",
        "—",
        "x",
    ]


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_switched_off_there_are_no_pages() -> None:
    assert routes_of(None) == ()


def test_sessions_are_bounded_and_end() -> None:
    clock = _Clock()
    kept = sessions.Sessions(clock)
    first = kept.begin(kept.new(header="a"))
    assert kept.find(first, 60.0) is not None
    assert kept.find("x" * 43, 60.0) is None
    assert kept.find(None, 60.0) is None
    for _ in range(sessions.MOST_SESSIONS):
        last = kept.begin(kept.new(header="b"))
    assert kept.find(first, 60.0) is None, "the oldest goes first"
    clock.now += 61
    assert kept.find(last, 60.0) is None
    clock.now -= 61
    assert kept.find(last, 60.0) is None, "what is over stays so"


def test_what_is_told_stays_while_its_page_renews_itself() -> None:
    """It is gone with the next load, and was never another page's."""
    session = sessions.Session(0.0)
    session.tell("Taken.", "/a")
    assert session.telling("/b", renewed=False) == ""
    assert session.telling("/a", renewed=True) == "", "a page of before"
    assert session.telling("/a", renewed=False) == "Taken."
    assert session.telling("/a", renewed=True) == "Taken."
    assert session.telling("/a", renewed=False) == ""
    assert session.telling("/a", renewed=True) == ""


def test_tries_are_counted_by_address_and_forgotten() -> None:
    clock = _Clock()
    counted = tries.Tries(clock)
    for number in range(tries.TRIES):
        assert counted.wait("a", "Bearer x") == 0.0
        counted.fail("a", str(number))
    assert counted.wait("a", "Bearer x") == tries.WINDOW
    assert counted.wait("b", "Bearer x") == 0.0
    clock.now += tries.WINDOW
    assert counted.wait("a", "Bearer x") == 0.0
    for number in range(tries.MOST_ADDRESSES + 10):
        counted.fail(str(number), "Bearer x")
    assert len(counted._failed) == tries.MOST_ADDRESSES


def test_the_same_wrong_token_again_is_one_guess() -> None:
    """A script with an old token does not lock out whoever comes from the same address."""
    counted = tries.Tries(_Clock())
    for _ in range(10 * tries.TRIES):
        counted.fail("a", "Bearer old")
    assert counted.wait("a", "Bearer new") == 0.0
    for number in range(tries.TRIES - 1):
        counted.fail("a", str(number))
    assert counted.wait("a", "Bearer new") == tries.WINDOW


def test_a_token_that_was_right_before_is_looked_at() -> None:
    """And no other one; so many are known, the latest."""
    counted = tries.Tries(_Clock())
    counted.right("Bearer good")
    for number in range(tries.TRIES):
        counted.fail("a", str(number))
    assert (counted.wait("a", "Bearer good"), counted.wait("a", None)) == (0.0, tries.WINDOW)
    for number in range(tries.MOST_KNOWN):
        counted.right(str(number))
    assert counted.wait("a", "Bearer good") == tries.WINDOW
