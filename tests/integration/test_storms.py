"""Storms, release, demotions and recurrence in a real journal: what is latched, who goes first, what a person ends."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from remediator import settings
from remediator.clock import SystemClock
from remediator.events import OWN, Event, Kind
from remediator.journal import EpisodeIndex, Journal
from tests.integration.test_journal import BOOK, RESOURCE, allow, event, intent, opened, sql

LIMIT, CALM = 3, 600.0


@pytest.fixture(params=["sqlite", "postgresql"])
async def journal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Journal]:
    url = (
        f"sqlite:///{tmp_path / 'journal.db'}"
        if request.param == "sqlite"
        else str(request.getfixturevalue("database").dsn())
    )
    journal = await Journal.open(
        settings.Journal(url=url, evidence_dir=tmp_path / "evidence"),
        owner="test",
        clock=SystemClock(),
        mode="auto",
        config_digest="d",
        hold_off=0.0,
    )
    yield journal
    await journal.close()


async def firing(journal: Journal, key: str, severity: str = "P2", refused: str = "storm") -> str:
    """An open episode that fires, has a runbook and waits for `refused`."""
    episode = await opened(journal, key)
    index = EpisodeIndex(BOOK, severity)
    await journal.append([event(episode, 2, Kind.REFUSED, reason=refused)], index=index)
    return episode


async def act(journal: Journal, episode: str, resource: str = RESOURCE) -> str:
    """Its next event is an intent; returns the attempt."""
    seq = len(await journal.events(episode)) + 1
    new = intent(episode, seq, await journal.now())
    new = Event(new.id, new.episode, new.seq, new.kind, new.at, {**new.data, "resource": resource})
    assert await journal.intend(new, runbook=BOOK, resource=resource, decide=allow) is None
    return str(new.data["attempt"])


async def judged(journal: Journal, verdict: str, *, resource: str = RESOURCE) -> None:
    """A whole episode that acted, with this verdict."""
    episode = await firing(journal, uuid.uuid4().hex)
    attempt = await act(journal, episode, resource)
    await journal.outcome(event(episode, 4, Kind.OUTCOME, attempt=attempt, result="done"))
    await journal.append([event(episode, 5, Kind.VERDICT, attempt=attempt, verdict=verdict)])
    await journal.append([event(episode, 6, Kind.CLOSED, reason="over")], close=True)


async def over(journal: Journal, episode: str) -> None:
    seq = len(await journal.events(episode)) + 1
    await journal.append([event(episode, seq, Kind.CLOSED, reason="over")], close=True)


async def own(journal: Journal) -> list[str]:
    """Kinds of the journal's own stream, in order."""
    return [one.kind.value for one in await journal.events(OWN)]


async def test_a_storm_begins_at_the_number_and_outlives_it(journal: Journal) -> None:
    """It ends after the calm time only, and a relapse in between begins the calm anew."""
    episodes = [await firing(journal, f"k{number}") for number in range(LIMIT - 1)]
    assert await journal.turn_storm(LIMIT, CALM) is None
    episodes.append(await firing(journal, "last"))
    storm = await journal.turn_storm(LIMIT, CALM)
    assert storm is not None
    assert storm.most == LIMIT
    await over(journal, episodes.pop())
    assert await journal.turn_storm(LIMIT, CALM) is not None
    facts = await journal.facts(episodes[0], BOOK, RESOURCE)
    assert facts.storm is not None
    assert facts.open_firing == LIMIT - 1
    await sql(journal, f"UPDATE storms SET calm_since = calm_since - {CALM - 60}")
    assert await journal.turn_storm(LIMIT, CALM) is not None
    again = await firing(journal, "again")
    await journal.turn_storm(LIMIT, CALM)
    await over(journal, again)
    await journal.turn_storm(LIMIT, CALM)
    await sql(journal, f"UPDATE storms SET calm_since = calm_since - {CALM - 60}")
    assert await journal.turn_storm(LIMIT, CALM) is not None, "the calm before the relapse was counted"
    await sql(journal, "UPDATE storms SET calm_since = calm_since - 61")
    assert await journal.turn_storm(LIMIT, CALM) is None
    assert await own(journal) == ["storm_began", "storm_ended"]


async def test_a_person_ends_a_storm_and_no_other_begins_at_once(journal: Journal) -> None:
    """Overridden while the number stays high; once it was low, the next one is a new storm."""
    episodes = [await firing(journal, f"k{number}") for number in range(LIMIT)]
    assert await journal.turn_storm(LIMIT, CALM) is not None
    assert await journal.end_storm("ada", "it is one bad scrape")
    assert not await journal.end_storm("ada", "twice")
    assert await journal.turn_storm(LIMIT, CALM) is None
    facts = await journal.facts(episodes[0], BOOK, RESOURCE)
    assert (facts.storm, facts.storm_overridden) == (None, True)
    await over(journal, episodes.pop())
    assert await journal.turn_storm(LIMIT, CALM) is None
    assert not (await journal.facts(episodes[0], BOOK, RESOURCE)).storm_overridden
    await firing(journal, "new")
    assert await journal.turn_storm(LIMIT, CALM) is not None


async def test_after_a_storm_the_most_severe_goes_first_and_one_at_a_time(journal: Journal) -> None:
    """The next one only when the one before is proved; newcomers wait, too; in the end nobody does."""
    mild, grave = await firing(journal, "a", "P3"), await firing(journal, "b", "P1")
    await firing(journal, "c", "P4", refused="muted")  # it waits for something else
    assert await journal.turn_storm(LIMIT, CALM) is not None
    assert (await journal.facts(mild, BOOK, RESOURCE)).releasing is None, "the storm itself refuses"
    await journal.end_storm("ada", "over")
    newcomer = await firing(journal, "d", "P0", refused="settling")

    async def waits(episode: str) -> bool:
        return (await journal.facts(episode, BOOK, RESOURCE)).releasing is not None

    assert [await waits(one) for one in (grave, mild, newcomer)] == [False, True, True]
    attempt = await act(journal, grave)
    assert [await waits(one) for one in (mild, newcomer)] == [True, True]
    await journal.outcome(event(grave, 4, Kind.OUTCOME, attempt=attempt, result="done"))
    assert await waits(mild), "done is not proven"
    await journal.append([event(grave, 5, Kind.VERDICT, attempt=attempt, verdict="fixed")])
    assert [await waits(one) for one in (mild, newcomer)] == [False, True]
    await act(journal, mild, "docker:shop/other")
    assert not await waits(newcomer)


async def test_a_pause_of_all_is_released_like_a_storm(journal: Journal) -> None:
    """One of a runbook is not: only those it held back were waiting, and they are few."""
    now = await journal.now()
    first, second = await firing(journal, "a", refused="paused"), await firing(journal, "b", refused="paused")
    number = await journal.pause("all", "ada", "deploying", now + 600)
    await journal.resume(number, "ada")
    assert (await journal.facts(first, BOOK, RESOURCE)).releasing is None
    assert (await journal.facts(second, BOOK, RESOURCE)).releasing is not None
    assert await own(journal) == ["paused", "resumed"]
    await sql(journal, "UPDATE pauses SET scope = 'runbook:x'")
    assert (await journal.facts(second, BOOK, RESOURCE)).releasing is None


async def test_a_pause_of_a_service_holds_for_its_alerts(journal: Journal) -> None:
    """While it is deployed; whatever resource it turns out to be."""
    await journal.pause("service:engine", "ada", "deploying", None)
    assert (await journal.facts("e", BOOK, RESOURCE, service="engine")).paused
    assert not (await journal.facts("e", BOOK, RESOURCE, service="other")).paused
    assert not (await journal.facts("e", BOOK, RESOURCE)).paused


async def test_a_demotion_lasts_until_a_person_restores_it(journal: Journal) -> None:
    """Once, with its events; what failed before the restoration counts no more."""
    for verdict in ("fixed", "not_fixed", "worse"):
        await judged(journal, verdict)
    assert (await journal.facts("e", BOOK, None)).recent == (False, False, True)
    assert await journal.demote(BOOK, "it failed")
    assert not await journal.demote(BOOK, "it failed")
    assert (await journal.facts("e", BOOK, None)).demoted == "it failed"
    assert (await journal.facts("e", "another", None)).demoted is None
    assert [one.runbook for one in await journal.demoted()] == [BOOK]
    assert await journal.restore(BOOK, "ada", "mended")
    assert not await journal.restore(BOOK, "ada", "mended")
    facts = await journal.facts("e", BOOK, None)
    assert (facts.demoted, facts.recent) == (None, ())
    assert await own(journal) == ["demoted", "restored"]
    await judged(journal, "unknown")
    assert (await journal.facts("e", BOOK, None)).recent == (False,)


async def test_a_mild_rung_that_did_not_help_is_no_failure_when_the_next_one_did(journal: Journal) -> None:
    """A ladder is meant to be climbed: of each episode the last attempt counts."""
    episode = await firing(journal, "k")
    mild = await act(journal, episode)
    await journal.outcome(event(episode, 4, Kind.OUTCOME, attempt=mild, result="done"))
    await journal.append([event(episode, 5, Kind.VERDICT, attempt=mild, verdict="not_fixed")])
    assert (await journal.facts("e", BOOK, None)).recent == (False,)
    await sql(journal, "UPDATE charges SET at = at - 1")
    harsh = await act(journal, episode)
    await journal.outcome(event(episode, 7, Kind.OUTCOME, attempt=harsh, result="done"))
    await journal.append([event(episode, 8, Kind.VERDICT, attempt=harsh, verdict="fixed")])
    assert (await journal.facts("e", BOOK, None)).recent == (True,)


async def test_an_attempt_in_doubt_counts_as_a_failure_of_its_runbook(journal: Journal) -> None:
    """Whatever people find out later, the automation did not know what it had done."""
    episode = await firing(journal, "k")
    attempt = await act(journal, episode)
    assert (await journal.facts("e", BOOK, None)).recent == (), "it runs"
    await journal.outcome(event(episode, 4, Kind.OUTCOME, attempt=attempt, result="in_doubt"))
    assert (await journal.facts("e", BOOK, None)).recent == (False,)


async def test_proven_fixes_of_a_week_are_counted_by_target(journal: Journal) -> None:
    """Only fixed ones, of this runbook, on this resource."""
    for verdict in ("fixed", "fixed", "not_fixed"):
        await judged(journal, verdict)
    await judged(journal, "fixed", resource="docker:shop/other")
    assert (await journal.facts("e", BOOK, RESOURCE)).fixed_lately == 2
    await sql(journal, "UPDATE charges SET at = at - 604801")
    assert (await journal.facts("e", BOOK, RESOURCE)).fixed_lately == 0


async def test_why_an_episode_waits_is_in_the_index(journal: Journal) -> None:
    """For lists and for the release, without folding."""
    episode = await firing(journal, "k", refused="muted")

    async def why() -> Any:
        row = await journal.episode(episode)
        return row.refused if row else "gone"

    assert await why() == "muted"
    await journal.append([event(episode, 3, Kind.NEEDS_APPROVAL)])
    assert await why() == "needs_approval"
    await act(journal, episode)
    assert await why() is None


async def test_whoever_is_next_is_woken(journal: Journal) -> None:
    """The most severe of those that wait for their turn, and nobody else; without one nothing is written."""
    await journal.wake_next_held()
    found = {
        name: await firing(journal, name, severity, refused)
        for name, severity, refused in (
            ("mild", "P3", "releasing"),
            ("severe", "P1", "releasing"),
            ("muted", "P0", "muted"),
        )
    }
    for episode in found.values():
        await journal.claim(10)
        await journal.release(episode, await journal.now() + 600)
    assert await journal.claim(10) == []
    await journal.wake_next_held()
    assert [claim.episode for claim in await journal.claim(10)] == [found["severe"]]


async def test_the_end_of_a_storm_wakes_all(journal: Journal) -> None:
    """Calm by itself: what it held back is due at once."""
    episodes = [await firing(journal, f"k{number}") for number in range(LIMIT)]
    await journal.turn_storm(LIMIT, CALM)
    await over(journal, episodes.pop())
    await journal.turn_storm(LIMIT, CALM)
    for episode in episodes:
        await journal.claim(10)
        await journal.release(episode, await journal.now() + 600)
    await sql(journal, f"UPDATE storms SET calm_since = calm_since - {CALM}")
    assert await journal.turn_storm(LIMIT, CALM) is None
    assert sorted(claim.episode for claim in await journal.claim(10)) == sorted(episodes)


async def test_nobody_waits_for_who_cannot_go(journal: Journal) -> None:
    """An episode under a narrower pause, or one that fails again and again, is not whose turn it is."""
    for name, severity in (("under its own pause", "P0"), ("stuck", "P1")):
        reason = "paused" if severity == "P0" else "storm"
        await firing(journal, name, severity, reason)
    mild = await firing(journal, "mild", "P3", "storm")
    pause = await journal.pause("all", "ada", "because", None)
    await journal.resume(pause, "ada")
    assert "under its own pause" in ((await journal.facts(mild, BOOK, RESOURCE)).releasing or "")
    await sql(journal, "UPDATE pauses SET ended_at = ended_at - 121, since = since - 200")
    assert "stuck" in ((await journal.facts(mild, BOOK, RESOURCE)).releasing or "")
    await sql(
        journal, "UPDATE work SET claims = 3 WHERE episode = (SELECT episode FROM episodes WHERE label = 'stuck')"
    )
    assert (await journal.facts(mild, BOOK, RESOURCE)).releasing is None


async def test_a_severe_one_that_comes_later_goes_first(journal: Journal) -> None:
    """What fires only after the end of the pause takes its place by its severity, not behind all that waited."""
    mild = await firing(journal, "mild", "P3", "releasing")
    pause = await journal.pause("all", "ada", "because", None)
    await journal.resume(pause, "ada")
    severe = await firing(journal, "severe", "P1", "releasing")
    assert (await journal.facts(severe, BOOK, RESOURCE)).releasing is None
    assert severe in ((await journal.facts(mild, BOOK, RESOURCE)).releasing or "")
