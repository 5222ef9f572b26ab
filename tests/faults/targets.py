"""What is remediated in these tests: made ill for each trial, and counting by itself what was done to it."""

from __future__ import annotations

import contextlib
from typing import Protocol

from tests.support.postgres import Session
from tests.support.remediation import SICK, SLOW, SickService, World
from tests.support.servers import PostgresServer

CANCELLED = "canceling statement due to user request"


class Target(Protocol):
    """`effects` counts since `begin`; `sicken` and `heal` return when Prometheus knows.

    incurable   no effect helps: a second one would be hidden by nothing but the remediator's own knowledge
    """

    name: str
    alertname: str
    incurable: bool

    @property
    def effects(self) -> int: ...
    def sicken(self) -> None: ...
    def heal(self) -> None: ...
    def begin(self) -> None: ...
    def close(self) -> None: ...


class Web(SickService):
    """A service that a restart heals."""

    alertname = SICK

    def close(self) -> None:
        self.container.remove()


class Reader:
    """A PostgreSQL with one session that reads for ever, and begins another query after the first one's cancel.

    The second query must stay: its cancel would be another line in the server's log. Nothing calls it long, unless
    the target is incurable.
    """

    alertname = SLOW
    incurable = False

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self._world = world
        # A killed psql's query would run on: the server looks for its client only when asked to (manual, 20.3.2).
        options = {
            "client_connection_check_interval": "50ms",
            "shared_buffers": "1MB",
            "max_connections": "20",
            "log_statement": "all",
        }
        self.server = PostgresServer(world.run, options, name=name).start()
        self.server.role("prep_app", "prep_app")
        self.server.role("prep_remediator", "prep_remediator", "pg_read_all_stats", "pg_signal_backend")
        # As the server has it by itself: a call that has arrived is carried out, whether or not its sender lives.
        self.server.sql("alter role prep_remediator set client_connection_check_interval = 0")
        self._block = contextlib.ExitStack()
        self._session: Session | None = None
        self._seen = 0
        world.metrics.watch("prep_long_queries", self._long, service=name)

    def sicken(self, first: str = "") -> None:
        """`first` is SQL that its session runs before."""
        self.heal()
        self.begin()
        text = f"\\set ON_ERROR_STOP 0\n{first}\nselect pg_sleep(3600) /* first */;\nselect pg_sleep(3600) /* second */"
        self._session = self._block.enter_context(
            self.server.session(text, user="prep_app", password="prep_app", application=f"reader-{self.name}")
        )
        self._session.wait_active()
        self._known(1)

    def heal(self) -> None:
        self._block.close()
        self._session = None
        self._known(0)

    def begin(self) -> None:
        self._seen = self.server.log_text().count(CANCELLED)

    @property
    def effects(self) -> int:
        return self.server.log_text().count(CANCELLED) - self._seen

    def close(self) -> None:
        self._block.close()
        self._session = None
        self.server.stop()

    def _long(self) -> float:
        """What an exporter would say: does a query run that counts as long?"""
        return 1.0 if self._session is not None and (self.incurable or self.effects == 0) else 0.0

    def _known(self, long: int) -> None:
        self._world.prometheus.wait_for(f'prep_long_queries{{service="{self.name}"}} == {long}', deadline=30)
