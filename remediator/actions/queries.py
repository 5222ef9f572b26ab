"""Which queries may be ended, and ending exactly those: shared by `cancel_query` and `terminate_query`.

A query may be ended when, in every one of several samples, it is the *same* reading query of an ordinary
client: active, older than asked, without a transaction id (it has written nothing), on the CPU, in no
`pg_stat_progress_*` view, and not of a protected role, superuser, replication role, backup, migration or
shared pooler connection. The statement that ends it asks all of this again but for the CPU, at the server, in
the same breath, together with `clock_timestamp() < start_by`: a pid alone is never enough, it is used again.

On the CPU: `wait_event IS NULL` for the backend or for one of its parallel workers, in most samples, and in no
sample a wait for anybody else. The longest query is often not the one that burns the CPU: it waits for a lock or
for a slow reader (hazard 10). Reads, writes and short internal locks (IO, LWLock) in a minority of samples are
part of the work: a sort that spills waits for its temporary file now and then. Give `on_cpu: false` for a symptom
that is about the age of queries and not about CPU.
What a SELECT does outside the database (dblink, a function in C, NOTIFY of an extension) cannot be seen here.

Source: PostgreSQL 13 to 18 manual, "The Cumulative Statistics System" (pg_stat_activity, progress reporting) and
"Server Signaling Functions"; view columns as of 13.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import asyncpg
from pydantic import BaseModel, ConfigDict, Field

from remediator.actions.base import Item
from remediator.durations import Duration, human
from remediator.reasons import Reason, Refusal
from remediator.redaction import sql_shape
from remediator.settings import Database

SAMPLES = 3
GAP = 0.08  # seconds between samples: three of them and the connection fit into a look of 300 ms


class QueryParams(BaseModel):
    """What may be ended.

    service      name of an entry of `settings.databases`
    min_age      seconds since `query_start`, at least
    max_queries  how many at most in one call, the oldest first
    on_cpu       only queries that burn CPU
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    service: str = Field(min_length=1, max_length=128)
    min_age: Annotated[Duration, Field(ge=0.0, le=604800.0)]
    max_queries: int = Field(default=1, ge=1, le=20)
    on_cpu: bool = True


@dataclass(frozen=True, slots=True)
class Server:
    """Who answers. `now` is UNIX seconds on the server's clock."""

    system: str
    in_recovery: bool
    started: str
    now: float
    missing_grants: tuple[str, ...]
    progress_views: tuple[str, ...]

    @property
    def resource(self) -> str:
        return f"pg:{self.system}"


@dataclass(frozen=True, slots=True)
class Session:
    """One row of pg_stat_activity. Times of the identity are text with microseconds, UTC: exact."""

    pid: int
    backend_start: str
    query_start: str
    age: float
    user: str
    application: str
    database: str
    backend_type: str
    wait: str
    has_written: bool
    in_progress_view: bool
    powerful: bool
    on_cpu: bool
    query: str

    @property
    def identity(self) -> tuple[int, str, str]:
        return (self.pid, self.backend_start, self.query_start)


@dataclass(frozen=True, slots=True)
class Judged:
    """A long query and why it is left alone; reason and why are empty when it may be ended."""

    session: Session
    reason: Reason | None = None
    why: str = ""

    @property
    def may_end(self) -> bool:
        return not self.why


@dataclass(frozen=True, slots=True)
class Selection:
    """What the samples say together: to end, and left alone."""

    chosen: tuple[Session, ...]
    left: tuple[Judged, ...]


def exact(column: str) -> str:
    """SQL that renders a timestamptz as text of full precision, the same on every version and time zone."""
    return f"""to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


# The texts below are put together from constants of this module and checked names of the server's own catalog;
# whatever comes from a session or an alert is a parameter. Hence the ignores of S608.
SERVER = f"""
SELECT (SELECT system_identifier::text FROM pg_control_system()) AS system,
       pg_is_in_recovery() AS in_recovery,
       {exact("pg_postmaster_start_time()")} AS started,
       extract(epoch FROM clock_timestamp())::float8 AS now,
       pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS can_see,
       pg_has_role(current_user, 'pg_signal_backend', 'USAGE') AS can_signal,
       current_user::text AS role,
       ARRAY(SELECT relname::text FROM pg_class
             WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'v'
               AND relname LIKE 'pg\\_stat\\_progress\\_%' ORDER BY relname) AS progress_views
"""  # noqa: S608


def progress(views: Sequence[str]) -> str:
    """SQL for every pid at a maintenance job, copy or base backup. The names come from the server's catalog."""
    if not all(name.replace("_", "").isalnum() and name.isascii() for name in views):
        raise ValueError(f"odd view names in pg_catalog: {views}")
    return " UNION ALL ".join(f"SELECT pid FROM pg_catalog.{name}" for name in views) or "SELECT NULL::int AS pid"  # noqa: S608


def long_sessions(views: Sequence[str]) -> str:
    """Statement: every active session but our own that is older than $1 seconds, oldest first."""
    return f"""
SELECT a.pid, {exact("a.backend_start")} AS backend_start, {exact("a.query_start")} AS query_start,
       extract(epoch FROM clock_timestamp() - a.query_start)::float8 AS age,
       coalesce(a.usename, '')::text AS "user", coalesce(a.application_name, '') AS application,
       coalesce(a.datname, '')::text AS database, coalesce(a.backend_type, '') AS backend_type,
       coalesce(a.wait_event_type || '/' || a.wait_event, '') AS wait,
       a.backend_xid IS NOT NULL AS has_written,
       a.pid IN ({progress(views)}) AS in_progress_view,
       coalesce(r.rolsuper OR r.rolreplication, true) AS powerful,
       (a.wait_event IS NULL OR EXISTS (SELECT FROM pg_stat_activity w WHERE w.leader_pid = a.pid
                                        AND w.pid <> a.pid AND w.wait_event IS NULL)) AS on_cpu,
       coalesce(a.query, '') AS query
FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid
WHERE a.state = 'active' AND a.pid <> pg_backend_pid()
  AND a.backend_type IN ('client backend', 'walsender')
  AND clock_timestamp() - a.query_start > make_interval(secs => $1::float8)
ORDER BY a.query_start, a.pid
LIMIT 200
"""  # noqa: S608


def ending(function: str, attempt: str, views: Sequence[str]) -> str:
    """The effect: ends the sessions of $1 pids, $2 backend_starts, $3 query_starts that are still what they were.

    $4 start_by (UNIX seconds), $5 system identifier, $6 protected roles, $7 prefixes of application names.
    Every condition of the selection is asked again here, but for the CPU, which takes several samples; the clock last,
    beside the signal itself.
    `attempt` is 32 hex digits of our own; as a comment it is found again in the server's log.
    """
    return f"""/* prep-remediator attempt {attempt} */
WITH target AS MATERIALIZED (
  SELECT a.pid, {exact("a.backend_start")} AS backend_start, {exact("a.query_start")} AS query_start
  FROM pg_stat_activity a
  JOIN unnest($1::int[], $2::text[], $3::text[]) AS wanted (pid, backend_start, query_start)
    ON a.pid = wanted.pid AND {exact("a.backend_start")} = wanted.backend_start
   AND {exact("a.query_start")} = wanted.query_start
  JOIN pg_roles r ON r.oid = a.usesysid
  WHERE a.state = 'active' AND a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
    AND a.backend_xid IS NULL AND NOT r.rolsuper AND NOT r.rolreplication
    AND a.usename <> ALL ($6::text[])
    AND NOT EXISTS (SELECT FROM unnest($7::text[]) AS prefix
                    WHERE starts_with(lower(a.application_name), prefix))
    AND a.pid NOT IN ({progress(views)})
    AND (SELECT system_identifier::text FROM pg_control_system()) = $5
)
SELECT pid, backend_start, query_start,
       CASE WHEN clock_timestamp() < to_timestamp($4::float8) THEN {function}(pid) END AS signalled
FROM target
"""  # noqa: S608


STILL_THERE = f"""
SELECT a.pid, a.state = 'active' AS active
FROM pg_stat_activity a
JOIN unnest($1::int[], $2::text[], $3::text[]) AS wanted (pid, backend_start, query_start)
  ON a.pid = wanted.pid AND {exact("a.backend_start")} = wanted.backend_start
 AND {exact("a.query_start")} = wanted.query_start
WHERE a.state = 'active'
"""  # noqa: S608

OURS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND pid <> pg_backend_pid()"


async def read_server(connection: asyncpg.Connection) -> Server:
    """Who answers, and what our role may see and do there."""
    row = await connection.fetchrow(SERVER)
    grants = (("can_see", "pg_read_all_stats"), ("can_signal", "pg_signal_backend"))
    missing = tuple(f"GRANT {role} TO {row['role']};" for column, role in grants if not row[column])
    return Server(row["system"], row["in_recovery"], row["started"], row["now"], missing, tuple(row["progress_views"]))


async def read_sessions(connection: asyncpg.Connection, server: Server, min_age: float) -> tuple[Session, ...]:
    """One sample of the long sessions."""
    rows = await connection.fetch(long_sessions(server.progress_views), min_age)
    return tuple(Session(**row) for row in rows)


def select(samples: Sequence[Sequence[Session]], params: QueryParams, database: Database) -> Selection:
    """From several samples to what may be ended. Pure.

    Only a query that is in every sample with the same identity counts; its worst sample decides.
    """
    last = {session.identity: session for session in samples[-1]}
    seen = [{session.identity: session for session in sample} for sample in samples]
    lasting = [identity for identity in last if all(identity in sample for sample in seen)]
    judged = [_worst([sample[identity] for sample in seen], params, database) for identity in lasting]
    able = sorted((item.session for item in judged if item.may_end), key=lambda item: -item.age)
    over = [Judged(session, None, f"at most {params.max_queries} a call") for session in able[params.max_queries :]]
    return Selection(tuple(able[: params.max_queries]), (*(item for item in judged if not item.may_end), *over))


def _worst(sessions: Sequence[Session], params: QueryParams, database: Database) -> Judged:
    bad = [item for item in (judge(session, database) for session in sessions) if not item.may_end]
    if bad:
        return next((item for item in bad if item.reason), bad[0])
    return Judged(sessions[-1], None, _idle_because(sessions) if params.on_cpu else "")


def _idle_because(sessions: Sequence[Session]) -> str:
    """Why the samples of one query do not show it on the CPU, as words; "" when they do. Pure."""
    off = [session.wait for session in sessions if not session.on_cpu]
    elsewhere = next((wait for wait in off if not wait.startswith(("IO/", "LWLock/"))), None)
    if elsewhere is not None or 2 * len(off) >= len(sessions):
        return f"not on the CPU: waits for {elsewhere or off[0]}"
    return ""


def judge(session: Session, database: Database) -> Judged:
    """May this query be ended, CPU aside? The first thing that forbids it, with its named reason. Pure."""
    prefix = next((name for name in prefixes(database) if session.application.lower().startswith(name)), None)
    if session.backend_type != "client backend":
        # A standby's or subscriber's stream is always "active"; idle in its loop it is no long query.
        waiting = session.wait.startswith("Activity/")
        return Judged(session, None if waiting else Reason.QUERY_PROTECTED, f"replication ({session.backend_type})")
    if session.in_progress_view:
        return Judged(session, Reason.QUERY_PROTECTED, "maintenance, copy or backup: in a pg_stat_progress view")
    if session.user in database.protected_roles:
        return Judged(session, Reason.QUERY_PROTECTED, f"role {session.user} is protected")
    if prefix is not None:
        return Judged(session, Reason.QUERY_PROTECTED, f"application {prefix} is protected or a shared pooler")
    if session.powerful:
        return Judged(session, Reason.QUERY_PROTECTED, f"role {session.user} is a superuser or replicates")
    if session.has_written:
        return Judged(session, Reason.QUERY_HAS_WRITTEN, "its transaction has written")
    return Judged(session)


def prefixes(database: Database) -> tuple[str, ...]:
    """Protected and pooler application names, lower case, compared as prefixes."""
    return tuple(name.lower() for name in (*database.protected_applications, *database.pooler_applications))


def refusals(server: Server, selection: Selection, params: QueryParams) -> tuple[Refusal, ...]:
    """The target's own reasons: missing grants always, the rest when nothing is left to end. Pure."""
    if server.missing_grants:
        sentence = (
            f"The role cannot see or signal other sessions; as a superuser run: {' '.join(server.missing_grants)}"
        )
        return (Refusal(Reason.TARGET_NOT_ALLOWED, sentence),)
    if selection.chosen:
        return ()
    found = []
    for reason in (Reason.QUERY_HAS_WRITTEN, Reason.QUERY_PROTECTED):
        of_it = [item for item in selection.left if item.reason is reason]
        if of_it:
            words = "; ".join(f"pid {item.session.pid}: {item.why}" for item in of_it[:5])
            found.append(Refusal(reason, f"Only queries that must be left alone are that old. {words}."))
    if found:
        return tuple(found)
    others = "; ".join(f"pid {item.session.pid}: {item.why}" for item in selection.left[:5])
    sentence = f"No reading query is older than {human(params.min_age)}" + (" and burns CPU" if params.on_cpu else "")
    return (Refusal(Reason.NOTHING_TO_DO, f"{sentence}. {others}".strip()),)


def item_of(session: Session, server: Server) -> Item:
    """A query's identity for the journal: never its text, only a digest of its shape without literals."""
    return {
        "pid": session.pid,
        "backend_start": session.backend_start,
        "query_start": session.query_start,
        "user": session.user,
        "application": session.application[:64],
        "database": session.database,
        "age": round(session.age, 1),
        "statement": hashlib.sha256(sql_shape(session.query).encode()).hexdigest()[:16],
        "in_recovery": server.in_recovery,
        "server_started": server.started,
    }


def left_out_of(judged: Judged, server: Server) -> Item:
    """The same for what is left alone, with the reason."""
    return {**item_of(judged.session, server), "why": judged.why, "reason": judged.reason}


def columns(items: Iterable[Mapping[str, Any]]) -> tuple[list[int], list[str], list[str]]:
    """Identities as the three arrays that the statements take."""
    rows = [(int(item["pid"]), str(item["backend_start"]), str(item["query_start"])) for item in items]
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]
