"""What several Prometheus servers say together, and when an empty answer proves nothing."""

from __future__ import annotations

import pytest

from remediator.alertmanager import silenced_by
from remediator.errors import Permanent
from remediator.notifications import body, held, muted, silenced
from remediator.prometheus import Sample
from remediator.rules import RuleLook, agree, agree_causes, blind
from remediator.world import Answer

YES, NO, UNKNOWN = (RuleLook(answer, str(answer), 0.1, ()) for answer in (Answer.YES, Answer.NO, Answer.UNKNOWN))
SILENT = RuleLook(Answer.UNKNOWN, "silent", blind="silent")


@pytest.mark.parametrize(
    ("looks", "answer"),
    [
        ([YES, YES], Answer.YES),
        ([NO, NO], Answer.NO),
        ([YES, NO], Answer.UNKNOWN),
        ([YES, SILENT], Answer.UNKNOWN),
        ([NO, SILENT], Answer.UNKNOWN),
        ([UNKNOWN], Answer.UNKNOWN),
    ],
)
def test_all_must_agree(looks: list[RuleLook], answer: Answer) -> None:
    """One that is silent or says otherwise makes it unknown."""
    assert agree(looks).answer is answer


def test_the_largest_skew_counts_and_a_silent_server_has_none() -> None:
    """Unknown skew is unknown, not zero."""
    far = RuleLook(Answer.NO, "", 9.0, ())
    assert agree([NO, far]).skew == 9.0
    assert agree([NO, SILENT]).skew is None


def test_a_cause_seen_anywhere_counts() -> None:
    """None is what all of them must say."""
    seen = RuleLook(Answer.NO, "", 0.0, ("PostgresDown",))
    assert agree_causes([NO, seen]) == ("PostgresDown",)
    assert agree_causes([SILENT, seen]) == ("PostgresDown",)
    assert agree_causes([NO, SILENT]) is None
    assert agree_causes([NO, NO]) == ()


def up(value: float, **labels: str) -> Sample:
    return Sample({"__name__": "up", **labels}, value)


@pytest.mark.parametrize(
    ("samples", "job", "blinded"),
    [
        ([up(1, job="a")], "a", False),
        ([up(0, job="a")], "a", True),
        ([up(1, job="a"), up(0, job="a")], "a", True),
        ([up(1, job="b")], "a", True),
        ([], "a", True),
        ([up(1, job="a", service="x"), up(0, job="a", service="y")], "a", False),
        ([up(0, job="a", service="x"), up(1, job="a", service="y")], "a", True),
        ([up(1, job="b"), up(0, job="a")], None, False),
        ([up(0, job="b")], None, True),
    ],
)
def test_an_empty_answer_counts_only_where_the_server_sees(
    samples: list[Sample], job: str | None, blinded: bool
) -> None:
    """Of the alert's job, the targets that carry the target's own labels; of no job, anything."""
    assert bool(blind(samples, {"service": "x"}, job)) is blinded


def matcher(name: str, value: str, *, regex: bool = False, equal: bool = True) -> dict[str, object]:
    return {"name": name, "value": value, "isRegex": regex, "isEqual": equal}


@pytest.mark.parametrize(
    ("matchers", "matches"),
    [
        ([matcher("a", "1")], True),
        ([matcher("a", "1"), matcher("b", "2")], False),
        ([matcher("a", "1|2", regex=True)], True),
        ([matcher("a", "", regex=True)], False),
        ([matcher("a", "2", equal=False)], True),
        ([matcher("missing", "")], True),
        ([matcher("missing", ".+", regex=True)], False),
        ([matcher("a", "x.*", regex=True, equal=False)], True),
        ([{"name": "a", "value": "1", "isRegex": False}], True),
    ],
)
def test_silences_match_as_in_alertmanager(matchers: list[dict[str, object]], matches: bool) -> None:
    """Anchored, a missing label is empty, isEqual defaults to true."""
    assert silenced_by({"matchers": matchers}, {"a": "1"}) is matches


def test_a_pattern_that_cannot_be_read_here_is_no_answer() -> None:
    """Go's and Python's expressions differ: then nobody here knows."""
    with pytest.raises(Permanent):
        silenced_by({"matchers": [matcher("a", r"\pN+", regex=True)]}, {"a": "1"})


def test_an_alert_that_is_held_is_judged_by_its_own_status() -> None:
    """Held is who has the name and the target; silences are compared only where the alert is not there."""
    labels = {"alertname": "A", "service": "x", "environment": "e"}
    there = {"labels": labels, "status": {"silencedBy": [], "inhibitedBy": ["f1"], "mutedBy": ["f1"]}}
    assert held([there], ["A"], {"service": "x"}) == [there]
    assert held([there], ["B"], {"service": "x"}) == held([there], ["A"], {"service": "y"}) == []
    assert muted([there]) == ("inhibited by alert f1", "time interval f1")
    silence = {"id": "s1", "matchers": [matcher("service", "x")]}
    assert silenced([silence], ["A"], labels) == ("silence s1",)
    assert silenced([silence], ["A"], {"service": "y"}) == silenced([], ["A"], labels) == ()


def test_the_same_alerts_give_the_same_body() -> None:
    """A body of each minute that says nothing new is recognised by its bytes."""
    one, two = ({"labels": {"alertname": name}, "startsAt": "t", "fingerprint": name} for name in "ab")
    assert body([one, two], "r", "u") == body([two, one], "r", "u")
    assert body([], "r", "u") is None
