"""Journals for tests, on both engines, and the little that an engine would write into them."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import text

from remediator.clock import SystemClock
from remediator.events import Event, Kind
from remediator.facts import Facts
from remediator.journal import InboxRow, Journal, Routed
from remediator.journal.migrate import FOLDER
from remediator.journal.transaction import Tx
from remediator.reasons import Reason, Refusal
from remediator.settings import Journal as Settings

RESOURCE = "docker:shop/web"
BOOK = "web-slow"


class ShiftedClock(SystemClock):
    """The machine's clocks, put forward or back by the test: `wall` as a step would, `boot` as time that passed."""

    def __init__(self, wall: float = 0.0, boot: float = 0.0) -> None:
        self.wall, self.boot = wall, boot

    def now(self) -> float:
        return super().now() + self.wall + self.boot

    def boottime(self) -> float:
        return super().boottime() + self.boot


@dataclass
class Place:
    """Where a journal lies, so that it can be opened again, or by several replicas."""

    url: str
    folder: Path
    opened: list[Journal] = field(default_factory=list)

    async def open(self, owner: str = "here", **options: Any) -> Journal:
        """One more replica, or the next run of the only one."""
        settings = Settings(
            url=options.pop("url", self.url),
            evidence_dir=self.folder / options.pop("state", owner) / "evidence",
            lease=options.pop("lease", 6.0),
            async_standby=options.pop("async_standby", "tell"),
        )
        given = {"clock": ShiftedClock(), "mode": "auto", "config_digest": "0" * 64, "hold_off": 60.0, **options}
        journal = await Journal.open(settings, owner=owner, **given)
        self.opened.append(journal)
        return journal

    async def close(self) -> None:
        """Close what the test has left open."""
        for journal in self.opened:
            await journal.close(clean=False)


def delivery(key: str, fingerprint: str = "", number: int = 0) -> bytes:
    """A stored body with one alert; `split` takes it apart. Another number makes the same alert another word."""
    said: dict[str, object] = {"key": key, "fingerprint": fingerprint or f"fp-{key}"}
    return json.dumps([said | ({"number": number} if number else {})]).encode()


def deliveries(*pairs: tuple[str, str]) -> bytes:
    """A stored body with several alerts."""
    return json.dumps([{"key": key, "fingerprint": mark} for key, mark in pairs]).encode()


def split(row: InboxRow) -> Sequence[Routed]:
    """What the remediator's own splitting does, on the bodies of `delivery`."""
    return [
        Routed(alert["key"], alert["fingerprint"], json.dumps(alert).encode(), alert["key"])
        for alert in json.loads(row.body)
    ]


def event(episode: str, seq: int, kind: Kind, at: float = 0.0, /, **data: Any) -> Event:
    """An event with an id of its own."""
    return Event(uuid.uuid4().hex, episode, seq, kind, at, data)


def intent(episode: str, seq: int, at: float, attempt: str = "", resource: str = RESOURCE) -> Event:
    """An intent on a resource."""
    return event(episode, seq, Kind.INTENT, at, attempt=attempt or uuid.uuid4().hex, resource=resource)


def allow(facts: Facts) -> None:
    """A judgement that never refuses."""


def once(facts: Facts) -> Refusal | None:
    """A judgement that refuses when anything was done in the last hour."""
    return Refusal(Reason.RATE_LIMIT, "one an hour", None) if facts.all_hour else None


async def alert(journal: Journal, key: str = "k", fingerprint: str = "") -> str:
    """Store, route and claim one alert; its episode, nothing appended yet."""
    await journal.store([("delivery", delivery(key, fingerprint))])
    await journal.route(split)
    episode = next(row.episode for row in await journal.open_episodes() if row.key == key)
    await journal.claim(100)
    return episode


async def opened(journal: Journal, key: str = "k") -> str:
    """An episode of ours with its first event, the inbox empty."""
    episode = await alert(journal, key)
    rows = await journal.inbox(episode)
    await journal.append([event(episode, 1, Kind.OPENED, await journal.now())], takes=[row.id for row in rows])
    return episode


async def acted(journal: Journal, key: str, resource: str = RESOURCE) -> tuple[str, str]:
    """An episode with an intent as its second event; (episode, attempt)."""
    episode = await opened(journal, key)
    new = intent(episode, 2, await journal.now(), resource=resource)
    assert await journal.intend(new, runbook=BOOK, resource=resource, decide=allow) is None
    return episode, new.data["attempt"]


NEXT, NEXT_FILE = (
    "9999",
    """
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on, oldest = "9999", "{newest}", None, None, "{oldest}"


def upgrade():
    op.add_column("work", sa.Column("hint", sa.Text))
    op.add_column("events", sa.Column("sealed", sa.Text))
    op.create_table("of_tomorrow", sa.Column("number", sa.BigInteger, primary_key=True))
""",
)


def next_version(folder: Path, newest: str, oldest: str) -> Path:
    """The migrations of a next version of this program, which adds to the tables; `oldest` may go on with them."""
    made = folder / "migrations"
    shutil.copytree(FOLDER, made, ignore=shutil.ignore_patterns("__pycache__"))
    (made / "versions" / f"{NEXT}_next.py").write_text(NEXT_FILE.format(newest=newest, oldest=oldest))
    return made


async def sql(journal: Journal, statement: str) -> None:
    """Change the tables behind the journal's back."""

    def run(tx: Tx) -> None:
        tx.run(text(statement))

    await journal._store.write(run)
