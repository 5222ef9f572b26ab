"""The console in a real browser, over the whole chain: Prometheus, Alertmanager, the program as it ships, a gate, containers.

What people see and click, and what becomes of it at the target. `PREP_SCREENSHOTS=docs/console` keeps what it looked like.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Page, expect

from remediator.console.checks import ORDER
from tests.support.browser import Chromium, Person, audit
from tests.support.docker_engine import DockerEngine
from tests.support.remediation import ROOT, Remediator, SickService, World, restart_book, service_entries
from tests.support.run import Run
from tests.support.waiting import fetch, wait_until

DRILL, YES, NO, BOTH, HELD, LATE = "drill", "yes", "no", "both", "held", "late"
ROLES = {"ada": "operator", "bob": "operator", "vera": "viewer"}
PATIENCE = 60_000  # milliseconds for what the engine does; pages themselves are quick


class Scene:
    """The chain, a remediator that acts and one that asks, and people before their screens."""

    def __init__(self, world: World, chromium: Chromium, stack: ExitStack) -> None:
        self.world, self.chromium = world, chromium
        names = (DRILL, YES, NO, BOTH, HELD, LATE)
        self.services: dict[str, SickService] = {name: world.service(name) for name in names}
        self.acting = self._remediator([DRILL], "auto")
        self.asking = self._remediator(names[1:], "approve")
        for each in (self.acting, self.asking):
            stack.enter_context(each)
        world.deliver(DRILL, self.acting)
        for name in names[1:]:
            world.deliver(name, self.asking)

    def _remediator(self, names: Any, mode: str) -> Remediator:
        services = [self.services[name] for name in names]
        changes = {"settle": "3s"} if mode == "auto" else {"approve_within": "60s"}
        book = restart_book(names, **changes) | {"title": "Restart a sick service"}
        book["proof"]["checks"] = [{"name": "well", "query": "prep_service_sick", "by": ["service"], "below": 1}]
        book["match"]["alertnames"] = ["ServiceSick"]  # the other alert of these has no runbook here
        made = Remediator(self.world, [book], name=f"console-{mode}", services=service_entries(services), mode=mode)
        settings = yaml.safe_load(made.config.read_text())
        settings["alert_pages"] = str(ROOT / "docs" / "alerts")
        settings["operators"] = {}
        for name, role in ROLES.items():
            token = made.folder / f"{name}-token"
            token.write_text(f"{name}-token\n")
            settings["operators"][name] = {"token_files": [str(token)], "role": role}
        made.config.write_text(yaml.safe_dump(settings))
        return made


@pytest.fixture(scope="module")
def scene(run: Run, docker_engine: DockerEngine) -> Iterator[Scene]:
    with ExitStack() as stack:
        world = stack.enter_context(World(run, docker_engine, [DRILL, YES, NO, BOTH, HELD, LATE]))
        yield Scene(world, stack.enter_context(Chromium(run)), stack)


def enter(person: Person, remediator: Remediator, name: str) -> Page:
    """Log in as somebody with the keyboard alone; the page of what is now, which follows."""
    page = person.page
    page.goto(f"{remediator.url}/console")
    assert [fault for fault in person.faults if "401" not in fault] == []
    person.faults.clear()  # that the first answer was "log in first" is told as an error
    page.get_by_label("Your token").fill(f"{name}-token")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Now", exact=True)).to_be_visible()
    expect(page.locator("#link")).to_have_text("● Live")
    return page


def keep(person: Person, name: str, *, whole: bool = False) -> None:
    """A picture for the docs, where somebody wants them."""
    if folder := os.environ.get("PREP_SCREENSHOTS"):
        person.shot(Path(folder) / f"{name}.png", whole=whole)


def follow(page: Page) -> Callable[[], bool]:
    """Marks the page; the answer tells whether it has never been loaded anew since."""
    page.evaluate("() => { window.sameAsBefore = true }")
    return lambda: bool(page.evaluate("() => window.sameAsBefore === true"))


def episode_of(remediator: Remediator, service: str) -> dict[str, Any]:
    """The latest episode of a service that has begun."""

    def found() -> list[dict[str, Any]]:
        rows = remediator.ask("episodes?limit=50")["episodes"]
        return [
            row
            for row in rows
            if (events := remediator.events(row["id"]))
            and events[0]["data"].get("target", {}).get("service") == service
        ]

    return wait_until(found, f"an episode of {service}", 40, 0.2, remediator.story)[-1]


def asked(page: Page, service: SickService) -> Any:
    """The card of a service's question, once it is there."""
    card = page.locator("article.question", has_text=f"docker:{service.project}/{service.name}")
    expect(card).to_be_visible(timeout=PATIENCE)
    return card


def not_taken(remediator: Remediator, episode: str) -> list[dict[str, Any]]:
    """Clicks about an episode that the journal tells as not taken."""
    return list(remediator.ask(f"episodes/{episode}")["not_taken"])


def press(page: Page, key: str = "Enter") -> None:
    """Send an answer by keyboard; once more where the list had just moved, which holds it back."""
    for _ in range(6):
        page.keyboard.press(key)
        page.wait_for_timeout(500)
        if "/console/episodes/" in page.url:
            return
        page.wait_for_timeout(700)
    raise AssertionError("the answer was never sent")


def test_a_drill_is_watched_to_its_end_without_a_reload(scene: Scene) -> None:
    """From the alert to the proof on one page that nobody touches; the line has its marks, times are in two zones."""
    with scene.chromium.person() as person:
        page = enter(person, scene.acting, "vera")
        expect(page.get_by_text("No episode is open.")).to_be_visible()
        same = follow(page)
        scene.services[DRILL].sicken()
        row = page.get_by_role("link", name="ServiceSick")
        expect(row.first).to_be_visible(timeout=PATIENCE)
        assert same(), "the list was loaded anew"
        row.first.click()
        expect(page.get_by_role("heading", name="ServiceSick")).to_be_visible()
        same = follow(page)
        timeline = page.locator(".timeline")
        expect(timeline.get_by_text("Proven fixed").first).to_be_visible(timeout=PATIENCE)
        expect(timeline.locator(".event", has_text="Closed")).to_be_visible(timeout=PATIENCE)
        expect(page.locator("svg[role=img] .curve").first).to_be_attached(timeout=PATIENCE)
        expect(page.locator(".marks", has_text="acts: restart service")).to_be_attached(timeout=PATIENCE)
        assert same(), "the episode was loaded anew"
        first = timeline.locator("time").first
        utc, shown = first.get_attribute("title"), first.inner_text()
        assert utc is not None
        assert utc.endswith("UTC")
        assert "UTC" in shown
        assert shown[:2] == f"{(int(utc[11:13]) + 1) % 24:02}", (shown, utc)
        keep(person, "episode")
        details = timeline.locator("details").first
        details.locator("summary").click()
        expect(details.get_by_text("Labels").first).to_be_visible()
        acts = timeline.locator(".event", has_text="Begins restart_service on")
        acts.locator("summary").click()
        expect(acts.locator("tr.check-passed")).to_have_count(len(ORDER))
        assert person.faults == []
    assert scene.services[DRILL].effects == 1


def test_an_approval_is_given_by_keyboard(scene: Scene) -> None:
    """Digest, preview and expiry are in view; the yes is one restart, proven, on the page that stays."""
    service = scene.services[YES]
    service.sicken()
    with scene.chromium.person(dark=True) as person:
        page = enter(person, scene.asking, "ada")
        card = asked(page, service)
        for text in (service.container.name, "Good until", "left)", "Persons needed"):
            expect(card).to_contain_text(text)
        digest = card.locator(".digest b").inner_text()
        assert len(digest) == 12
        keep(person, "now-dark")
        assert audit(page) == []
        page.wait_for_timeout(1000)  # a list that has just moved takes no answer
        card.get_by_label("A word with the yes").focus()
        page.keyboard.type("seen the logs")
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement.textContent").strip() == f"✓ Approve {digest}"
        press(page)
        expect(page.get_by_text("Your yes is taken.")).to_be_visible()
        same = follow(page)
        timeline = page.locator(".timeline")
        expect(timeline.get_by_text("ada approved it: seen the logs")).to_be_visible(timeout=PATIENCE)
        expect(timeline.get_by_text("Proven fixed").first).to_be_visible(timeout=PATIENCE)
        assert same()
        assert person.faults == []
    assert service.effects == 1
    kinds = scene.asking.kinds(episode_of(scene.asking, YES)["id"])
    assert (kinds.count("approved"), kinds.count("intent")) == (1, 1)


def test_another_is_declined_and_what_was_typed_outlives_the_updates(scene: Scene) -> None:
    """The page is renewed under the hands of who types; without a reason the browser sends nothing."""
    service = scene.services[NO]
    service.sicken()
    with scene.chromium.person(phone=True) as person:
        page = enter(person, scene.asking, "bob")
        card = asked(page, service)
        keep(person, "now-phone")
        reason = card.get_by_label("Why not (needed)")
        reason.scroll_into_view_if_needed()
        reason.fill("not what I meant")
        page.evaluate(
            """() => { document.querySelector("#live h1").remove(); document.dispatchEvent(new Event("htmx:afterSwap")) }"""
        )
        card.get_by_role("button", name="Decline").click()
        expect(card.get_by_text("Not sent: the page has just changed.")).to_be_visible()
        reason.fill("")
        page.wait_for_timeout(1000)
        card.get_by_role("button", name="Decline").click()
        expect(card).to_be_visible()
        reason.fill("I restart it ")
        version = page.locator("#page").element_handle()
        assert version is not None
        scene.asking.post("nobody-knows", alertname="ServiceStalled")
        page.wait_for_function("old => !old.isConnected", arg=version, timeout=PATIENCE)
        page.keyboard.type("by hand")
        expect(reason).to_have_value("I restart it by hand")
        assert audit(page) == []
        reason.focus()
        press(page)
        expect(page.locator(".timeline").get_by_text("bob declined it: I restart it by hand").first).to_be_visible(
            timeout=PATIENCE
        )
        expect(page.get_by_text("Why did you not act?")).to_be_visible()
        assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth"), "it scrolls sideways"
        assert person.faults == []
    assert service.effects == 0


TAKE = """(button, reason) => {
  const form = button.form.cloneNode(true);
  const field = form.elements.namedItem("reason");
  if (field) field.value = reason;
  form.id = "taken";
  form.hidden = true;
  document.body.append(form);
}"""
"""The form as it was on the page, set aside: a change of the page takes the form itself away, and what was typed with it."""
SEND = "() => document.getElementById('taken').submit()"


def test_two_click_at_once_and_one_wins(scene: Scene) -> None:
    """One says yes, the other no: what counted is what both are shown, and what happened."""
    service = scene.services[BOTH]
    service.sicken()
    with scene.chromium.person() as one, scene.chromium.person() as other:
        pages = {"ada": enter(one, scene.asking, "ada"), "bob": enter(other, scene.asking, "bob")}
        buttons = {
            "ada": asked(pages["ada"], service).locator("button.go"),
            "bob": asked(pages["bob"], service).locator("button.stop"),
        }
        row = episode_of(scene.asking, BOTH)
        for button in buttons.values():
            button.evaluate(TAKE, "not now")
        for page in pages.values():  # past the page's own wait after a change; both go before either is answered
            page.evaluate(SEND)
        for page in pages.values():
            expect(page).to_have_url(re.compile("/console/(episodes|approvals)/"))  # each was sent, and has its answer

        def answers() -> list[dict[str, Any]]:
            return [event for event in scene.asking.events(row["id"]) if event["kind"] in ("approved", "declined")]

        (answer,) = wait_until(answers, "an answer", 30, 0.2, scene.asking.story)
        if answer["kind"] == "approved":
            wait_until(lambda: service.effects == 1, "the restart", 30, 0.2, scene.asking.story)
        else:
            scene.asking.wait_reason("declined")
        (lost,) = wait_until(lambda: not_taken(scene.asking, row["id"]), "the other click", 30, 0.2, scene.asking.story)
        first = answer["data"]["who"]
        second = "bob" if first == "ada" else "ada"
        assert (lost["data"]["who"], lost["data"]["code"]) == (second, "answered")
        assert lost["data"]["sentence"].startswith(f"{first} ")
        for page in pages.values():
            page.goto(f"{scene.asking.url}/console/episodes/{row['id']}")
            expect(page.locator(".timeline").get_by_text(answer["sentence"]).first).to_be_visible()
            expect(page.get_by_text(lost["sentence"])).to_be_visible()
        time.sleep(2)
        assert len(answers()) == 1
        assert len(not_taken(scene.asking, row["id"])) == 1
        assert service.effects == (1 if answer["kind"] == "approved" else 0)


def test_a_pause_stops_the_next_one(scene: Scene) -> None:
    """Nothing is asked and nothing done while it holds, the page says why; its end lets it go on."""
    service = scene.services[HELD]
    with scene.chromium.person() as person:
        page = enter(person, scene.asking, "ada")
        page.get_by_role("link", name="Pauses").click()
        page.get_by_label("Its name").fill(HELD)
        page.get_by_label("What", exact=True).select_option("service")
        page.get_by_label("Why (needed)").fill("deploying")
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_role("heading", name=f"service:{HELD}")).to_have_count(0)  # without an end nothing is sent
        page.get_by_label("For how long").select_option("30m")
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_role("heading", name=f"service:{HELD}")).to_be_visible()
        assert audit(page) == []
        service.sicken()
        row = episode_of(scene.asking, HELD)
        page.goto(f"{scene.asking.url}/console/episodes/{row['id']}")
        expect(page.locator(".why")).to_contain_text("a person has paused the automation here", timeout=PATIENCE)
        assert "needs_approval" not in scene.asking.kinds(row["id"])
        assert service.effects == 0
        page.get_by_role("link", name="Pauses").click()
        page.get_by_role("button", name="Resume").click()
        expect(page.get_by_text("Nothing is paused.")).to_be_visible()
        page.get_by_role("link", name="Now").click()
        asked(page, service)
        page.get_by_role("link", name="Journal").click()
        said = page.get_by_role("table")
        expect(said).to_contain_text(f"Paused (service:{HELD}) by ada")
        expect(said).to_contain_text("ended by ada")
        assert person.faults == []


def test_a_viewer_is_shown_no_button_and_every_page_is_sound(scene: Scene) -> None:
    """axe finds nothing serious on any page, in light and dark, wide and narrow; nothing scrolls sideways."""
    row = episode_of(scene.asking, NO)
    pages = {
        "login": "/console/login",
        "now": "/console",
        "episode": f"/console/episodes/{row['id']}",
        "runbooks": "/console/runbooks",
        "runbook": "/console/runbooks/restart",
        "journal": "/console/journal",
        "pauses": "/console/pauses",
        "alert": "/alerts/ContainerUnhealthy",
        "missing": "/console/episodes/none",
    }
    for phone, dark in ((False, False), (True, True)):
        with scene.chromium.person(phone=phone, dark=dark) as person:
            page = person.page
            page.goto(scene.asking.url + pages["login"])
            assert audit(page) == []
            enter(person, scene.asking, "vera")
            for name, path in list(pages.items())[1:]:
                page.goto(scene.asking.url + path)
                if name == "runbook":
                    expect(page.get_by_text("What these words count")).to_be_visible()
                if name == "episode":
                    expect(page.get_by_text("Prometheus is asked")).to_have_count(0)
                for each in page.locator("details").all()[:3]:
                    each.evaluate("each => { each.open = true }")
                assert audit(page) == [], (name, phone, dark)
                assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth"), (name, phone)
                assert page.locator("main button").count() == (1 if name == "journal" else 0), name
                if name == "runbook" and not phone:
                    keep(person, "runbook")
            assert [fault for fault in person.faults if "404" not in fault] == []


def test_a_third_expires_while_it_is_watched(scene: Scene) -> None:
    """The minute ends before three open pages: two change by themselves, and the third, cut off, is told so at its click."""
    late = scene.services[LATE]
    late.sicken()
    with scene.chromium.person() as one, scene.chromium.person() as other:
        now, cut_off = enter(one, scene.asking, "ada"), enter(other, scene.asking, "bob")
        card, old = asked(now, late), asked(cut_off, late).locator("button.go")
        row = episode_of(scene.asking, LATE)
        story = one.context.new_page()
        story.goto(f"{scene.asking.url}/console/episodes/{row['id']}")
        expect(story.locator("button.go")).to_be_visible()
        expect(story.locator("#link")).to_have_text("● Live")
        same = [follow(now), follow(story)]
        other.context.set_offline(True)
        expect(card).to_have_count(0, timeout=PATIENCE + 10_000)
        expect(story.locator(".timeline").get_by_text("No answer within 1m").first).to_be_visible()
        for page in (now, story):
            expect(page.locator("button.go, button.stop")).to_have_count(0)
        assert [one() for one in same] == [True, True], "a page was loaded anew"
        expect(old).to_be_visible()
        other.context.set_offline(False)
        old.evaluate("button => { button.click() }")
        expect(cut_off.get_by_role("heading", name="Not done")).to_be_visible()
        expect(cut_off.get_by_text("The time to answer is over since")).to_be_visible()
        expect(story.get_by_text("The yes of bob was not taken (expired)")).to_be_visible()
        assert same[1]()
        assert one.faults == []
    (lost,) = not_taken(scene.asking, row["id"])
    assert (lost["data"]["who"], lost["data"]["what"]) == ("bob", "approve")
    kinds = scene.asking.kinds(row["id"])
    assert "handed_over" in kinds
    assert not {"approved", "intent"} & set(kinds)
    assert late.effects == 0


def test_a_remediator_that_is_gone_is_said_and_its_return_is_seen(scene: Scene) -> None:
    """What is on the screen is marked as old at once, and a restart asks for the log-in again."""
    with scene.chromium.person() as person:
        page = enter(person, scene.acting, "ada")
        began = time.monotonic()
        assert scene.acting.process.terminate() == 0
        assert time.monotonic() - began < 15, "a page that follows holds the end up"
        expect(page.locator("#link")).to_contain_text("Not connected since")
        scene.acting.start()
        expect(page.get_by_label("Your token")).to_be_visible(timeout=PATIENCE)
    assert fetch(f"{scene.acting.url}/-/healthy").status == 200
