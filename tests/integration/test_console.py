"""The console over a real socket and a real journal: who comes in, what it refuses, what a page holds whatever comes in."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from remediator import settings, tries
from remediator.console import live
from remediator.events import Event, Kind
from tests.support.episodes import deliver, write
from tests.support.http_side import API_TOKEN, Side, serve
from tests.support.http_stubs import Answer, Request, StubServer
from tests.unit.cases import NOW, History
from tests.unit.test_approvals import DIGEST, asked

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>\u202e{{ 7 * 7 }}"
PAGES = ("/console", "/console/journal", "/console/runbooks", "/console/runbooks/engine-slow", "/console/pauses")


@pytest.fixture
async def side(tmp_path: Path) -> AsyncIterator[Side]:
    async with serve(tmp_path) as side:
        yield side


class Person:
    """Somebody with a browser that follows no redirect by itself."""

    def __init__(self, side: Side, client: aiohttp.ClientSession) -> None:
        self.side, self.client = side, client
        self.headers: dict[str, str] = {}

    async def get(self, path: str, **headers: str) -> tuple[int, str, Any]:
        url = self.side.url + path
        async with self.client.get(url, headers={**self.headers, **headers}, allow_redirects=False) as answer:
            return answer.status, await answer.text(), answer.headers

    async def post(
        self, path: str, marked: bool = True, headers: dict[str, str] | None = None, **form: str
    ) -> tuple[int, str, Any]:
        if marked:
            form["csrf"] = await self.csrf()
        url = self.side.url + path
        given = {**self.headers, **(headers or {})}
        async with self.client.post(url, data=form, headers=given, allow_redirects=False) as answer:
            return answer.status, await answer.text(), answer.headers

    async def log_in(self, token: str, **form: str) -> tuple[int, str, Any]:
        return await self.post("/console/login", marked=False, token=token, **form)

    async def csrf(self) -> str:
        _, text, _ = await self.get("/console")
        found = re.search(r'name="csrf" value="([^"]+)"', text)
        assert found is not None, text
        return found[1]


def browser() -> aiohttp.ClientSession:
    """Keeps the cookies of an address without a name."""
    return aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))


@pytest.fixture
async def nobody(side: Side) -> AsyncIterator[Person]:
    async with browser() as client:
        yield Person(side, client)


@pytest.fixture
async def ada(side: Side) -> AsyncIterator[Person]:
    async with browser() as client:
        person = Person(side, client)
        assert (await person.log_in("ada-token"))[0] == 303
        yield person


@pytest.fixture
async def vera(side: Side) -> AsyncIterator[Person]:
    async with browser() as client:
        person = Person(side, client)
        assert (await person.log_in("vera-token"))[0] == 303
        yield person


# -- who comes in -------------------------------------------------------------------------------------------


async def test_nothing_is_shown_without_a_log_in(side: Side, nobody: Person) -> None:
    """Every page leads to the log-in, and says nothing of what is inside; a fragment makes the page load anew."""
    episode = await write(side.journal, History(), "secret-service")
    for path in (
        *PAGES,
        f"/console/episodes/{episode}",
        "/console/live",
        "/console/journal/export",
        f"/console/episodes/{episode}/graph",
    ):
        status, text, _ = await nobody.get(path)
        assert (status, "url=/console/login?next=" in text) == (401, True), path
        assert "EngineSlow" not in text
        status, text, headers = await nobody.get(path, **{"HX-Request": "true"})
        assert (status, headers["HX-Refresh"], text) == (401, "true", ""), path
    assert (await nobody.get("/console", Authorization="Bearer ada-token"))[0] == 401, "a token is no session"


async def test_a_token_opens_a_session_and_its_cookie_is_for_this_site_alone(side: Side, nobody: Person) -> None:
    status, _, headers = await nobody.log_in("ada-token", next="/console/pauses?scope=all")
    assert (status, headers["Location"]) == (303, "/console/pauses?scope=all")
    cookie = headers["Set-Cookie"]
    assert all(word in cookie for word in ("prep-console=", "HttpOnly", "SameSite=Strict", "Path=/"))
    assert "Secure" not in cookie
    status, text, _ = await nobody.get("/console")
    assert status == 200
    assert "ada, operator" in text


@pytest.mark.parametrize(
    "to",
    [
        "https://evil.example/",
        "//evil.example/x",
        "/console/../x y",
        "/api/v1/status",
        "/\\evil",
        "javascript:alert(1)",
    ],
)
async def test_after_the_log_in_nobody_is_led_elsewhere(nobody: Person, to: str) -> None:
    assert (await nobody.log_in("ada-token", next=to))[2]["Location"] == "/console"


async def test_wrong_tokens_are_refused_and_soon_no_token_is_looked_at(nobody: Person) -> None:
    """After five wrong ones not even the right one counts; so an address has five guesses a minute."""
    for number in range(tries.TRIES):
        status, text, headers = await nobody.log_in(f"guess-{number}")
        assert (status, "not a token that is valid" in text) == (403, True)
        assert "Set-Cookie" not in headers
    status, _, headers = await nobody.log_in("ada-token")
    assert status == 429
    assert 0 < int(headers["Retry-After"]) <= tries.WINDOW
    assert "Set-Cookie" not in headers


async def test_guesses_at_the_api_and_at_the_console_are_counted_together(side: Side, nobody: Person) -> None:
    """From one address so many in all; who was right before goes on, also beside somebody's script with an old token."""
    url = side.url + "/api/v1/status"

    async def ask(token: str) -> tuple[int, str]:
        async with nobody.client.get(url, headers={"Authorization": f"Bearer {token}"}) as answer:
            return answer.status, answer.headers.get("Retry-After", "")

    assert (await ask("bob-token"))[0] == 200
    for number in range(tries.TRIES):
        guess = f"guess-{number}"
        status = (await ask(guess))[0] if number % 2 else (await nobody.log_in(guess))[0]
        assert status in (401, 403)
    status, again = await ask("ada-token")
    assert (status, 0 < int(again) <= tries.WINDOW) == (403, True)
    assert (await nobody.log_in("ada-token"))[0] == 429
    assert (await ask("guess"))[1] != ""
    assert (await ask("bob-token"))[0] == 200
    async with nobody.client.get(url) as answer:
        assert answer.status == 401, "no token at all is no guess"


async def test_who_shares_a_token_says_who_he_is(nobody: Person) -> None:
    assert (await nobody.log_in(API_TOKEN))[0] == 422
    assert (await nobody.log_in(API_TOKEN, name="Grace"))[0] == 303
    assert "Grace (shared token), operator" in (await nobody.get("/console"))[1]


async def test_a_session_ends_with_the_log_out_with_its_time_and_with_its_token(side: Side, tmp_path: Path) -> None:
    async with browser() as client:
        person = Person(side, client)
        await person.log_in("ada-token")
        cookies = [f"{each.key}={each.value}" for each in client.cookie_jar]
        assert (await person.post("/console/logout"))[0] == 303
        assert (await person.get("/console", Cookie="; ".join(cookies)))[0] == 401, "an old cookie opens nothing"
        await person.log_in("ada-token")
        assert (await person.get("/console"))[0] == 200
        (tmp_path / "ada-token").write_text("another\n")
        assert (await person.get("/console"))[0] == 401, "the token was taken away"
    brief = settings.Console(session="60s")
    (tmp_path / "other").mkdir()
    async with serve(tmp_path / "other", console=brief) as other, browser() as client:
        person = Person(other, client)
        await person.log_in("ada-token")
        for session in other.console._sessions._open.values():
            session.began -= 61
        assert (await person.get("/console"))[0] == 401


async def test_behind_tls_the_cookie_is_secure(tmp_path: Path) -> None:
    """By its name too: a browser takes it from an encrypted connection only."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    tls = settings.Tls(cert_file=tmp_path / "cert.pem", key_file=tmp_path / "key.pem")
    async with serve(tmp_path, tls=tls) as side, browser() as client:
        url = side.url + "/console/login"
        async with client.post(url, data={"token": "ada-token"}, ssl=False, allow_redirects=False) as answer:
            cookie = answer.headers["Set-Cookie"]
        assert cookie.startswith("__Host-prep-console=")
        assert "Secure" in cookie
        async with client.get(side.url + "/console", ssl=False) as answer:
            assert answer.status == 200


async def test_a_proxy_is_believed_by_its_address_only(tmp_path: Path) -> None:
    """The header opens nothing without the setting, from elsewhere, or for whom `operators` does not name."""
    header = {"X-Forwarded-User": "ada", "X-Forwarded-Proto": "https"}
    near = settings.ConsoleProxy(addresses=("127.0.0.0/8",), user_header="X-Forwarded-User")
    far = settings.ConsoleProxy(addresses=("192.0.2.1",), user_header="X-Forwarded-User")
    for number, (proxy, opens) in enumerate(((None, False), (far, False), (near, True))):
        (tmp_path / str(number)).mkdir()
        async with serve(tmp_path / str(number), console=settings.Console(proxy=proxy)) as side, browser() as client:
            person = Person(side, client)
            status, _, headers = await person.get("/console/login", **header)
            assert (status == 303, "Set-Cookie" in headers) == (opens, opens), proxy
            if not opens:
                continue
            cookie = headers["Set-Cookie"].partition(";")[0]
            assert "Secure" in headers["Set-Cookie"]
            assert (await person.get("/console", Cookie=cookie, **header))[0] == 200
            assert (await person.get("/console", Cookie=cookie, **{**header, "X-Forwarded-User": "bob"}))[0] == 401
            assert (await person.get("/console", Cookie=cookie, **{"X-Forwarded-Proto": "https"}))[0] == 401
            assert (await person.get("/console/login", **{**header, "X-Forwarded-User": "mallory"}))[0] == 200


# -- what a form may ----------------------------------------------------------------------------------------


async def question(side: Side, service: str = "engine", history: History | None = None) -> tuple[str, str]:
    """A question waits; its episode and its id."""
    episode = await write(side.journal, history or asked(good_until=NOW + 3600), service)
    return episode, (await side.journal.events(episode))[-1].id


async def clicks(side: Side, episode: str) -> list[dict[str, Any]]:
    return [json.loads(row.body) for row in await side.journal.inbox(episode)]


async def test_an_answer_reaches_the_episode_with_the_name_of_the_token(side: Side, ada: Person) -> None:
    episode, number = await question(side)
    text = unescape((await ada.get("/console"))[1])
    assert all(word in text for word in (DIGEST[:12], "restart engine", "c1", "Good until"))
    status, _, headers = await ada.post(f"/console/approvals/{number}/approve", digest=DIGEST, who="somebody else")
    assert (status, headers["Location"]) == (303, f"/console/episodes/{episode}")
    (click,) = await clicks(side, episode)
    assert click == {"kind": "approve", "approval": number, "digest": DIGEST, "who": "ada", "reason": ""}
    assert "Your yes is taken" in (await ada.get(f"/console/episodes/{episode}"))[1]


async def test_a_page_that_is_not_there_is_told_in_the_consoles_own_words(ada: Person) -> None:
    """A mistyped link still has the way back around it."""
    status, text, headers = await ada.get("/console/episods")
    assert (status, headers["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert "The console has no such page." in text
    assert 'href="/console/journal"' in text


async def test_a_form_from_elsewhere_does_nothing(side: Side, ada: Person) -> None:
    """Without the session's mark, with another's, from another site, or as something that is no form."""
    episode, number = await question(side)
    path = f"/console/approvals/{number}/approve"
    mark = await ada.csrf()
    for form, headers in (
        ({}, {}),
        ({"csrf": "x" * 43}, {}),
        ({"csrf": mark}, {"Origin": "https://evil.example"}),
        ({"csrf": mark}, {"Sec-Fetch-Site": "cross-site"}),
        ({"csrf": mark}, {"Sec-Fetch-Site": "same-site"}),
    ):
        status, text, _ = await ada.post(path, marked=False, headers=headers, digest=DIGEST, **form)
        assert (status, "Not done" in text) == (403, True), (form, headers)
    async with ada.client.post(side.url + path, json={"csrf": mark, "digest": DIGEST}) as answer:
        assert answer.status == 415
    assert await clicks(side, episode) == []
    assert (await ada.post(path, digest=DIGEST, headers={"Origin": side.url}))[0] == 303


async def test_a_viewer_sees_all_and_does_nothing(side: Side, vera: Person) -> None:
    episode, number = await question(side)
    text = (await vera.get("/console"))[1]
    assert "reads only" in text
    assert "Approve" not in text
    for path, form in (
        (f"/console/approvals/{number}/approve", {"digest": DIGEST}),
        (f"/console/approvals/{number}/decline", {"digest": DIGEST, "reason": "x"}),
        ("/console/pauses", {"scope": "all", "for": "1h", "reason": "x"}),
        ("/console/pauses/1/end", {}),
        ("/console/storm/end", {"reason": "x"}),
        ("/console/runbooks/engine-slow/restore", {"reason": "x"}),
        (f"/console/doubts/{'a' * 32}/settle", {"settlement": "done", "reason": "x"}),
    ):
        status, said, _ = await vera.post(path, **form)
        assert (status, "role viewer" in said) == (403, True), path
    assert await clicks(side, episode) == []
    assert await side.journal.pauses() == []


async def test_another_digest_no_reason_and_what_is_over_are_refused(side: Side, ada: Person) -> None:
    episode, number = await question(side)
    assert (await ada.post(f"/console/approvals/{number}/approve", digest="0" * 64))[0] == 409
    assert (await ada.post(f"/console/approvals/{number}/decline", digest=DIGEST, reason=" "))[0] == 422
    assert (await ada.post(f"/console/approvals/{'f' * 32}/approve", digest=DIGEST))[0] == 404
    late, gone = await question(side, "late", asked(good_until=1.0))
    assert (await ada.post(f"/console/approvals/{gone}/approve", digest=DIGEST))[0] == 409
    assert [await clicks(side, each) for each in (episode, late)] == [[], []]


async def test_a_pause_needs_its_end_and_its_reason_and_is_journaled(side: Side, ada: Person) -> None:
    for form in (
        {"scope": "all", "reason": "x"},
        {"scope": "all", "for": "99d", "reason": "x"},
        {"scope": "all", "for": "1h", "reason": ""},
        {"scope": "all", "for": "1h", "reason": "x", "name": "engine"},
        {"scope": "runbook", "for": "1h", "reason": "x", "name": "no-such"},
        {"scope": "runbook", "for": "1h", "reason": "x"},
    ):
        assert (await ada.post("/console/pauses", **form))[0] == 422, form
    assert await side.journal.pauses() == []
    form = {"scope": "runbook", "name": "engine-slow", "for": "1h", "reason": "deploying"}
    assert (await ada.post("/console/pauses", **form))[0] == 303
    (pause,) = await side.journal.pauses()
    assert (pause.scope, pause.who, pause.reason) == ("runbook:engine-slow", "ada", "deploying")
    assert pause.until == pytest.approx(time.time() + 3600, abs=30)
    text = (await ada.get("/console"))[1]
    assert "runbook:engine-slow" in text
    assert (await ada.post(f"/console/pauses/{pause.id}/end"))[0] == 303
    assert await side.journal.pauses() == []
    told = unescape((await ada.get("/console/journal?kind=people"))[1])
    assert "Paused (runbook:engine-slow) by ada" in told
    assert f"Pause {pause.id} ended by ada" in told


async def test_storm_and_demotion_are_ended_by_name(side: Side, ada: Person) -> None:
    for number in range(2):
        await write(side.journal, History(), f"s{number}")
    await side.journal.turn_storm(2, 3600.0)
    await side.journal.demote("engine-slow", "three of its last ten were not fixed")
    text = (await ada.get("/console"))[1]
    assert "Storm" in text
    assert "three of its last ten" in text
    assert (await ada.post("/console/storm/end", reason="one cause, mended"))[0] == 303
    assert (await ada.post("/console/runbooks/engine-slow/restore", reason="it was the network"))[0] == 303
    told = (await ada.get("/console/journal?kind=people"))[1]
    assert "ada says so: one cause, mended" in told
    assert "ada lets runbook engine-slow act again" in told
    assert (await ada.post("/console/storm/end", reason="again"))[0] == 409


# -- what comes from outside --------------------------------------------------------------------------------


async def test_markup_in_an_alert_is_text(side: Side, ada: Person) -> None:
    """In labels, annotations, sentences and names; no template runs, no direction is turned, no address is a script."""
    history = History(team=EVIL)
    alert = dict(history.events[0].data["alert"])
    alert["annotations"] = {
        "summary": EVIL,
        "bad": "javascript:alert(1)",
        "runbook_url": "https://wiki.example/a?b=1&c=2",
    }
    history.events[0] = Event(
        "1" * 32, "e1", 1, Kind.OPENED, NOW, {**history.events[0].data, "alert": alert, "target": {"service": EVIL}}
    )
    history.add(Kind.REFUSED, NOW, reason="paused", sentence=f"Paused: {EVIL}", earliest=None, rung="mild")
    episode = await write(side.journal, history)
    for path in ("/console", f"/console/episodes/{episode}", "/console/journal", "/console/runbooks/engine-slow"):
        status, text, headers = await ada.get(path)
        assert status == 200, path
        assert "<script>alert" not in text, path
        assert "<img" not in text, path
        assert "\u202e" not in text, path
        assert ">49<" not in text, path
        assert "script-src 'self'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
    text = (await ada.get(f"/console/episodes/{episode}"))[1]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "{{ 7 * 7 }}" in text
    assert 'href="javascript' not in text
    assert 'href="https://wiki.example/a?b=1&amp;c=2"' in text


async def test_pages_say_why_nothing_was_done_and_what_each_guardrail_said(side: Side, ada: Person) -> None:
    sentence = "The alert is silenced: by s1."
    answers = {"stale": "", "journal_regressed": "", "paused": "", "rule": "", "muted": sentence}
    refused = {"reason": "muted", "sentence": sentence, "earliest": None, "rung": "mild", "answers": answers}
    history = History().add(Kind.REFUSED, NOW, **refused)
    episode = await write(side.journal, history)
    text = unescape((await ada.get(f"/console/episodes/{episode}"))[1])
    assert "Why did you not act?" in text
    assert "silenced or inhibited" in text
    rows = dict(re.findall(r"<td>([a-z ]+)</td><td>((?:✓ passed|■ refused|not asked)[^<]*)</td>", text))
    assert (rows["rule"], rows["muted"], rows["cooldown"]) == ("✓ passed", f"■ refused: {sentence}", "not asked")
    assert "clock skew" in rows


async def test_a_runbooks_page_brings_its_shadow_report(side: Side, ada: Person) -> None:
    """The words of the API's report, escaped; made once in a while, whoever asks."""
    what = {"rung": "mild", "action": "restart_service", "resource": "r", "params": {}, "items": [], "summary": EVIL}
    await write(side.journal, History().add(Kind.WOULD_ACT, NOW - 20, **what))
    assert "/console/runbooks/engine-slow/shadow" in (await ada.get("/console/runbooks/engine-slow"))[1]
    status, text, _ = await ada.get("/console/runbooks/engine-slow/shadow")
    assert (status, "engine-slow is not ready" in text, "What these words count" in text) == (200, True, True)
    assert "it would have done this" in text
    assert "<script>alert" not in text
    assert (await ada.get("/console/runbooks/none-such/shadow"))[0] == 404


async def test_every_page_forbids_what_is_not_ours(side: Side, ada: Person) -> None:
    """No page may be framed, kept, or run anything inline; and none has anything inline."""
    episode, _ = await question(side)
    for path in (
        *PAGES,
        f"/console/episodes/{episode}",
        "/alerts/ContainerUnhealthy",
        "/console/nothing-here-404/x",
        "/console/login",
    ):
        status, text, headers = await ada.get(path, Accept="text/html")
        if status not in (200, 303):
            continue
        assert headers["Content-Security-Policy"].startswith("default-src 'none'"), path
        assert (headers["X-Frame-Options"], headers["Cache-Control"]) == ("DENY", "no-store"), path
        assert not re.search(r"<script(?![^>]*src=)|\sstyle=|\son[a-z]+=", text), path


async def test_our_own_files_and_no_others(ada: Person) -> None:
    for name, kind in (("console.css", "text/css"), ("htmx.min.js", "text/javascript"), ("icon.svg", "image/svg+xml")):
        status, _, headers = await ada.get(f"/console/static/{name}")
        assert (status, headers["Content-Type"].partition(";")[0]) == (200, kind)
    for name in ("console.py", "..%2fconsole.py", "..", "templates"):
        assert (await ada.get(f"/console/static/{name}"))[0] == 404, name


async def test_an_alerts_page_is_for_everybody(nobody: Person, ada: Person) -> None:
    """A browser gets a page, anything else the text as it is; who is logged in sees the automation too."""
    status, text, headers = await nobody.get("/alerts/ContainerUnhealthy")
    assert (status, headers["Content-Type"].partition(";")[0]) == (200, "text/plain")
    assert text.startswith("# ContainerUnhealthy")
    status, text, _ = await nobody.get("/alerts/ContainerUnhealthy", Accept="text/html")
    assert (status, "<h2>Meaning</h2>" in text, "The automation" in text) == (200, True, False)
    assert "The automation" in (await ada.get("/alerts/ContainerUnhealthy", Accept="text/html"))[1]


# -- much, slow, and the end ----------------------------------------------------------------------------------


async def test_pages_are_bounded(side: Side, ada: Person) -> None:
    """A page of open episodes, and a long episode cut in the middle; what is not shown is said."""
    for number in range(53):
        await deliver(side.journal, f"s{number}")
    text = (await ada.get("/console"))[1]
    assert text.count('id="to-') == 50
    assert "page 1 of 2" in text
    assert (await ada.get("/console?page=2"))[1].count('id="to-') == 3
    assert (await ada.get("/console?page=99999999"))[0] == 200
    history = History()
    for number in range(300):
        history.add(Kind.REFUSED, NOW, reason="paused", sentence=f"Paused {number}.", earliest=None, rung="mild")
    episode = await write(side.journal, history, "long")
    text = (await ada.get(f"/console/episodes/{episode}"))[1]
    assert text.count('<li class="event') == 200
    assert "101 events after the first one are not shown" in text
    assert (await ada.get(f"/console/episodes/{episode}?all=1"))[1].count('<li class="event') == 301


async def test_the_journal_goes_back_page_by_page_and_is_exported_whole(side: Side, ada: Person) -> None:
    """Every event once, in order; the filter holds for pages and export alike."""
    for number in range(12):
        history = History()
        for _ in range(9):
            history.add(Kind.REFUSED, NOW, reason="muted", sentence="Muted.", earliest=None, rung="mild")
        await write(side.journal, history, f"s{number}")
    seen: list[str] = []
    path = "/console/journal"
    while path:
        _, text, _ = await ada.get(path)
        seen += re.findall(r'href="/console/episodes/([0-9a-f-]+#event-\d+)"', text)
        older = re.search(r'href="(/console/journal\?[^"]*before=[^"]*)"', text)
        path = unescape(older[1]) if older else ""
    assert len(seen) == len(set(seen)) == 120
    _, text, headers = await ada.get("/console/journal/export")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [f"{line['episode']}#event-{line['seq']}" for line in lines] == seen
    assert "attachment" in headers["Content-Disposition"]
    only = (await ada.get("/console/journal/export?kind=refusals&runbook=engine-slow&days=1"))[1]
    assert {json.loads(line)["kind"] for line in only.splitlines()} == {"refused"}
    assert len(only.splitlines()) == 108
    assert (await ada.get("/console/journal/export?runbook=none-such"))[1] == ""
    for wrong in ("kind=nonsense", "before=x", "episode=%27", "days=3", f"runbook={'x' * 99}"):
        assert (await ada.get(f"/console/journal?{wrong}"))[0] == 400, wrong


class _SlowPrometheus(StubServer):
    """Answers after longer than anybody waits."""

    def answer(self, request: Request) -> Answer:
        return Answer(200, b"{}")


async def test_a_slow_prometheus_holds_no_page_up(tmp_path: Path) -> None:
    """The page is there at once; its line says after the timeout that there is none."""
    with _SlowPrometheus() as slow:
        slow.delay = 5.0
        async with serve(tmp_path, prometheus=slow.url) as side, browser() as client:
            ada = Person(side, client)
            await ada.log_in("ada-token")
            episode = await write(side.journal, History())
            began = time.monotonic()
            status, text, _ = await ada.get(f"/console/episodes/{episode}")
            assert (status, time.monotonic() - began < 1.0) == (200, True)
            assert f"/console/episodes/{episode}/graph" in text
            status, text, _ = await ada.get(f"/console/episodes/{episode}/graph")
            assert (status, "No line: " in text, time.monotonic() - began < 4.0) == (200, True, True)


async def test_streams_tell_of_a_change_are_bounded_and_end_with_the_session(side: Side, ada: Person) -> None:
    """A change within two seconds; one person has so many and no more; after the log-out there is none."""
    async with ada.client.get(side.url + "/console/live") as first:
        assert first.headers["Content-Type"].startswith("text/event-stream")
        assert await first.content.readuntil(b"\n\n") == b"retry: 3000\n\n"
        assert b"event: change" in await first.content.readuntil(b"\n\n")
        await asyncio.sleep(1.2)  # what the watcher found when it began
        await deliver(side.journal, "new")
        async with asyncio.timeout(4):
            assert b"event: change" in await first.content.readuntil(b"\n\n")
        more = [await ada.client.get(side.url + "/console/live") for _ in range(live.MOST_EACH - 1)]
        try:
            assert {each.status for each in more} == {200}
            assert side.console.live.count == live.MOST_EACH
            async with ada.client.get(side.url + "/console/live") as refused:
                assert refused.status == 503
            assert (await ada.post("/console/logout"))[0] == 303
            async with asyncio.timeout(5):
                await first.content.read()  # to its end
        finally:
            for each in more:
                each.close()
    for _ in range(100):
        if side.console.live.count == 0:
            break
        await asyncio.sleep(0.05)
    assert side.console.live.count == 0


async def test_who_goes_from_page_to_page_is_never_one_too_many(side: Side, ada: Person) -> None:
    """A stream whose reader has gone is over within two seconds, though nothing changes meanwhile."""
    for _ in range(2):
        for _ in range(live.MOST_EACH):
            async with ada.client.get(side.url + "/console/live") as stream:
                assert stream.status == 200
                await stream.content.readuntil(b"\n\n")
                stream.close()
        await asyncio.sleep(2.5)
        assert side.console.live.count == 0


async def test_streams_end_at_shutdown(tmp_path: Path) -> None:
    """At once, and cleanly: the server waits for nobody who only watches."""
    async with browser() as client:
        async with serve(tmp_path) as side:
            person = Person(side, client)
            await person.log_in("ada-token")
            answer = await client.get(side.url + "/console/live")
            await answer.content.readuntil(b"\n\n")
            began = time.monotonic()
        assert time.monotonic() - began < 3.0
        async with asyncio.timeout(2):
            await answer.content.read()
        answer.close()


async def test_a_journal_that_does_not_answer_is_said(side: Side, ada: Person) -> None:
    """503 with what to do, and never a trace of the program."""
    await side.journal.close()
    side.clean = False
    status, text, _ = await ada.get("/console/journal")
    assert (status, "The journal cannot be used now" in text, "Traceback" in text) == (503, True, False)
