"""The operators' API over a real socket and a real journal: what it tells, what it refuses, what it writes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import text

from remediator.api import Footing
from remediator.events import Kind
from remediator.narrative import UNREADABLE
from tests.support.episodes import deliver, write
from tests.support.http_side import BEARER, OPERATOR, Side, serve
from tests.unit.cases import NOW, History

DOUBT = "d0" * 16
GUARDED = (
    ("GET", "/api/v1/episodes"),
    ("GET", "/api/v1/episodes/x"),
    ("GET", "/api/v1/journal"),
    ("GET", "/api/v1/doubts"),
    ("POST", f"/api/v1/doubts/{DOUBT}/settle"),
    ("GET", "/api/v1/pauses"),
    ("POST", "/api/v1/pauses"),
    ("DELETE", "/api/v1/pauses/1"),
    ("GET", "/api/v1/status"),
    ("GET", "/api/v1/openapi.json"),
)


@pytest.fixture(params=["sqlite", "postgresql"])
def journal_url(request: pytest.FixtureRequest) -> str:
    """Both kinds of journal answer alike, also to what only one of them could store."""
    return "" if request.param == "sqlite" else str(request.getfixturevalue("database").dsn())


@pytest.fixture
async def side(tmp_path: Path, journal_url: str) -> AsyncIterator[Side]:
    async with serve(tmp_path, journal_url=journal_url) as side:
        yield side


class Operator:
    """Asks the API with an operator's token; every answer is JSON."""

    def __init__(self, side: Side, client: aiohttp.ClientSession) -> None:
        self._side, self._client = side, client

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        given = {**OPERATOR, **headers}
        async with self._client.request(method, self._side.url + path, json=body, headers=given) as answer:
            return answer.status, await answer.json()


@pytest.fixture
async def ask(side: Side) -> AsyncIterator[Operator]:
    async with aiohttp.ClientSession() as client:
        yield Operator(side, client)


# -- who may ask --------------------------------------------------------------------------------------------


async def test_nothing_is_told_without_an_operators_token(ask: Operator) -> None:
    """Neither without a token nor with the webhook's: it can deliver, it cannot operate."""
    for method, path in GUARDED:
        assert (await ask(method, path, Authorization=""))[0] == 401, path
        status, said = await ask(method, path, **BEARER)
        assert (status, said["error"]["code"]) in ((401, "token_wrong"), (403, "too_many_tries")), path


async def test_without_tokens_in_the_settings_it_is_switched_off(tmp_path: Path) -> None:
    """403 for everybody, and the way to switch it on."""
    async with serve(tmp_path, api=False) as side, aiohttp.ClientSession() as client:
        for method, path in GUARDED:
            status, said = await Operator(side, client)(method, path)
            assert (status, said["error"]["code"]) == (403, "api_disabled"), path
            assert "api_token_files" in said["error"]["do"]


# -- episodes -----------------------------------------------------------------------------------------------


async def test_an_episode_is_told_event_by_event(side: Side, ask: Operator) -> None:
    """In order, each with its data and its sentence, and the sentence of where it stands."""
    history = History(NOW - 60).diagnosed(NOW - 59).intent(NOW - 30).outcome(NOW - 28)
    episode = await write(side.journal, history)
    status, said = await ask("GET", f"/api/v1/episodes/{episode}")
    assert status == 200
    assert [event["kind"] for event in said["events"]] == ["opened", "diagnosed", "intent", "outcome"]
    assert [event["seq"] for event in said["events"]] == [1, 2, 3, 4]
    assert said["events"][3]["sentence"] == "Done: said so."
    assert said["why"].startswith("Proving for ")
    assert (said["episode"]["id"], said["episode"]["alert"], said["episode"]["runbook"]) == (
        episode,
        "EngineSlow",
        "engine-slow",
    )


@pytest.mark.parametrize("gone", ["seq = 1", "seq = 2", "seq > 0"])
async def test_an_episode_with_missing_events_is_told_and_hides_no_other(side: Side, ask: Operator, gone: str) -> None:
    """Another backup was put in the journal's place: a person needs the API most then."""
    torn = await write(side.journal, History(NOW - 60).diagnosed(NOW - 59).intent(NOW - 30, attempt=DOUBT))
    whole = await write(side.journal, History(NOW - 50), "accounts")
    await side.journal._store.write(lambda tx: tx.run(text(f"DELETE FROM events WHERE episode = '{torn}' AND {gone}")))
    left = "Waiting to be taken up." if gone == "seq > 0" else UNREADABLE
    status, said = await ask("GET", "/api/v1/episodes")
    assert (status, {row["id"] for row in said["episodes"]}) == (200, {torn, whole})
    assert [row["why"] for row in said["episodes"] if row["id"] == torn] == [left]
    status, said = await ask("GET", f"/api/v1/episodes/{torn}")
    assert (status, said["why"], said["not_acted"]) == (200, left, None)
    if left == UNREADABLE:
        word = {"settlement": "done", "who": "ada", "reason": "seen"}
        status, said = await ask("POST", f"/api/v1/doubts/{DOUBT}/settle", word)
        assert (status, said["error"]["code"]) == (409, "episode_unreadable")
    for path in ("doubts", "status", "journal", "journal/verify"):
        assert (await ask("GET", f"/api/v1/{path}"))[0] == 200


async def test_episodes_are_listed_open_or_all(side: Side, ask: Operator) -> None:
    """The newest last; closed ones only when asked for."""
    closed = await write(
        side.journal, History().add(Kind.CLOSED, NOW, reason="cleared", sentence="It is over."), "first"
    )
    opened = await write(side.journal, History(), "second")
    assert [row["id"] for row in (await ask("GET", "/api/v1/episodes"))[1]["episodes"]] == [closed, opened]
    assert [row["id"] for row in (await ask("GET", "/api/v1/episodes?open=1"))[1]["episodes"]] == [opened]
    assert [row["id"] for row in (await ask("GET", "/api/v1/episodes?open=0"))[1]["episodes"]] == [closed]
    only = (await ask("GET", "/api/v1/episodes?limit=1"))[1]["episodes"]
    assert [row["id"] for row in only] == [opened]
    assert only[0]["why"].startswith("Deciding: ")


async def test_an_episode_that_is_not_taken_up_yet_says_so(side: Side, ask: Operator) -> None:
    """Between routing and its first event it is there, and not an error."""
    await write(side.journal, History(), "first")
    await deliver(side.journal, "waiting")
    rows = (await ask("GET", "/api/v1/episodes?open=1"))[1]["episodes"]
    assert rows[1]["why"] == "Waiting to be taken up."


async def test_an_unknown_episode_is_not_found(ask: Operator) -> None:
    """Whatever is asked for: 404 with the way to the right one, never 500."""
    for asked in ("0" * 32, "x", "%00", "a%2Fb", "a'--", "%F0%9F%92%A9", "%FF", "x" * 300):
        status, said = await ask("GET", f"/api/v1/episodes/{asked}")
        assert (status, said["error"]["code"]) == (404, "no_such_episode"), asked


async def test_what_is_not_there_is_said_in_json(ask: Operator) -> None:
    """An unknown path, and a method that a path does not take: the API's clients read JSON."""
    status, said = await ask("GET", "/api/v1/episode")
    assert (status, said["error"]["code"]) == (404, "no_such_path")
    status, said = await ask("PUT", "/api/v1/pauses", {})
    assert (status, said["error"]["code"]) == (405, "no_such_method")


async def test_a_query_that_makes_no_sense_is_refused(ask: Operator) -> None:
    """400 with what it may be."""
    for limit in ("0", "501", "-1", "x", "1e3", "", "9" * 19, "%C2%B2"):
        assert (await ask("GET", f"/api/v1/episodes?limit={limit}"))[0] == 400, limit
    for word in ("yes", "", "2"):
        assert (await ask("GET", f"/api/v1/episodes?open={word}"))[0] == 400, word


# -- the journal --------------------------------------------------------------------------------------------


async def test_the_journal_is_followed_without_a_gap(side: Side, ask: Operator) -> None:
    """From answer to answer by `next`: all events are told, across episodes."""
    await write(side.journal, History().diagnosed(NOW - 40), "first")
    _, said = await ask("GET", "/api/v1/journal?limit=1")
    assert [event["kind"] for event in said["events"]] == ["diagnosed"]
    _, before = await ask("GET", "/api/v1/journal")
    await write(side.journal, History(NOW), "second")
    _, following = await ask("GET", f"/api/v1/journal?after={before['next']}")
    told = {(event["episode"], event["seq"]) for said in (before, following) for event in said["events"]}
    assert len(told) == 3


async def test_a_place_that_is_none_is_refused(ask: Operator) -> None:
    """The cursor is the one that was given out."""
    for after in ("x", "nan", "inf", "-1", "1e5", "", "9" * 400, "%C2%B2"):
        assert (await ask("GET", f"/api/v1/journal?after={after}"))[0] == 400, after


# -- pauses -------------------------------------------------------------------------------------------------


async def test_a_pause_holds_before_it_is_answered(side: Side, ask: Operator) -> None:
    """What is told as paused is paused in the journal, with who and why; what runs is listed."""
    await write(side.journal, History().intent(NOW, attempt=DOUBT))
    body = {"scope": "all", "who": "ana", "reason": "maintenance", "for_seconds": 3600}
    status, said = await ask("POST", "/api/v1/pauses", body)
    assert status == 201
    assert [one["attempt"] for one in said["running"]] == [DOUBT]
    assert said["pause"]["until"] - said["pause"]["since"] == pytest.approx(3600, abs=5)
    facts = await side.journal.facts("other", "engine-slow", None)
    assert len(facts.paused) == 1
    assert "ana" in facts.paused[0]
    assert "maintenance" in facts.paused[0]
    assert (await ask("GET", "/api/v1/pauses"))[1]["pauses"] == [said["pause"]]


async def test_a_pause_is_ended_by_its_number(side: Side, ask: Operator) -> None:
    """Once; after that there is none of that number."""
    _, said = await ask("POST", "/api/v1/pauses", {"who": "ana", "reason": "x"})
    number = said["pause"]["id"]
    assert (await ask("DELETE", f"/api/v1/pauses/{number}"))[1]["error"]["code"] == "who"
    assert await ask("DELETE", f"/api/v1/pauses/{number}?who=ben") == (200, {"resumed": number})
    assert (await side.journal.facts("e", "engine-slow", None)).paused == ()
    assert (await ask("DELETE", f"/api/v1/pauses/{number}?who=ben"))[0] == 404
    assert (await ask("DELETE", "/api/v1/pauses/99999999999999999999999?who=ben"))[0] == 404


async def test_a_mistyped_runbook_is_not_a_pause(side: Side, ask: Operator) -> None:
    """A pause that stops nothing, and a person who believes it does, is worse than none."""
    status, said = await ask("POST", "/api/v1/pauses", {"scope": "runbook:engine-slo", "who": "a", "reason": "b"})
    assert (status, said["error"]["code"]) == (422, "no_such_runbook")
    assert "engine-slow" in said["error"]["do"]
    assert await side.journal.pauses() == []


NO_PAUSES: tuple[Any, ...] = (
    {},
    {"who": "a"},
    {"who": "", "reason": "b"},
    {"who": " ", "reason": "b"},
    {"who": "a", "reason": "b\x00"},
    {"who": "a", "reason": "b\nc"},
    {"who": "a", "reason": "b\x9bc"},
    {"who": "a", "reason": "\u2003b"},
    {"who": "a", "reason": "x" * 501},
    {"who": "a", "reason": "b", "scope": "everything"},
    {"who": "a", "reason": "b", "scope": "resource:"},
    {"who": "a", "reason": "b", "scope": "all\n"},
    {"who": "a", "reason": "b", "for_seconds": 0},
    {"who": "a", "reason": "b", "for_seconds": 1e12},
    {"who": "a", "reason": "b", "for_seconds": "soon"},
    {"who": "a", "reason": "b", "for_seconds": "60"},
    {"who": "a", "reason": "b", "for_seconds": True},
    {"who": "a", "reason": "b", "until": 5},
    {"who": 1, "reason": "b"},
    [],
    None,
    "x",
)


async def test_a_pause_that_makes_no_sense_is_refused_whole(side: Side, ask: Operator) -> None:
    """422 with every fault; nothing is written."""
    for body in NO_PAUSES:
        status, said = await ask("POST", "/api/v1/pauses", body)
        assert (status, said["error"]["code"]) == (422, "bad_body"), body
    assert await side.journal.pauses() == []


async def test_a_lone_surrogate_is_no_500(side: Side) -> None:
    """JSON can spell what no database stores."""
    async with aiohttp.ClientSession(headers=OPERATOR) as client:
        body = b'{"who": "a", "reason": "\\ud800"}'
        async with client.post(f"{side.url}/api/v1/pauses", data=body) as answer:
            assert answer.status == 422
        async with client.post(f"{side.url}/api/v1/pauses", data=b" " * 100_000) as answer:
            assert answer.status == 413


# -- doubts -------------------------------------------------------------------------------------------------


async def test_a_person_settles_a_doubt(side: Side, ask: Operator) -> None:
    """Listed when its duration is over; the word goes into the episode's inbox, for its owner to write down."""
    episode = await write(side.journal, History(NOW - 100).intent(NOW - 60, attempt=DOUBT))
    _, said = await ask("GET", "/api/v1/doubts")
    assert [(one["attempt"], one["episode"], one["resource"]) for one in said["doubts"]] == [
        (DOUBT, episode, "docker:prep/engine")
    ]
    word = {"settlement": "done", "who": "ana", "reason": "I saw it start"}
    status, said = await ask("POST", f"/api/v1/doubts/{DOUBT}/settle", word)
    assert (status, said["episode"]) == (202, episode)
    (row,) = await side.journal.inbox(episode)
    assert (row.kind, json.loads(row.body)) == ("click", {"kind": "settle", "attempt": DOUBT, **word})


async def test_an_attempt_that_may_run_is_not_settled(side: Side, ask: Operator) -> None:
    """Nothing is concluded before its whole duration has passed; it is no doubt yet."""
    episode = await write(side.journal, History().intent(NOW - 1, attempt=DOUBT))
    word = {"settlement": "not_done", "who": "ana", "reason": "x"}
    status, said = await ask("POST", f"/api/v1/doubts/{DOUBT}/settle", word)
    assert (status, said["error"]["code"]) == (409, "still_running")
    assert (await ask("GET", "/api/v1/doubts"))[1] == {"doubts": []}
    assert await side.journal.inbox(episode) == []


async def test_what_is_certain_is_not_settled(side: Side, ask: Operator) -> None:
    """A done attempt has an end; a word against it changes nothing."""
    await write(side.journal, History(NOW - 100).intent(NOW - 60, attempt=DOUBT).outcome(NOW - 50, attempt=DOUBT))
    word = {"settlement": "not_done", "who": "ana", "reason": "x"}
    status, said = await ask("POST", f"/api/v1/doubts/{DOUBT}/settle", word)
    assert (status, said["error"]["code"]) == (409, "not_in_doubt")


async def test_an_unknown_attempt_is_not_found(ask: Operator) -> None:
    """404, whatever stands for its id."""
    word = {"settlement": "done", "who": "ana", "reason": "x"}
    for attempt in ("0" * 32, "x", "%00"):
        assert (await ask("POST", f"/api/v1/doubts/{attempt}/settle", word))[0] == 404


# -- health -------------------------------------------------------------------------------------------------


async def test_readiness_names_what_does_not_hold(side: Side, ask: Operator) -> None:
    """503 and the footing that failed; alive all the while."""
    assert await ask("GET", "/-/ready") == (
        200,
        {"status": "ready", "checks": [{"name": "journal", "ok": True, "detail": "writable"}]},
    )
    side.footings.append(Footing("prometheus", False, "no answer"))
    status, said = await ask("GET", "/-/ready", Authorization="")
    assert (status, said["status"], said["checks"][1]["name"]) == (503, "not ready", "prometheus")
    assert (await ask("GET", "/-/healthy", Authorization=""))[0] == 200


async def test_status_tells_what_needs_a_person(side: Side, ask: Operator) -> None:
    """Mode, open episodes, doubts, pauses, dead letters."""
    await write(side.journal, History(NOW - 100).intent(NOW - 60, attempt=DOUBT))
    await side.journal.dead_letter("not_json", b"{", quota=10)
    await side.journal.pause("all", "ana", "x", None)
    _, said = await ask("GET", "/api/v1/status")
    assert (said["mode"], said["episodes_open"], said["dead_letters"]) == ("shadow", 1, {"not_json": 1})
    assert [one["attempt"] for one in said["doubts"]] == [DOUBT]
    assert [one["scope"] for one in said["pauses"]] == ["all"]
    assert [one["name"] for one in said["runbooks"]] == ["engine-slow"]


async def test_a_journal_that_does_not_answer_is_said(tmp_path: Path) -> None:
    """503 with the way to stop the automation without it."""
    async with serve(tmp_path) as side, aiohttp.ClientSession() as client:
        await side.journal.close()
        side.clean = False
        for method, path in GUARDED:
            if method == "GET" and path not in ("/api/v1/episodes/x", "/api/v1/openapi.json"):
                status, said = await Operator(side, client)(method, path)
                assert (status, said["error"]["code"]) == (503, "journal_failed"), path
                assert "pause file" in said["error"]["do"]
