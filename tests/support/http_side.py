"""The remediator's HTTP side alone: webhook, API, console and metrics over a real journal, on a free loopback port.

In a test: `async with serve(folder) as side`. As a process that can be killed: `python -m tests.support.http_side
FOLDER PORT [JOURNAL_URL]`; it says `ready` on stdout. No engine runs: what is stored stays in the inbox, where a test
counts it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web

from remediator import settings
from remediator.answers import in_json
from remediator.api import About, Api, Footing
from remediator.approvals import Approvals
from remediator.clock import SystemClock
from remediator.console import Console
from remediator.journal import Journal
from remediator.listener import Listener
from remediator.metrics import Metrics
from remediator.operators import Operators
from remediator.pages import Pages
from remediator.runbooks import Runbook
from remediator.shadow_api import Shadow
from remediator.webhook import Batcher, Intake, Store
from tests.support.waiting import free_port
from tests.unit.cases import book
from tests.unit.cases import settings as pure_settings

TOKEN, OTHER_TOKEN, API_TOKEN = "webhook-token-1", "webhook-token-2", "api-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
OPERATOR = {"Authorization": f"Bearer {API_TOKEN}"}
SETTINGS = pure_settings()


@dataclass
class Side:
    """A running HTTP side. `url` is its base; `hook` the webhook's address."""

    url: str
    journal: Journal
    metrics: Metrics
    blind: asyncio.Event
    intake: Intake
    footings: list[Footing]
    console: Console
    clean: bool = True
    """How the journal is closed at the end; False when a test has closed it before."""

    @property
    def hook(self) -> str:
        return self.url + "/alertmanager"

    def count(self, name: str, **labels: str) -> float:
        """A sample of the remediator's own metrics; 0.0 when it is not there."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


async def open_journal(folder: Path, url: str = "") -> Journal:
    """A SQLite journal in `folder`, or the one at `url`."""
    shape = settings.Journal(url=url or f"sqlite:///{folder}/journal.db", evidence_dir=folder / "evidence")
    return await Journal.open(
        shape, owner="test", clock=SystemClock(), mode="shadow", config_digest="digest", hold_off=0.0
    )


def token_files(folder: Path) -> tuple[Path, Path, Path]:
    """Two files for the webhook (the second one empty: it is there before its token is) and one for the API."""
    files = folder / "token", folder / "token.next", folder / "api-token"
    for path, content in zip(files, (f"{TOKEN}\n", "", f"{API_TOKEN}\n"), strict=True):
        if not path.exists():
            path.write_text(content)
    return files


def named(folder: Path) -> dict[str, settings.Operator]:
    """Two operators, a viewer and an admin; the token of each is `<name>-token`."""
    roles: dict[str, settings.Role] = {"ada": "operator", "bob": "operator", "vera": "viewer", "zoe": "admin"}
    for name in roles:
        (folder / f"{name}-token").write_text(f"{name}-token\n")
    return {name: settings.Operator(token_files=(folder / f"{name}-token",), role=role) for name, role in roles.items()}


def as_person(name: str) -> dict[str, str]:
    """The header of one of `named`."""
    return {"Authorization": f"Bearer {name}-token"}


@asynccontextmanager
async def serve(
    folder: Path,
    *,
    port: int | None = None,
    max_bytes: int = 8 * 1024 * 1024,
    dead_letters: int = 1000,
    waiting: int = 1024,
    patience: float = 10.0,
    store: Store | None = None,
    api: bool = True,
    books: Sequence[Runbook] = (),
    journal_url: str = "",
    tokens: bool = True,
    basic: settings.BasicAuth | None = None,
    tls: settings.Tls | None = None,
    rules: settings.Settings = SETTINGS,
    console: settings.Console | None = None,
    prometheus: str = "http://127.0.0.1:1",
) -> AsyncIterator[Side]:
    """Serve until the block ends; the journal is closed cleanly. `store` stands in for the journal's own.

    rules                 the settings that the shadow report goes by
    tokens, basic, tls    who may send to the webhook, and whether it is served by TLS
    console, prometheus   settings of the console, and whom its lines are asked of
    """
    first, second, operator = token_files(folder)
    hook = settings.Webhook(
        token_files=(first, second) if tokens else (), basic_auth=basic, max_bytes=max_bytes, dead_letters=dead_letters
    )
    journal, metrics, blind = await open_journal(folder, journal_url), Metrics(version="test"), asyncio.Event()
    batcher = Batcher(store or journal.store, metrics, waiting, patience)
    intake = Intake(hook, journal, batcher, metrics, blind, tls)
    footings = [Footing("journal", True, "writable")]

    async def ready() -> Sequence[Footing]:
        return footings

    about = About("test", "test", "shadow", "digest")
    known = books or (book(),)
    people = Operators(named(folder) if api else {}, (operator,) if api else ())
    operators = Api(journal, metrics, people, lambda: known, ready, about)
    known_settings = pure_settings(
        console=console or settings.Console(),
        prometheus=settings.Prometheus(urls=(prometheus,), timeout=1.0, scrape_interval=1.0),
    )
    outside = aiohttp.ClientSession()
    shadow = Shadow(journal, operators, lambda: rules, lambda: known)
    pages = Console(operators, lambda: known_settings, outside, SystemClock(), lambda: False, shadow.report)
    side = Side("", journal, metrics, blind, intake, footings, pages)
    app = web.Application(middlewares=[in_json])
    alerts = Pages(Path(__file__).resolve().parents[2] / "docs" / "alerts", pages.alert)
    parts = (intake, operators, Approvals(journal, operators), shadow, alerts, pages)
    app.add_routes([route for part in parts for route in part.routes()])
    app.on_shutdown.append(lambda _: pages.close())
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    listener = Listener(settings.Listen(host="127.0.0.1", port=port or free_port(), tls=tls), runner)
    tasks = [asyncio.create_task(each) for each in (batcher.run(), listener.watch(), pages.run())]
    try:
        _, port = await listener.open()
        side.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        yield side
    finally:
        listener.close()
        await runner.cleanup()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await outside.close()
        intake.close()
        await journal.close(clean=side.clean)


async def _serve_until_killed(folder: Path, port: int, journal_url: str = "") -> None:
    async with serve(folder, port=port, journal_url=journal_url):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve_until_killed(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
