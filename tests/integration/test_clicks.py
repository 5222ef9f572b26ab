"""A person's click that comes to nothing: by the console and by the API it is in the journal, with who and why, and changes nothing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from typer.testing import CliRunner

from prepctl.cli import app
from remediator.clicks import MOST
from remediator.episodes import Episodes
from remediator.events import CLICKS, Event, Kind
from remediator.journal import Claim, NotTaken
from tests.integration.test_approvals import ADA, BOB, VERA
from tests.integration.test_console import Person, browser, question
from tests.support.episodes import write
from tests.support.http_side import OPERATOR, Side, as_person, serve
from tests.unit.cases import NOW, History, book, settings
from tests.unit.test_approvals import DIGEST, asked


@pytest.fixture
async def side(tmp_path: Path) -> AsyncIterator[Side]:
    async with serve(tmp_path) as side:
        yield side


async def told(side: Side) -> list[dict[str, Any]]:
    """What the journal says of clicks that were not taken, in order."""
    events = await side.journal.events(CLICKS)
    assert [event.kind for event in events] == [Kind.NOT_TAKEN] * len(events)
    return [dict(event.data) for event in events]


async def send(side: Side, token: dict[str, str], path: str, method: str = "POST", **body: Any) -> int:
    """A request of the API; its status."""
    url = f"{side.url}/api/v1{path}"
    async with (
        aiohttp.ClientSession() as client,
        client.request(method, url, json=body or None, headers=token) as answer,
    ):
        return answer.status


async def declined_by_bob(side: Side) -> tuple[str, str]:
    """A question that bob was first to answer."""
    episode, number = await question(side, "second")
    said = {"approval": number, "who": "bob", "reason": "not now"}
    place = len(await side.journal.events(episode)) + 1
    await side.journal.append([Event("d" * 32, episode, place, Kind.DECLINED, await side.journal.now(), said)])
    return episode, number


@pytest.mark.parametrize("way", ["console", "api"])
async def test_each_refused_answer_is_told_with_who_and_why(side: Side, way: str) -> None:
    """Of a viewer, late, of another preview, second, of no reason, of nothing: each once, with its episode."""
    late, gone = await question(side, "late", asked(good_until=1.0))
    other, number = await question(side, "other")
    second, answered_one = await declined_by_bob(side)
    cases = [
        ("ada", gone, DIGEST, late, "expired"),
        ("ada", number, "0" * 64, other, "digest"),
        ("ada", answered_one, DIGEST, second, "answered"),
        ("vera", number, DIGEST, other, "role"),
        ("ada", "f" * 32, DIGEST, None, "no_such_approval"),
    ]
    before = {each: await side.journal.events(each) for each in (late, other, second)}
    for name, of, digest, _, _ in cases:
        if way == "api":
            assert await send(side, as_person(name), f"/approvals/{of}/approve", digest=digest) in (403, 404, 409)
            continue
        async with browser() as client:
            person = Person(side, client)
            await person.log_in(f"{name}-token")
            status, text, _ = await person.post(f"/console/approvals/{of}/approve", digest=digest)
            assert (status in (403, 404, 409), "Not done" in text) == (True, True)
    found = await told(side)
    assert [(one["who"], one["of"], one["episode"], one["code"]) for one in found] == [
        (name, of, episode, code) for name, of, _, episode, code in cases
    ]
    assert {one["what"] for one in found} == {"approve"}
    assert found[2]["sentence"] == "bob has declined it before: not now"
    assert before == {each: await side.journal.events(each) for each in before}, "an episode was changed"
    assert [await side.journal.inbox(each) for each in before] == [[], [], []]


async def test_prepctl_is_told_whose_answer_counted(side: Side, tmp_path: Path) -> None:
    """With the whole id and the digest it asks also when the question is gone from the list; and that is journaled."""
    episode, number = await declined_by_bob(side)
    argv = [
        "--url",
        side.url,
        "--token-file",
        str(tmp_path / "ada-token"),
        "approvals:approve",
        number,
        "--digest",
        DIGEST,
    ]
    done = await asyncio.to_thread(CliRunner().invoke, app, argv)
    assert done.exit_code == 1, done.output
    assert "bob has declined it before: not now" in str(done.exception) + done.output
    assert [(one["who"], one["episode"], one["code"]) for one in await told(side)] == [("ada", episode, "answered")]


async def test_every_other_act_that_is_refused_is_told(side: Side) -> None:
    """Pauses, doubts, storms, runbooks, promotions and commands; whoever shares a token is named as he names himself."""
    acts = [
        ("/pauses", "POST", "pause", {"scope": "runbook:none-such", "reason": "x"}),
        ("/pauses/7", "DELETE", "resume", {}),
        (f"/doubts/{'a' * 32}/settle", "POST", "settle", {"settlement": "done", "reason": "x"}),
        ("/storm/end", "POST", "end_storm", {"reason": "x"}),
        ("/runbooks/engine-slow/restore", "POST", "restore", {"reason": "x"}),
        ("/runbooks/none-such/promote", "POST", "promote", {"to": "auto", "reason": "x"}),
    ]
    for path, method, _, body in acts:
        assert await send(side, BOB, path, method, **body) in (404, 409, 422), path
    assert [(one["what"], one["who"]) for one in await told(side)] == [(what, "bob") for _, _, what, _ in acts]
    assert await send(side, OPERATOR, "/storm/end", who="Grace", reason="x") == 409
    assert await send(side, OPERATOR, "/storm/end", reason="x") == 403
    assert [one["who"] for one in await told(side)][-2:] == ["Grace", "somebody with the shared token"]


async def test_a_form_that_may_be_somebody_elses_is_not_told(side: Side) -> None:
    """Without the session's mark nobody has clicked, as far as anybody knows; without a log-in there is no who."""
    _, number = await question(side)
    async with browser() as client:
        person = Person(side, client)
        path = f"/console/approvals/{number}/approve"
        assert (await person.post(path, marked=False, digest=DIGEST))[0] == 403
        await person.log_in("ada-token")
        assert (await person.post(path, marked=False, digest=DIGEST, csrf="x" * 43))[0] == 403
    assert await send(side, {"Authorization": "Bearer wrong"}, f"/approvals/{number}/approve", digest=DIGEST) == 401
    assert await told(side) == []


async def test_who_clicks_without_end_fills_no_journal(side: Side) -> None:
    """So many of one token in a minute; another person's click is told all the same, and each got its answer."""
    statuses = [await send(side, VERA, "/storm/end", reason="x") for _ in range(MOST + 5)]
    assert statuses == [403] * (MOST + 5)
    assert await send(side, ADA, "/storm/end", reason="x") == 409
    assert [one["who"] for one in await told(side)] == ["vera"] * MOST + ["ada"]


@pytest.mark.parametrize("way", ["episode", "journal", "people", "api", "prepctl"])
async def test_people_see_it_wherever_they_look(side: Side, tmp_path: Path, way: str) -> None:
    """On the episode's page, in the journal and its filter, in the API's story, and in prepctl."""
    episode, number = await declined_by_bob(side)
    assert await send(side, ADA, f"/approvals/{number}/approve", digest=DIGEST) == 409
    sentence = "The yes of ada was not taken (answered): bob has declined it before: not now."
    if way == "api":
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"{side.url}/api/v1/episodes/{episode}", headers=VERA) as answer,
        ):
            story = await answer.json()
        assert [one["sentence"] for one in story["not_taken"]] == [sentence]
        assert "not_taken" not in {event["kind"] for event in story["events"]}
        return
    if way == "prepctl":
        argv = ["--url", side.url, "--token-file", str(tmp_path / "vera-token"), "episodes:show", episode]
        shown = await asyncio.to_thread(CliRunner().invoke, app, argv)
        assert (shown.exit_code, sentence in shown.output) == (0, True), shown.output
        return
    path = {"episode": f"/console/episodes/{episode}", "journal": "/console/journal?kind=not_taken"}
    async with browser() as client:
        person = Person(side, client)
        await person.log_in("vera-token")
        text = unescape((await person.get(path.get(way, "/console/journal?kind=people")))[1])
    assert sentence in text
    assert f'href="/console/episodes/{episode}"' in text or way == "episode"


# -- second behind another's ----------------------------------------------------------------------------------


async def owner_folds(side: Side, episode: str) -> list[Kind]:
    """Its owner reads the episode, and with it what people have clicked; the kinds that it wrote."""
    before = len(await side.journal.events(episode))
    keeper = Episodes(side.journal, settings(), (book(),), lambda event, ledger: None, side.journal.owner)
    run = await keeper.load(Claim(episode, 1, False, 0))
    assert run is not None
    assert await side.journal.inbox(episode) == [], "a click is left over"
    return [event.kind for event in (await side.journal.events(episode))[before:]]


async def test_of_two_that_came_at_once_the_second_is_told(side: Side) -> None:
    """Both were taken at the door. One counts; of the other the journal has who, what and whose was first."""
    episode, number = await question(side)
    limits = await side.journal.facts(episode, "engine-slow", "docker:prep/engine")
    assert await send(side, ADA, f"/approvals/{number}/approve", digest=DIGEST) == 202
    assert await send(side, BOB, f"/approvals/{number}/decline", digest=DIGEST, reason="mine") == 202
    assert await owner_folds(side, episode) == [Kind.APPROVED]
    (one,) = await told(side)
    assert (one["what"], one["who"], one["code"], one["episode"]) == ("decline", "bob", "answered", episode)
    assert one["sentence"] == "ada approved it before."
    after = await side.journal.facts(episode, "engine-slow", "docker:prep/engine")
    assert (after.all_day, after.resource_day, after.doubts, after.holds) == (
        limits.all_day,
        limits.resource_day,
        limits.doubts,
        limits.holds,
    )
    assert await side.journal.verify() == []


async def test_an_answer_that_came_too_late_for_its_owner_is_told(side: Side) -> None:
    """It was in time at the door; by the clock of its row it is not."""
    episode, number = await question(side, "late", asked(good_until=time.time() + 0.5))
    click = {"kind": "approve", "approval": number, "digest": DIGEST, "who": "ada", "reason": ""}
    await asyncio.sleep(0.6)
    await side.journal.click(episode, json.dumps(click).encode())
    assert await owner_folds(side, episode) == []
    assert [(one["who"], one["code"]) for one in await told(side)] == [("ada", "expired")]


async def test_a_doubt_is_settled_once_and_the_second_word_is_told(side: Side) -> None:
    """The first one's word stands."""
    episode = await write(side.journal, History(NOW - 60).intent(NOW - 60).outcome(NOW - 58, result="in_doubt"))
    attempt = next(event.data["attempt"] for event in await side.journal.events(episode) if "attempt" in event.data)
    for who, settlement in (("ada", "done"), ("bob", "not_done")):
        click = {"kind": "settle", "attempt": attempt, "settlement": settlement, "who": who, "reason": "seen"}
        await side.journal.click(episode, json.dumps(click).encode())
    assert await owner_folds(side, episode) == [Kind.SETTLED]
    (one,) = await told(side)
    assert (one["what"], one["who"], one["code"]) == ("settle", "bob", "not_in_doubt")


async def test_a_click_is_told_once_though_its_owner_died_in_between(side: Side) -> None:
    """After the word and before the row is marked taken: the next owner finds the row again, and writes nothing twice."""
    episode, number = await declined_by_bob(side)
    click = {"kind": "approve", "approval": number, "digest": DIGEST, "who": "ada", "reason": ""}
    await side.journal.click(episode, json.dumps(click).encode())
    original, taken = side.journal.append, False

    async def dies(events: list[Event], **more: Any) -> None:
        nonlocal taken
        if not taken and more.get("takes"):
            taken = True
            raise ConnectionError("killed here")
        await original(events, **more)

    side.journal.append = dies  # type: ignore[method-assign, assignment] # between the two, where no port is
    with pytest.raises(ConnectionError):
        await owner_folds(side, episode)
    assert len(await told(side)) == 1
    await owner_folds(side, episode)
    assert len(await told(side)) == 1


async def test_two_replicas_tell_at_once(side: Side) -> None:
    """Each finds a place of its own, and none is lost."""
    said = [NotTaken(f"{n:032x}", "approve", "x", None, f"w{n}", "role", "No.") for n in range(20)]
    await asyncio.gather(*(side.journal.not_taken(one) for one in (*said, *said)))
    events = await side.journal.events(CLICKS)
    assert [event.seq for event in events] == [*range(1, 21)]
    assert {event.id for event in events} == {one.id for one in said}


async def test_a_no_is_a_no_though_the_journal_cannot_tell_it(side: Side) -> None:
    """The person has his answer, in time; only the log says what is missing."""
    await side.journal.close()
    side.clean = False
    began = time.monotonic()
    assert await send(side, VERA, "/storm/end", reason="x") == 403
    assert time.monotonic() - began < 5
