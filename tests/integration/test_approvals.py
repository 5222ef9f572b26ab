"""Answering the remediator's questions over the API: who may, what is refused, what reaches the episode."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from remediator.events import Kind
from tests.support.episodes import write
from tests.support.http_side import OPERATOR, Side, as_person, serve
from tests.unit.cases import NOW, History
from tests.unit.test_approvals import DIGEST, asked

ADA, BOB, VERA = as_person("ada"), as_person("bob"), as_person("vera")


@pytest.fixture
async def side(tmp_path: Path) -> AsyncIterator[Side]:
    async with serve(tmp_path) as side:
        yield side


class Asker:
    """Asks as somebody; every answer is JSON."""

    def __init__(self, side: Side, client: aiohttp.ClientSession) -> None:
        self.side, self._client = side, client

    async def __call__(self, token: dict[str, str], method: str, path: str, **body: Any) -> tuple[int, Any]:
        url = self.side.url + "/api/v1" + path
        async with self._client.request(method, url, json=body or None, headers=token) as answer:
            return answer.status, await answer.json()

    async def inbox(self, episode: str) -> list[dict[str, Any]]:
        """What the episode's owner will find."""
        return [json.loads(row.body) for row in await self.side.journal.inbox(episode)]


@pytest.fixture
async def ask(side: Side) -> AsyncIterator[Asker]:
    async with aiohttp.ClientSession() as client:
        yield Asker(side, client)


async def question(ask: Asker, history: History | None = None, service: str = "engine") -> tuple[str, str]:
    """A question waits; returns its episode and its id."""
    episode = await write(ask.side.journal, history or asked(), service)
    status, said = await ask(VERA, "GET", "/approvals")
    assert status == 200
    return episode, next(row["id"] for row in said["approvals"] if row["episode"] == episode)


async def test_questions_are_told_whole(ask: Asker) -> None:
    """What, on what, its digest, until when: what a person needs to decide."""
    episode, number = await question(ask)
    (row,) = (await ask(VERA, "GET", "/approvals"))[1]["approvals"]
    assert (row["id"], row["episode"], row["digest"], row["persons"]) == (number, episode, DIGEST, 1)
    assert (row["summary"], row["items"], row["approved_by"]) == ("restart engine", [{"id": "c1"}], [])
    assert row["good_until"] == NOW + 1740
    assert (await ask(VERA, "GET", "/status"))[1]["approvals_waiting"] == 1


async def test_an_answer_reaches_the_episode_with_the_tokens_name(ask: Asker) -> None:
    """Who acts is whose token it is, whatever the request says."""
    episode, number = await question(ask)
    status, said = await ask(ADA, "POST", f"/approvals/{number}/approve", digest=DIGEST[:12], who="somebody else")
    assert (status, said["status"], said["episode"]) == (202, "accepted", episode)
    (click,) = await ask.inbox(episode)
    assert click == {"kind": "approve", "approval": number, "digest": DIGEST, "who": "ada", "reason": ""}


async def test_a_decline_needs_its_reason(ask: Asker) -> None:
    """The next one on call will want to know."""
    episode, number = await question(ask)
    status, said = await ask(ADA, "POST", f"/approvals/{number}/decline", digest=DIGEST)
    assert (status, said["error"]["code"]) == (422, "bad_body")
    assert await ask.inbox(episode) == []
    assert (await ask(ADA, "POST", f"/approvals/{number}/decline", digest=DIGEST, reason="mine"))[0] == 202
    assert (await ask.inbox(episode))[0]["reason"] == "mine"


async def test_a_viewer_answers_nothing(ask: Asker) -> None:
    """403 with what is missing; and reads everything."""
    episode, number = await question(ask)
    for path, body in (
        (f"/approvals/{number}/approve", {"digest": DIGEST}),
        (f"/approvals/{number}/decline", {"digest": DIGEST, "reason": "x"}),
        ("/storm/end", {"reason": "x"}),
        ("/runbooks/engine-slow/restore", {"reason": "x"}),
        ("/pauses", {"scope": "all", "reason": "x"}),
    ):
        status, said = await ask(VERA, "POST", path, **body)
        assert (status, said["error"]["code"]) == (403, "role"), path
    assert await ask.inbox(episode) == []
    assert await ask.side.journal.pauses() == []


async def test_another_digest_is_another_question(ask: Asker) -> None:
    """What would be done now is not what this person has seen."""
    episode, number = await question(ask)
    status, said = await ask(ADA, "POST", f"/approvals/{number}/approve", digest="0" * 12)
    assert (status, said["error"]["code"]) == (409, "digest")
    assert await ask.inbox(episode) == []


async def test_what_is_over_cannot_be_answered(ask: Asker) -> None:
    """Expired, answered, closed, or never asked."""
    _, number = await question(ask, asked(good_until=1e12))
    assert (await ask(ADA, "POST", f"/approvals/{'0' * 32}/approve", digest=DIGEST))[0] == 404
    assert (await ask(ADA, "POST", "/approvals/x/approve", digest=DIGEST))[0] == 404
    late = await write(ask.side.journal, asked(good_until=1.0), "late")
    row = (await ask.side.journal.events(late))[-1]
    status, said = await ask(ADA, "POST", f"/approvals/{row.id}/approve", digest=DIGEST)
    assert (status, said["error"]["code"]) == (409, "expired")
    assert late not in {one["episode"] for one in (await ask(VERA, "GET", "/approvals"))[1]["approvals"]}
    done = asked(good_until=1e12)
    answered = await write(ask.side.journal, done, "answered")
    events = await ask.side.journal.events(answered)
    said_yes = {"approval": events[-1].id, "who": "bob", "reason": ""}
    await ask.side.journal.append(
        [type(events[-1])("f" * 32, answered, len(events) + 1, Kind.APPROVED, await ask.side.journal.now(), said_yes)]
    )
    status, said = await ask(ADA, "POST", f"/approvals/{events[-1].id}/approve", digest=DIGEST)
    assert (status, said["error"]["code"], said["error"]["message"]) == (409, "answered", "bob approved it before.")
    assert (await ask(ADA, "POST", f"/approvals/{number}/approve", digest=DIGEST))[0] == 202


async def test_two_persons_are_two_persons(ask: Asker) -> None:
    """Not one twice, and not a token that several share."""
    history = asked(persons=2)
    approval = history.ledger.approval
    assert approval is not None
    episode, number = await question(ask, history)
    status, said = await ask(OPERATOR, "POST", f"/approvals/{number}/approve", digest=DIGEST, who="ada")
    assert (status, said["error"]["code"]) == (403, "shared_token")
    journal = ask.side.journal
    events = await journal.events(episode)
    yes = type(events[-1])(
        "e" * 32,
        episode,
        len(events) + 1,
        Kind.APPROVED,
        await journal.now(),
        {"approval": number, "who": "ada", "reason": ""},
    )
    await journal.append([yes])
    (row,) = (await ask(VERA, "GET", "/approvals"))[1]["approvals"]
    assert (row["id"], row["approved_by"]) == (number, ["ada"]), "it waits for another one"
    status, said = await ask(ADA, "POST", f"/approvals/{number}/approve", digest=DIGEST)
    assert (status, said["error"]["code"]) == (409, "approved_already")
    assert (await ask(BOB, "POST", f"/approvals/{number}/approve", digest=DIGEST))[0] == 202


async def test_a_storm_and_a_demotion_are_ended_by_people(ask: Asker) -> None:
    """Each with a reason, once; there must be one."""
    journal = ask.side.journal
    assert (await ask(ADA, "POST", "/storm/end", reason="nothing"))[0] == 409
    assert (await ask(ADA, "POST", "/runbooks/engine-slow/restore", reason="nothing"))[0] == 409
    await write(journal, History(NOW - 10))
    assert await journal.turn_storm(1, 600.0) is not None
    await journal.demote("engine-slow", "it failed")
    said = (await ask(VERA, "GET", "/status"))[1]
    assert said["storm"]["most"] == 1
    assert [one["runbook"] for one in said["demoted"]] == ["engine-slow"]
    assert (await ask(ADA, "POST", "/storm/end", reason="one bad scrape"))[0] == 200
    assert (await ask(BOB, "POST", "/runbooks/engine-slow/restore", reason="mended"))[0] == 200
    kinds = [(one.kind.value, one.data.get("who") or one.data.get("by")) for one in await journal.events("remediator")]
    assert kinds[-2:] == [("storm_ended", "ada"), ("restored", "bob")]


async def test_the_journal_verifies_itself(ask: Asker) -> None:
    """Nothing to tell of a sound one."""
    await write(ask.side.journal, History(NOW - 60).diagnosed().intent(NOW - 30).outcome(NOW - 28))
    assert (await ask(VERA, "GET", "/journal/verify"))[1] == {"problems": [], "seal": None, "next": None, "unsealed": 4}
    await ask.side.journal.seal()
    found = (await ask(VERA, "GET", "/journal/verify"))[1]
    newest = found["seal"]
    assert (found["problems"], newest["number"], found["unsealed"]) == ([], 1, 0)
    told = f"1:{newest['digest']}"
    assert (await ask(VERA, "GET", f"/journal/verify?seal={told}"))[1]["problems"] == []
    for other in ("1:123", f"2:{newest['digest']}"):
        assert len((await ask(VERA, "GET", f"/journal/verify?seal={other}"))[1]["problems"]) == 1
    for wrong in ("seal=1", "after=1", f"after=1&seal={told}"):
        assert (await ask(VERA, "GET", f"/journal/verify?{wrong}"))[0] == 400, wrong
