"""What PostgreSQL itself has against restarting one of its replicas. Two statements, and pure judgement over them.

In: one row of the replica and one of its primary. Out: refusals with named reasons. What a row does not tell is a
refusal too. A replica is sick when nothing has reached it for longer than its own `wal_receiver_timeout`: a receiver
that works would have ended itself by then, and one that is not there is started anew by the server each few seconds.
A replica that streams is never restarted, whatever an alert says: it would only send its reads to the primary.

Source: PostgreSQL 13 to 18 manual, "The Cumulative Statistics System" (pg_stat_replication, pg_stat_wal_receiver,
pg_stat_progress_basebackup), "pg_replication_slots" and "Recovery Control Functions".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from remediator.actions.queries import exact, prefixes
from remediator.durations import human
from remediator.reasons import Reason, Refusal
from remediator.settings import Database

SILENCE = 60.0
"""Seconds without a word that count as sick where `wal_receiver_timeout` is off (0): the server's own default."""
SAFE_WAL = 64 * 1024 * 1024
"""Bytes that may still be written before a slot gives up WAL. With less the primary could drop it during a restart."""
CLOCK_GRAIN = 1.0
"""Seconds that a postmaster may seem older than its container: both times are rounded, on one clock."""

_WHO = f"""(SELECT system_identifier::text FROM pg_control_system()) AS system,
       pg_is_in_recovery() AS in_recovery,
       {exact("pg_postmaster_start_time()")} AS started,
       extract(epoch FROM pg_postmaster_start_time())::float8 AS started_at,
       pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS can_see,
       current_user::text AS role,
       coalesce(host(inet_server_addr()), '') AS address"""  # noqa: S608 - constants of this module only

# $1: prefixes of application names, lower case. A base backup begun by hand shows only by the text of its session.
REPLICA = f"""
SELECT {_WHO},
       (SELECT status FROM pg_stat_wal_receiver) AS receiver,
       (SELECT extract(epoch FROM clock_timestamp() - last_msg_receipt_time)::float8
        FROM pg_stat_wal_receiver) AS silent,
       (SELECT setting::float8 / 1000 FROM pg_settings WHERE name = 'wal_receiver_timeout') AS patience,
       coalesce((SELECT substring(conninfo FROM 'application_name=(\\S+)') FROM pg_stat_wal_receiver), '') AS name,
       current_setting('primary_slot_name') AS slot,
       CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END AS paused,
       (SELECT count(*)::int FROM pg_stat_replication) AS senders,
       (SELECT count(*)::int FROM pg_stat_progress_basebackup) AS base_backups,
       ARRAY(SELECT a.application_name::text FROM pg_stat_activity a
             WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
               AND (a.query ~* 'pg_(backup_start|start_backup)'
                    OR EXISTS (SELECT FROM unnest($1::text[]) AS prefix
                               WHERE starts_with(lower(a.application_name), prefix)))
             ORDER BY 1 LIMIT 20) AS backups
"""  # noqa: S608

PRIMARY = f"""
SELECT {_WHO},
       current_setting('synchronous_standby_names') AS synchronous,
       (SELECT coalesce(json_agg(json_build_object(
            'name', application_name, 'address', coalesce(host(client_addr), ''), 'pid', pid, 'state', state,
            'sync', sync_state, 'replays', replay_lsn IS NOT NULL)), '[]')::text
        FROM pg_stat_replication) AS standbys,
       (SELECT coalesce(json_agg(json_build_object(
            'name', slot_name, 'pid', active_pid, 'temporary', temporary, 'status', wal_status,
            'safe', safe_wal_size)), '[]')::text
        FROM pg_replication_slots WHERE slot_type = 'physical') AS slots
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Server:
    """Who answers, at which of its addresses, and since when: exact text and UNIX seconds."""

    system: str
    in_recovery: bool
    started: str
    started_at: float
    can_see: bool
    role: str
    address: str


@dataclass(frozen=True, slots=True)
class Replica:
    """What the replica says. `silent` is seconds since the primary's last word; None: there is no receiver."""

    server: Server
    receiver: str | None
    silent: float | None
    patience: float
    name: str
    slot: str
    paused: bool
    senders: int
    base_backups: int
    backups: tuple[str, ...]

    @property
    def sick_because(self) -> str:
        """What is wrong with its stream, as words; "" when it streams."""
        if self.receiver is None or self.silent is None:
            return "it has no WAL receiver"
        limit = self.patience or SILENCE
        if self.silent > limit:
            return f"its WAL receiver ({self.receiver}) has heard nothing for {human(self.silent)}"
        return "" if self.receiver == "streaming" else f"its WAL receiver is {self.receiver}"


@dataclass(frozen=True, slots=True)
class Primary:
    """What the primary says of its standbys and slots."""

    server: Server
    synchronous: str
    standbys: tuple[Mapping[str, Any], ...]
    slots: tuple[Mapping[str, Any], ...]


async def read_replica(connection: asyncpg.Connection, database: Database) -> Replica:
    """One look at the replica."""
    row = await connection.fetchrow(REPLICA, list(prefixes(database)))
    names = ("receiver", "silent", "patience", "name", "slot", "paused", "senders", "base_backups")
    return Replica(_server(row), **{name: row[name] for name in names}, backups=tuple(row["backups"]))


async def read_primary(connection: asyncpg.Connection) -> Primary:
    """One look at the primary."""
    row = await connection.fetchrow(PRIMARY)
    standbys, slots = json.loads(row["standbys"]), json.loads(row["slots"])
    return Primary(_server(row), row["synchronous"], tuple(standbys), tuple(slots))


def _server(row: Mapping[str, Any]) -> Server:
    return Server(**{name: row[name] for name in Server.__slots__})


@dataclass(frozen=True, slots=True)
class Case:
    """Everything that decides over one replica.

    service      its name, which is also that of its Compose service
    addresses    the container's own, by the engine's word
    started      when the container was started, UNIX seconds
    singleton    the settings say aloud that the only one may be restarted
    min_healthy  how many others must stream meanwhile, at least one
    """

    service: str
    addresses: Sequence[str]
    started: float
    singleton: bool
    min_healthy: int
    replica: Replica
    primary: Primary


def refusals(case: Case) -> tuple[Refusal, ...]:
    """Every reason against it, the weightiest first. Pure."""
    return tuple(Refusal(reason, sentence) for reason, sentence in _against(case))


def _against(case: Case) -> Iterator[tuple[Reason, str]]:
    if missing := _grants(case):
        yield Reason.TARGET_NOT_ALLOWED, missing
        return  # what it cannot see it must not judge
    if not case.replica.server.in_recovery:
        yield Reason.REPLICA_PROMOTED, f"{case.service} is not in recovery: it takes writes, as a primary does."
    if other := _another_server(case):
        yield Reason.REPLICA_UNPROVEN, other
    yield from _standing(case)
    yield from _slot(case)
    if busy := _at_work(case):
        yield Reason.REPLICA_BUSY, f"{case.service} is at work for others: {', '.join(busy)}."
    if not case.replica.sick_because:
        yield Reason.NOTHING_TO_DO, f"{case.service} streams from its primary: there is nothing to mend by a restart."


def _grants(case: Case) -> str:
    servers = {case.service: case.replica.server, "its primary": case.primary.server}
    blind = [
        f"on {name}: GRANT pg_read_all_stats TO {item.role};" for name, item in servers.items() if not item.can_see
    ]
    return f"The role cannot see replication; as a superuser run {' '.join(blind)}" if blind else ""


def _another_server(case: Case) -> str:
    """Why container, replica and primary are not shown to be what the settings say, as words; "" when they are."""
    ours, theirs = case.replica.server, case.primary.server
    if not ours.address or ours.address not in case.addresses:
        has = ", ".join(case.addresses) or "none"
        return f"The server says that it is at {ours.address or 'no address'}; the container has {has}."
    if ours.started_at < case.started - CLOCK_GRAIN:
        older = human(case.started - ours.started_at)
        return f"The server was started {older} before the container: it does not run in it."
    if theirs.in_recovery:
        return "The primary of the settings is in recovery itself: who takes writes now is not known."
    if ours.system != theirs.system:
        return f"{case.service} is of another system ({ours.system}) than its primary ({theirs.system})."
    if (ours.address, ours.started) == (theirs.address, theirs.started):
        return "Primary and replica of the settings are the same server."
    return ""


def _standing(case: Case) -> Iterator[tuple[Reason, str]]:
    """Its place among the primary's standbys: commits must not wait for it, and it must not be the last."""
    own = [item for item in case.primary.standbys if _is(case, item)]
    if waiting := [item["sync"] for item in own if item["sync"] not in ("async", "potential")]:
        yield Reason.REPLICA_SYNCHRONOUS, f"The primary's commits wait for {case.service} (sync_state {waiting[0]})."
    elif case.primary.synchronous and not own:
        said = f"synchronous_standby_names is {case.primary.synchronous!r}, and {case.service} is not connected"
        yield Reason.REPLICA_SYNCHRONOUS, f"{said}: whether commits wait for it cannot be known."
    others = [item for item in case.primary.standbys if _streams(item) and not _is(case, item)]
    wanted = max(1, case.min_healthy)
    if len(others) >= wanted:
        return
    said = f"{len(others)} other replicas stream; at least {wanted} must"
    if not case.replica.sick_because:
        yield Reason.REPLICA_LAST, f"{said}, and {case.service} streams."
    elif not case.singleton:
        yield Reason.REPLICA_LAST, f"{said}, and the settings do not say `singleton: true`."


def _is(case: Case, standby: Mapping[str, Any]) -> bool:
    """Is this connection to the primary the replica's own?"""
    return standby["address"] in case.addresses or standby["name"] in {case.service, case.replica.name} - {""}


def _streams(standby: Mapping[str, Any]) -> bool:
    """pg_basebackup and pg_receivewal stream too; what replays is a replica."""
    return bool(standby["state"] == "streaming" and standby["replays"])


def _slot(case: Case) -> Iterator[tuple[Reason, str]]:
    """A slot keeps the WAL that the replica needs while it is away; one that cannot is a reason to let it be."""
    pids = {item["pid"] for item in case.primary.standbys if _is(case, item)}
    name = case.replica.slot
    own = [slot for slot in case.primary.slots if slot["name"] == name or slot["pid"] in pids]
    if name and not any(slot["name"] == name for slot in own):
        yield Reason.REPLICA_SLOT, f"Its slot {name} is not there on the primary: it must be made anew by a person."
    for slot in own:
        if slot["temporary"]:
            why = "is a temporary one: it ends with the connection, and its WAL with it"
        elif slot["status"] in ("lost", "unreserved"):
            why = f"is {slot['status']}: WAL that the replica needs is gone, or goes next"
        elif slot["safe"] is not None and slot["safe"] < SAFE_WAL:
            why = f"gives up WAL after {slot['safe'] // 1048576} MiB more"
        else:
            continue
        yield Reason.REPLICA_SLOT, f"The slot {slot['name']} {why}."


def _at_work(case: Case) -> list[str]:
    """What a restart would break off."""
    replica, found = case.replica, []
    if replica.base_backups:
        found.append(f"{replica.base_backups} base backups run")
    if replica.senders:
        found.append(f"{replica.senders} receivers stream from it")
    if replica.backups:
        found.append(f"sessions of {', '.join(sorted(set(replica.backups)))[:200]}")
    if replica.paused:
        found.append("somebody has paused its replay")
    return found
