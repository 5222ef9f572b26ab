"""Collector `replication`: what the primary and the replicas say of the link between them.

In: one row of the primary's views and one of each replica's. Out: the catalog's `prep_replication_*` samples. It must
never write (the heartbeat is the platform's), and never show a link that is cut as a lag of 0.

Why from both sides: a replica whose link is cut has replayed everything that it has received, so all that it can say
alone is "nothing missing"; a primary that nobody is connected to has no row to say anything by. So `streaming` has a
series for each expected replica and side, 0 when it is not; and the distance of side `replica` is the primary's own
position less what the replica itself has, which grows while the link is cut.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.catalog import replication as catalog
from exporter.collector_settings import Heartbeat
from exporter.collector_settings import ReplicationCollector as ReplicationSettings
from exporter.errors import Permanent, Transient
from exporter.samples import Collected, Sample, state_set
from exporter.sessions import PostgresSession, Turn

# https://www.postgresql.org/docs/15/monitoring-stats.html#MONITORING-PG-STAT-REPLICATION-VIEW and
# https://www.postgresql.org/docs/15/view-pg-replication-slots.html. A standby can have receivers too, hence the case.
# Positions are subtracted by the server: they are 64 bits, and a float holds 53.
PRIMARY_QUERY = """
with here as materialized (
    select case when pg_is_in_recovery() then coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
           else pg_current_wal_lsn() end as lsn
)
select
    pg_has_role(current_user, 'pg_read_all_stats', 'usage') as sees_all,
    (here.lsn - '0/0'::pg_lsn)::text as position,
    (select coalesce(json_agg(json_build_object(
        'name', application_name, 'state', state, 'sync', sync_state, 'replied', extract(epoch from reply_time),
        'flushed', here.lsn - flush_lsn, 'replayed', here.lsn - replay_lsn)), '[]')
     from pg_stat_replication) as senders,
    (select coalesce(json_agg(json_build_object(
        'name', slot_name, 'active', active, 'lost', coalesce(wal_status = 'lost', false),
        'retained', here.lsn - restart_lsn)), '[]')
     from pg_replication_slots) as slots,
    (select count(*) from pg_stat_progress_basebackup) as base_backups
from here
"""
REPLICA_QUERY = """
select
    pg_has_role(current_user, 'pg_read_all_stats', 'usage') as sees_all,
    pg_is_in_recovery() as in_recovery,
    (select status from pg_stat_wal_receiver) as receiver,
    (select extract(epoch from last_msg_receipt_time) from pg_stat_wal_receiver) as last_message,
    (pg_last_wal_receive_lsn() - '0/0'::pg_lsn)::text as flushed,
    (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::text as replayed,
    extract(epoch from pg_last_xact_replay_timestamp()) as last_transaction,
    case when pg_is_in_recovery() then pg_is_wal_replay_paused() end as paused
"""

Row = Mapping[str, Any]


@dataclass(slots=True)
class Seen:
    """What one server has said: its row, and its newest heartbeat in UNIX seconds. None: nothing, or there is none."""

    row: Row | None = None
    heartbeat: float | None = None
    fault: str | None = None


class ReplicationCollector:
    """One primary and the replicas that the configuration expects."""

    name = "replication"

    def __init__(self, sessions: Mapping[str, PostgresSession], settings: ReplicationSettings) -> None:
        self._settings = settings
        replicas = (replica.server for replica in settings.replicas.values())
        names = (settings.primary, *(name for name in replicas if name is not None))
        self._sessions = {name: sessions[name] for name in names}
        self._heartbeat = None if settings.heartbeat is None else heartbeat_query(settings.heartbeat)

    async def collect(self, deadline: float) -> Collected:
        turns = {name: session.turn() for name, session in self._sessions.items()}  # before any cursor's
        try:
            found = await asyncio.gather(*(self._read(name, turn, deadline) for name, turn in turns.items()))
        finally:
            for turn in turns.values():
                turn.end()
        seen = dict(zip(turns, found, strict=True))
        faults = [each.fault for each in found if each.fault]
        return Collected(parse(self._settings, seen), "; ".join(faults) or None)

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    async def _read(self, name: str, turn: Turn, deadline: float) -> Seen:
        """The row first: a heartbeat that cannot be read takes nothing away from it."""
        seen, query = Seen(), PRIMARY_QUERY if name == self._settings.primary else REPLICA_QUERY
        try:
            async with self._sessions[name].transaction(deadline, turn) as connection:
                row = await connection.fetchrow(query)
                if not row["sees_all"]:
                    raise Permanent(f"postgres {name}: the role does not see replication; GRANT pg_monitor to it")
                seen.row = row
                if self._heartbeat is not None:
                    beat = await connection.fetchval(self._heartbeat)
                    seen.heartbeat = None if beat is None else float(beat)
        except (Transient, Permanent) as error:
            seen.fault = str(error)
        return seen


def heartbeat_query(heartbeat: Heartbeat) -> str:
    """The newest heartbeat in UNIX seconds. The names are identifiers by the settings' pattern, and are quoted."""
    table = ".".join(f'"{part}"' for part in heartbeat.table.split("."))
    return f'select extract(epoch from max("{heartbeat.column}")) from {table}'  # noqa: S608


def parse(settings: ReplicationSettings, seen: Mapping[str, Seen]) -> tuple[Sample, ...]:
    """Samples out of what each server has said; `seen` by the server's name.

    A side that said nothing has no sample: it is not known then, which is not 0.
    """
    primary = seen[settings.primary].row
    samples = [Sample(catalog.EXPECTED, (), float(len(settings.replicas)))]
    samples += [
        Sample(catalog.HEARTBEAT, (name,), each.heartbeat) for name, each in seen.items() if each.heartbeat is not None
    ]
    if primary is not None:
        samples += _by_primary(primary, tuple(settings.replicas))
        samples += _slots(json.loads(primary["slots"]), settings.slots)
    for name, replica in settings.replicas.items():
        row = seen[replica.server].row if replica.server is not None else None
        if row is not None:
            samples += _by_replica(name, row, None if primary is None else primary["position"])
    return tuple(samples)


def _by_primary(row: Row, expected: Sequence[str]) -> list[Sample]:
    """Who receives WAL, and how far each expected replica is by what it reports."""
    senders = [sender for sender in json.loads(row["senders"]) if sender["state"] != "backup"]
    # pg_basebackup and pg_receivewal stream too, under any name; what replays is a standby.
    standbys = {name: _best([each for each in senders if each["name"] == name and _replays(each)]) for name in expected}
    connected = [each for each in standbys.values() if each is not None]
    known = {name for name, each in standbys.items() if each is not None}
    samples = [
        Sample(catalog.CONNECTED, (), float(len(connected))),
        Sample(catalog.UNEXPECTED, (), float(sum(not (each["name"] in known and _replays(each)) for each in senders))),
        Sample(catalog.BASE_BACKUPS, (), float(row["base_backups"])),
    ]
    for name, found in standbys.items():
        streams = found is not None and found["state"] == "streaming"
        samples.append(Sample(catalog.STREAMING, (name, "primary"), float(streams)))
        samples += state_set(catalog.SYNC_STATE, (name,), () if found is None else (found["sync"],))
        if found is not None:
            if found["replied"] is not None:
                samples.append(Sample(catalog.REPLIED, (name,), float(found["replied"])))
            samples += [
                Sample(catalog.BEHIND, (name, "primary", position), float(max(0, found[position])))
                for position in ("flushed", "replayed")
                if found[position] is not None
            ]
    return samples


def _replays(sender: Row) -> bool:
    return sender["replayed"] is not None


def _best(senders: Sequence[Row]) -> Row | None:
    """The furthest one: beside a connection that has just been made anew, the old one stays until it times out."""
    return min(senders, key=lambda sender: sender["replayed"], default=None)


def _by_replica(name: str, row: Row, position: str | None) -> list[Sample]:
    """What the replica says itself; `position` is the primary's, None when that could not be asked."""
    samples = [Sample(catalog.STREAMING, (name, "replica"), float(row["receiver"] == "streaming"))]
    if not row["in_recovery"]:
        return samples  # it was promoted: its positions are of a history of its own
    times = ((catalog.LAST_MESSAGE, row["last_message"]), (catalog.REPLAYED, row["last_transaction"]))
    samples += [Sample(metric, (name,), float(value)) for metric, value in times if value is not None]
    samples.append(Sample(catalog.PAUSED, (name,), float(row["paused"])))
    if position is not None:
        samples += [
            Sample(catalog.BEHIND, (name, "replica", what), float(max(0, int(position) - int(row[what]))))
            for what in ("flushed", "replayed")
            if row[what] is not None
        ]
    return samples


def _slots(slots: Sequence[Row], expected: Sequence[str]) -> list[Sample]:
    """All slots by state, and the expected ones by name: other names are no configured ones, and stay out of labels."""
    states: dict[str, Callable[[Row], bool]] = {
        "active": lambda slot: slot["active"] and not slot["lost"],
        "inactive": lambda slot: not slot["active"] and not slot["lost"],
        "lost": lambda slot: slot["lost"],
    }
    samples = []
    for state, is_so in states.items():
        retained = [slot["retained"] or 0 for slot in slots if is_so(slot)]
        samples.append(Sample(catalog.SLOTS, (state,), float(len(retained))))
        samples.append(Sample(catalog.SLOTS_RETAINED, (state,), float(max(0, 0, *retained))))
    by_name = {slot["name"]: slot for slot in slots}
    for name in expected:
        slot = by_name.get(name)
        samples.append(Sample(catalog.SLOT_ACTIVE, (name,), float(slot is not None and slot["active"])))
        if slot is not None and not slot["lost"] and slot["retained"] is not None:
            samples.append(Sample(catalog.SLOT_RETAINED, (name,), float(max(0, slot["retained"]))))
    return samples
