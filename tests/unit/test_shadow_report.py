"""The shadow report as people read it: one rich history, word for word; every reason and every end has its sentence."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prepctl import shadow
from prepctl.errors import Exit, Failure
from remediator import shadow_words
from remediator.api_models import ShadowReport
from remediator.events import OWN, Event, Kind
from remediator.reason_words import WORDS
from remediator.reasons import Reason
from remediator.settings import Promotion
from remediator.shadow import Answer, Came, Wrong
from remediator.shadow_report import Past, as_json, from_lines, report
from tests.unit.cases import NOW, History, book
from tests.unit.test_promotion import seen

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "shadow-report.txt"
JARGON = re.compile(
    r"\b(ledger|guardrails?|rungs?|fingerprint|digest|vantage|intent|would_act|refusal|fold|epoch|charge|verdict|[a-z]+_[a-z]+_[a-z]+)\b"
)
BLOCKED = {"reason": "blocked_by_cause", "sentence": "A cause is pending or firing: PostgresDown.", "rung": "mild"}
SETTLING = {"reason": "settling", "sentence": "Waiting 30s whether it heals by itself.", "rung": "mild"}
MUTED = {"reason": "muted", "sentence": "The alert is silenced or inhibited: deployment.", "rung": "mild"}
PROPOSED: Mapping[str, Any] = {
    "rung": "mild",
    "action": "restart_service",
    "resource": "docker:prep/engine",
    "params": {},
    "items": [{"id": "c1"}],
    "summary": "restart the container prep-engine-1 of engine, up for 3d.",
    "digest": "d1",
}
CLEARED = {"reason": "cleared", "sentence": "The rule is not true any more: p95 is 0.4."}
ASKED = {**PROPOSED, "good_until": NOW, "persons": 1, "try": 1}


def hours(number: float) -> float:
    """So long before now."""
    return NOW - number * 3600.0


def history(name: str, at: float, service: str = "engine") -> History:
    """An episode that waits out its settle time."""
    made = History(at, at - 20, service=service)
    made.events[0] = replace(made.events[0], data={**made.events[0].data, "target": {"service": service}})
    made.add(Kind.REFUSED, at, earliest=at + 30, **SETTLING)
    made.events = [replace(event, episode=name) for event in made.events]
    return made


def named(name: str, made: History) -> list[Event]:
    return [replace(event, episode=name) for event in made.events]


def rich() -> Past:
    """A fortnight: healed at once, lasted, a cause, silenced, asked and helped, did not help, came back, held back."""
    told: dict[str, list[Event]] = {}

    def keep(name: str, made: History) -> None:
        told[name] = named(name, made)

    at = hours(300)
    keep("a1", history("a1", at).add(Kind.WOULD_ACT, at + 30, **PROPOSED).add(Kind.CLOSED, at + 95, **CLEARED))
    at = hours(280)
    lasted = history("a2", at).add(Kind.WOULD_ACT, at + 30, **PROPOSED)
    given = {"reason": "stale_alert", "sentence": "The alert is 1h old.", "alertname": "RemediationNeedsPeople"}
    keep("a2", lasted.add(Kind.HANDED_OVER, at + 3600, severity="P2", **given).add(Kind.CLOSED, at + 7200, **CLEARED))
    at = hours(250)
    caused = history("a3", at).add(Kind.WOULD_ACT, at + 30, **PROPOSED)
    keep("a3", caused.add(Kind.REFUSED, at + 210, earliest=None, **BLOCKED).add(Kind.CLOSED, at + 2400, **CLEARED))
    at = hours(200)
    silenced = history("a4", at).add(Kind.REFUSED, at + 30, earliest=None, **MUTED)
    keep("a4", silenced.add(Kind.CLOSED, at + 900, **CLEARED))
    at = hours(150)
    changed = history("a5", at).add(Kind.WOULD_ACT, at + 30, **PROPOSED)
    keep("a5", changed.add(Kind.CLOSED, at + 700, **CLEARED, changed=True))
    at = hours(100)
    helped = history("b1", at).add(Kind.NEEDS_APPROVAL, at + 30, **ASKED)
    helped.add(Kind.APPROVED, at + 90, approval=helped.events[-1].id, who="ada", reason="")
    helped.intent(at + 100, "1" * 32, approval=helped.events[-2].id).outcome(at + 104, "done", "1" * 32)
    keep("b1", helped.verdict(at + 300, "fixed", "1" * 32).add(Kind.CLOSED, at + 330, **CLEARED))
    at = hours(99.5)
    hopeless = history("b2", at).add(Kind.NEEDS_APPROVAL, at + 30, **ASKED)
    hopeless.add(Kind.APPROVED, at + 60, approval=hopeless.events[-1].id, who="bob", reason="try it")
    hopeless.intent(at + 70, "2" * 32, approval=hopeless.events[-2].id).outcome(at + 75, "done", "2" * 32)
    keep("b2", hopeless.verdict(at + 400, "not_fixed", "2" * 32))
    at = hours(50)
    no = history("b3", at).add(Kind.NEEDS_APPROVAL, at + 30, **ASKED)
    no.add(Kind.DECLINED, at + 200, approval=no.events[-1].id, who="ada", reason="a deployment is under way")
    keep("b3", no.add(Kind.CLOSED, at + 4000, **CLEARED))
    at = NOW - 200
    keep(
        "c1",
        history("c1", at, "billing").add(Kind.WOULD_ACT, at + 30, **{**PROPOSED, "resource": "docker:prep/billing"}),
    )
    own = [
        (Kind.PROMOTED, hours(120), {"runbook": "engine-slow", "from": "shadow", "to": "approve", "who": "ada",
                                     "reason": "five right in a row", "despite": "only 4 were seen"}),
        (Kind.DEMOTED, hours(60), {"runbook": "engine-slow", "why": "3 of its last 10 episodes were not proven fixed."}),
        (Kind.RESTORED, hours(55), {"runbook": "engine-slow", "who": "bob", "reason": "the image was mended"}),
    ]  # fmt: skip
    told[OWN] = [Event(f"{n:032x}", OWN, n, kind, at, data) for n, (kind, at, data) in enumerate(own, 1)]
    known = book()
    return Past(NOW, hours(720), told, books={known.name: known}, modes={known.name: "approve"})


def text_of(found: Mapping[str, Any]) -> str:
    return "\n".join(line.plain.rstrip() for line in shadow.lines(found)) + "\n"


def test_one_rich_history_word_for_word() -> None:
    """Read it: tests/data/shadow-report.txt. `GOLDEN=write` writes it anew."""
    said = text_of(as_json(report(rich(), Promotion())))
    if os.environ.get("GOLDEN") == "write":
        GOLDEN.write_text(said)
    assert said == GOLDEN.read_text()


def test_no_word_of_the_program_is_in_it() -> None:
    """Whoever reads it has never read our code. The names of actions and what servers say may have underscores."""
    said = text_of(as_json(report(rich(), Promotion())))
    assert JARGON.findall(said.replace("restart_service", "")) == []
    meaning = " ".join(shadow_words.meaning(Promotion()))
    assert JARGON.findall(" ".join([*WORDS.values(), *shadow_words.AGAINST.values(), meaning])) == []


def test_it_has_the_shape_that_the_api_describes() -> None:
    """Field by field, no more and no less."""
    ShadowReport.model_validate_json(json.dumps(as_json(report(rich(), Promotion()))))


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_its_sentence(reason: Reason) -> None:
    """In the story of an episode, with the value that decided."""
    one = replace(seen(0), proposal=None, judged=False, answers=(Answer(NOW, reason, "It was 17."),))
    assert any(WORDS[reason] in line and "(It was 17)." in line for line in shadow_words.story(one))


@pytest.mark.parametrize("came", list(Came))
def test_every_end_has_its_sentence(came: Came) -> None:
    """None falls through."""
    said = shadow_words.what_came(replace(seen(0), came=came, came_after=None if came is Came.OPEN else 90.0))
    assert said.endswith(".")
    assert ("1m30s" in said) == (came is not Came.OPEN)


@pytest.mark.parametrize("kind", list(Wrong))
def test_everything_against_it_has_its_sentence(kind: Wrong) -> None:
    """And the page about the steps says what it counts."""
    assert shadow_words.AGAINST[kind]
    page = (Path(__file__).resolve().parents[2] / "docs" / "trust-by-steps.md").read_text()
    assert f"| `{kind}` |" in page


@pytest.mark.parametrize("number", sorted(Promotion.model_fields))
def test_every_number_is_explained(number: str) -> None:
    """What it counts, its default, and why its floor is there."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "trust-by-steps.md").read_text()
    assert f"| `{number}` |" in page


def test_an_exported_journal_gives_the_same(tmp_path: Path) -> None:
    """Line by line, out of order and some of it twice; of an episode that begins before it only the number is told."""
    past = rich()
    file = tmp_path / "journal.jsonl"
    rows = [
        {
            "episode": event.episode,
            "id": event.id,
            "seq": event.seq,
            "at": event.at,
            "kind": event.kind,
            "data": event.data,
        }
        for events in past.histories.values()
        for event in events
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*reversed(rows), *rows[:7]]))
    live = as_json(report(replace(past, modes={}), Promotion()))
    whole = from_lines(shadow._events(file), NOW, past.since, past.books)
    assert as_json(report(whole, Promotion())) == live
    cut = tmp_path / "cut.jsonl"
    cut.write_text("".join(json.dumps(row) + "\n" for row in rows if (row["episode"], row["seq"]) != ("a1", 1)))
    found = as_json(report(from_lines(shadow._events(cut), NOW, past.since, past.books), Promotion()))
    assert found["unreadable"] == 1
    assert found["episodes"] == live["episodes"][1:]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("3", "line 1 is no event"),
        ("{", "line 1 is no event"),
        ('{"episode": [], "seq": 1, "kind": "opened", "at": 1, "data": {}}', "episode: Input should be"),
        ('{"episode": "a", "seq": 1, "kind": "opened", "at": "x", "data": {}}', "at: Input should be"),
        ('{"episode": "a", "seq": 1, "kind": "opened", "at": NaN, "data": {}}', "at: Input should be"),
    ],
)
def test_what_is_no_export_is_refused(tmp_path: Path, line: str, said: str) -> None:
    """With its line, as wrong usage."""
    file = tmp_path / "journal.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(Failure) as refused:
        shadow.of_file(file, None, "", None, None, NOW)
    assert refused.value.code is Exit.USAGE
    assert said in refused.value.message


def test_an_episode_that_cannot_be_read_is_left_out_and_counted(tmp_path: Path) -> None:
    """An event without what its kind needs: a hand-made file, or one of another program."""
    file = tmp_path / "journal.jsonl"
    file.write_text(json.dumps({"episode": "a", "seq": 1, "kind": "opened", "at": NOW - 60, "data": {}}) + "\n")
    found = shadow.of_file(file, None, "", None, None, NOW)
    assert (found["unreadable"], found["episodes"]) == (1, [])
