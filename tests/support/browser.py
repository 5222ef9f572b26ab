"""Chromium, headless, by Playwright: what a person sees in a page, clicks in it, and is told by it.

    with Chromium(run) as chromium, chromium.person() as person:
        person.page.goto(url)
        person.shot(path)
        assert person.faults == [] and audit(person.page) == []

Playwright runs an event loop in the thread that starts it: tests that use this are synchronous, and a fixture of it ends
with its file, before an asynchronous test of another file begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.support.run import Run, program

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
AXE = Path(__file__).parent / "axe" / "axe.min.js"  # axe-core 4.14.1 of npm, MPL-2.0: for tests only
WCAG_AA = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")
WAIT = 10_000  # milliseconds for what a page is to show, unless a test says otherwise
# As root Chromium has no sandbox of its own; /dev/shm is small in a container.
FLAGS = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--force-color-profile=srgb")


@dataclass
class Person:
    """Somebody before a screen, with cookies of his own. `faults` are what the browser complained about, CSP included."""

    context: BrowserContext
    page: Page
    faults: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        """Note errors of a page: of its scripts, of the console, of requests that no server answered."""
        page.on("pageerror", lambda error: self.faults.append(f"script: {error}"))
        page.on("console", lambda said: self.faults.append(f"console: {said.text}") if said.type == "error" else None)

    def shot(self, path: Path, *, whole: bool = False) -> Path:
        """What is on the screen, or the whole page, as a PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path, full_page=whole, animations="disabled", caret="hide", scale="css")
        return path


class Chromium:
    """One browser for a file's tests; each person in it shares nothing with the others."""

    def __init__(self, run: Run) -> None:
        self._home = run.folder("chromium")

    def __enter__(self) -> Self:
        self._playwright = sync_playwright().start()
        try:
            self.browser: Browser = self._playwright.chromium.launch(
                executable_path=program("chromium"),
                args=list(FLAGS),
                env={"HOME": str(self._home), "TMPDIR": str(self._home)},
            )
        except BaseException:
            self._playwright.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.browser.close()
        self._playwright.stop()

    @contextmanager
    def person(self, *, phone: bool = False, dark: bool = False, **context: Any) -> Iterator[Person]:
        """A new person, in UTC+1 with English words. `context` goes to `Browser.new_context`."""
        options: dict[str, Any] = {
            "viewport": PHONE if phone else DESKTOP,
            "color_scheme": "dark" if dark else "light",
            "reduced_motion": "reduce",
            "timezone_id": "Africa/Lagos",
            "locale": "en-GB",
            **context,
        }
        made = self.browser.new_context(**options)
        made.set_default_timeout(WAIT)
        try:
            person = Person(made, made.new_page())
            person.watch(person.page)
            yield person
        finally:
            made.close()


def audit(page: Page, *, impacts: tuple[str, ...] = ("serious", "critical")) -> list[str]:
    """What axe-core finds against WCAG 2.2 AA, a line each: rule, impact, where. Empty when nothing serious."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE.read_text())
    found = page.evaluate("tags => axe.run(document, {runOnly: {type: 'tag', values: tags}})", list(WCAG_AA))
    assert found["passes"], "axe looked at nothing"
    return [
        f"{rule['id']} ({rule['impact']}): {node['html'][:120]} {node['failureSummary']}"
        for rule in found["violations"]
        if rule["impact"] in impacts
        for node in rule["nodes"]
    ]
