"""What the console's own script promises, in Chromium: an old page does not look live, a double click is one answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect
from sqlalchemy import text

from remediator.console.overview import KEEP
from remediator.journal.transaction import Tx
from tests.integration.test_console import clicks, question
from tests.support.browser import Chromium
from tests.support.http_side import Side, serve
from tests.support.run import Run

Screen = Callable[[Callable[[Page], Any]], "asyncio.Future[Any]"]


@pytest.fixture
async def side(tmp_path: Path) -> AsyncIterator[Side]:
    async with serve(tmp_path) as side:
        yield side


@pytest.fixture(scope="module")
def browsing(run: Run) -> Iterator[tuple[ThreadPoolExecutor, Chromium]]:
    """Chromium, and the one thread that may speak to it: the server under test has the loop."""
    with ThreadPoolExecutor(1) as thread:
        chromium = thread.submit(lambda: Chromium(run).__enter__()).result()
        yield thread, chromium
        thread.submit(chromium.__exit__, None, None, None).result()


@pytest.fixture
async def screen(side: Side, browsing: tuple[ThreadPoolExecutor, Chromium]) -> AsyncIterator[Screen]:
    """Ada before her screen, logged in: `await screen(lambda page: …)`."""
    thread, chromium = browsing

    def on(work: Callable[[], Any]) -> asyncio.Future[Any]:
        return asyncio.wrap_future(thread.submit(work))

    def sit_down() -> tuple[object, Page]:
        sitting = chromium.person()
        page = sitting.__enter__().page
        page.goto(f"{side.url}/console")
        page.get_by_label("Your token").fill("ada-token")
        page.get_by_role("button", name="Log in").click()
        expect(page.locator("#link")).to_have_text("● Live")
        return sitting, page

    sitting, page = await on(sit_down)
    yield lambda work: on(lambda: work(page))
    await on(lambda: sitting.__exit__(None, None, None))


def renew(page: Page) -> None:
    """The page asks for itself anew, after what was gathered for others has grown old."""
    page.wait_for_timeout(1000 * KEEP + 100)
    page.evaluate("window.htmx.trigger('#live', 'sse:change')")


async def test_an_old_page_does_not_look_live(side: Side, screen: Screen) -> None:
    """The stream stays open while the journal cannot be read: what stands there is old, and says so until it is new."""

    def named(old: str, new: str) -> Callable[[Tx], None]:
        def rename(tx: Tx) -> None:
            tx.run(text(f"ALTER TABLE {old} RENAME TO {new}"))

        return rename

    await side.journal._store.write(named("pauses", "lost"))

    def is_old(page: Page) -> None:
        renew(page)
        expect(page.locator("#link")).to_contain_text("Not connected since")

    await screen(is_old)
    await side.journal._store.write(named("lost", "pauses"))

    def is_new(page: Page) -> None:
        renew(page)
        expect(page.locator("#link")).to_have_text("● Live")

    await screen(is_new)


async def test_two_presses_are_one_answer(side: Side, screen: Screen) -> None:
    """180 ms apart, as a finger does it: one request, and so no second answer that says that nothing waits."""
    episode, _ = await question(side)

    def twice(page: Page) -> list[str]:
        sent: list[str] = []

        def slowly(route: Route) -> None:
            sent.append(route.request.url)
            time.sleep(0.6)
            route.continue_()

        page.route("**/approve", slowly)
        page.goto(f"{side.url}/console")
        button = page.get_by_role("button", name="Approve")
        expect(button).to_be_visible()
        page.wait_for_timeout(1000)
        handle = button.element_handle()
        assert handle is not None
        handle.evaluate("each => { each.click(); setTimeout(() => each.click(), 180); }")
        page.wait_for_url("**/console/episodes/*")
        return sent

    sent = await screen(twice)
    assert len(sent) == 1
    assert len(await clicks(side, episode)) == 1
