"""What cancelling and terminating a query have in common: look, do it in one statement, look again."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import ClassVar

import asyncpg
from pydantic import BaseModel

from remediator.actions import queries
from remediator.actions.base import Action, Call, Item, Outcome, Preview, Result, Settled, Settlement
from remediator.actions.queries import QueryParams
from remediator.clock import Clock
from remediator.durations import human
from remediator.errors import Fault, Permanent, RemediatorError, Transient
from remediator.fetch import describe
from remediator.postgres import LOST, NAME, connected
from remediator.reasons import Reason, Refusal
from remediator.settings import Database, Settings

WATCH = 2.0  # seconds for a signalled query to be gone: it looks at its next check for interrupts
# Errors that the server raises before it signals anything: missing rights, a statement it cannot run.
_BEFORE = (
    asyncpg.InsufficientPrivilegeError,
    asyncpg.SyntaxOrAccessError,
    asyncpg.FeatureNotSupportedError,
    asyncpg.InvalidCachedStatementError,
)


class EndingQuery(Action):
    """Ends reading queries of one server. Subclasses say with which function."""

    function: ClassVar[str]
    """`pg_cancel_backend` or `pg_terminate_backend`."""
    verb: ClassVar[str]
    deadline: ClassVar[float] = 8.0
    params_model: ClassVar[type[BaseModel]] = QueryParams

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    @classmethod
    def listed(cls, settings: Settings) -> Sequence[str]:
        return sorted(settings.databases)

    @classmethod
    def obstacles(cls, settings: Settings, service: str) -> tuple[Fault, ...]:
        if service in settings.databases:
            return ()
        said = "is not listed: none of its queries is ever ended"
        return (Fault(f"databases.{service}", said, "list it with a role of its own, if they may be"),)

    async def preview(self, params: BaseModel) -> Preview:
        wanted = QueryParams.model_validate(params.model_dump())
        database = self._settings.databases.get(wanted.service)
        if database is None:
            refusal = Refusal(Reason.TARGET_NOT_ALLOWED, f"{wanted.service} is not in the settings' list of databases.")
            return Preview(f"pg:{wanted.service}", "Nothing may be ended.", (), self._clock.now(), (refusal,))
        server, selection = await self._sampled(database, wanted)
        refusals = queries.refusals(server, selection, wanted)
        names = ", ".join(f"pid {item.pid} of {item.user}, {human(item.age)} old" for item in selection.chosen)
        return Preview(
            resource=server.resource,
            summary=f"{self.verb.capitalize()} {names or 'no query'} on {wanted.service}.",
            items=() if server.missing_grants else tuple(queries.item_of(item, server) for item in selection.chosen),
            target_now=server.now,
            refusals=refusals,
            left_out=tuple(queries.left_out_of(item, server) for item in selection.left[:20]),
        )

    async def execute(self, call: Call) -> Outcome:
        params = QueryParams.model_validate(call.params.model_dump())
        database = self._settings.databases.get(params.service)
        if database is None:
            return Outcome(Result.FAILED, f"{params.service} is not in the settings any more; nothing was sent.")
        until = self._clock.boottime() + call.deadline
        try:
            async with connected(
                database, _tag(call.attempt), within=min(database.timeout, call.deadline)
            ) as connection:
                server = await queries.read_server(connection)
                if server.resource != call.resource:
                    return Outcome(Result.FAILED, f"Another server answers now ({server.resource}); nothing was sent.")
                return await self._end(connection, server, call, database, until)
        except (*LOST, RemediatorError, asyncpg.PostgresError) as error:
            # `_end` answers for itself once the statement is on its way.
            return Outcome(Result.FAILED, f"Nothing was sent: {describe(error)}")

    async def settle(self, call: Call) -> Settled:
        """Gone: done. Still the same query after `start_by`, and no session of the attempt left: not done,
        and it cannot happen any more, for the statement asks the server's clock itself.
        """
        params = QueryParams.model_validate(call.params.model_dump())
        database = self._settings.databases.get(params.service)
        if database is None:
            raise Permanent(f"{params.service} is not in the settings any more: it cannot be asked.")
        try:
            async with connected(database) as connection:
                server = await queries.read_server(connection)
                still = await connection.fetch(queries.STILL_THERE, *queries.columns(call.items))
                ours = await connection.fetchval(queries.OURS, _tag(call.attempt))
        except (*LOST, asyncpg.PostgresError) as error:
            raise Transient(f"PostgreSQL {params.service}: {describe(error)}") from error
        pids = [row["pid"] for row in still]
        evidence = {"server": server.resource, "server_started": server.started, "server_now": server.now}
        evidence |= {"still_running": pids, "sessions_of_the_attempt": ours}
        if server.resource != call.resource:
            sentence = f"Another server answers now ({server.resource}): {call.resource} cannot be asked."
            return Settled(Settlement.UNKNOWN, sentence, evidence)
        if any(item.get("server_started") != server.started for item in call.items):
            # A promoted replica has the same identifier; it never had the query, which may run on at the former one.
            return Settled(Settlement.UNKNOWN, "It was started anew, or is another of the same cluster.", evidence)
        if server.missing_grants:
            return Settled(Settlement.UNKNOWN, f"The role cannot see: {' '.join(server.missing_grants)}", evidence)
        if len(pids) < len(call.items):
            sentence = f"{len(call.items) - len(pids)} of {len(call.items)} queries do not run any more."
            return Settled(Settlement.DONE, sentence, evidence)
        if ours or server.now <= call.start_by:
            return Settled(Settlement.UNKNOWN, "The statement of this attempt may still be on its way.", evidence)
        return Settled(Settlement.NOT_DONE, "The same query still runs, and the attempt's time is over.", evidence)

    async def _sampled(self, database: Database, params: QueryParams) -> tuple[queries.Server, queries.Selection]:
        try:
            async with connected(database) as connection:
                server = await queries.read_server(connection)
                samples = [await queries.read_sessions(connection, server, params.min_age)]
                while samples[-1] and len(samples) < queries.SAMPLES:
                    await asyncio.sleep(queries.GAP)
                    samples.append(await queries.read_sessions(connection, server, params.min_age))
        except LOST as error:
            raise Transient(f"PostgreSQL {params.service}: {describe(error)}") from error
        except asyncpg.PostgresError as error:
            raise Permanent(f"PostgreSQL {params.service}: {describe(error)}") from error
        return server, queries.select(samples, params, database)

    async def _end(
        self, connection: asyncpg.Connection, server: queries.Server, call: Call, database: Database, until: float
    ) -> Outcome:
        """Send the one statement, and tell what its answer proves."""
        statement = queries.ending(self.function, call.attempt, server.progress_views)
        # Parsed and planned first: a connection lost by then, or a right that is missing, has ended nothing.
        prepared = await connection.prepare(statement)
        protected, prefixes = list(database.protected_roles), list(queries.prefixes(database))
        try:
            rows = await prepared.fetch(*queries.columns(call.items), call.start_by, server.system, protected, prefixes)
        except _BEFORE as error:
            if len(call.items) == 1:
                return Outcome(Result.FAILED, f"The server refused: {describe(error)}")
            return Outcome(Result.IN_DOUBT, f"The server refused in the middle: {describe(error)}", call.items)
        except (*LOST, asyncpg.PostgresError) as error:
            return Outcome(Result.IN_DOUBT, f"No answer to the statement: {describe(error)}", call.items)
        hit = {(row["pid"], row["backend_start"], row["query_start"]) for row in rows if row["signalled"]}
        touched = [item for item in call.items if _identity(item) in hit]
        if not touched:
            if any(row["signalled"] is None for row in rows):
                return Outcome(Result.FAILED, "Nothing was ended: the server's clock is past start_by.")
            return Outcome(
                Result.FAILED, f"Nothing was ended: the query changed or ended meanwhile.{_left(call.items)}"
            )
        said = await self._watch(connection, touched, until)
        return Outcome(Result.DONE, f"{said}{_left(call.items, hit)}", tuple(touched))

    async def _watch(self, connection: asyncpg.Connection, touched: Sequence[Item], until: float) -> str:
        """Wait shortly until the signalled queries are gone, for the sentence; the proof decides, not this."""
        began = self._clock.boottime()
        try:
            while self._clock.boottime() < min(began + WATCH, until - 0.2):
                if not await connection.fetch(queries.STILL_THERE, *queries.columns(touched)):
                    took = human(max(0.001, self._clock.boottime() - began))
                    return f"{len(touched)} signalled with {self.function}, gone after {took}."
                await self._clock.sleep(0.02)
        except (*LOST, asyncpg.PostgresError) as error:
            return f"{len(touched)} signalled with {self.function}; then the connection broke: {describe(error)}"
        return f"{len(touched)} signalled with {self.function}, still there after {human(WATCH)}."


def _tag(attempt: str) -> str:
    """application_name of an attempt's session: in PostgreSQL's log by %a, and found again by `settle`."""
    return f"{NAME}/{attempt}"


def _left(items: Sequence[Item], hit: Collection[tuple[int, str, str]] = ()) -> str:
    """What the preview listed and the statement did not end, as a sentence; "" when it ended all of it."""
    left = [str(item["pid"]) for item in items if _identity(item) not in hit]
    return f" Left alone, changed or ended since the look: pid {', '.join(left)}." if left else ""


def _identity(item: Item) -> tuple[int, str, str]:
    return (int(item["pid"]), str(item["backend_start"]), str(item["query_start"]))
