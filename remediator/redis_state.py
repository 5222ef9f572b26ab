"""What a Redis server says of itself, as values: its state, its memory, its clients, and what a restart would lose.

Pure but for `look`, which reads. It never sees a key's name or value. Fields: https://redis.io/docs/latest/commands/info/
and .../client-list/, Redis 6.2 and 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hiredis import ReplyError

from remediator.durations import human
from remediator.errors import Permanent
from remediator.redis_link import Command, Link, code, refusal
from remediator.settings import Redis, RedisSessions

STATES = {"LOADING": "loading", "MASTERDOWN": "stale", "MISCONF": "cannot_save", "BUSY": "busy"}
"""First word of an error that PING is answered with, to the state that it tells."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a server.

    state     ready, loading, stale, cannot_save, busy: what it answers a PING with
    info      INFO's fields
    sessions  how many there are; None where the settings do not say where they live
    now       UNIX seconds on the server's clock
    """

    state: str
    info: Mapping[str, str]
    sessions: int | None
    now: float

    def number(self, field: str) -> int:
        """A whole number of INFO. Raises Permanent where this server does not tell it."""
        try:
            return int(self.info[field])
        except (KeyError, ValueError) as error:
            raise Permanent(
                f"Redis does not tell {field} in INFO (version {self.info.get('redis_version')})"
            ) from error

    @property
    def run_id(self) -> str:
        """This life of the server: another one after each start."""
        return self.info.get("run_id", "")

    @property
    def keys(self) -> int:
        """Of all databases: `db0:keys=3,expires=1,avg_ttl=0`; an empty one has no line. Our own marks count too."""
        lines = [value for name, value in self.info.items() if name.startswith("db") and name[2:].isdigit()]
        return sum(int(line.split(",")[0].removeprefix("keys=")) for line in lines)

    @property
    def evicts(self) -> bool:
        """May a key go away before its time for want of memory?"""
        return self.info.get("maxmemory_policy") != "noeviction" and self.info.get("maxmemory") != "0"


@dataclass(frozen=True, slots=True)
class Client:
    """A line of CLIENT LIST. Times in seconds; `flags` as Redis writes them, N for nothing special."""

    id: int
    address: str
    name: str
    user: str
    age: int
    idle: int
    flags: str
    subscriptions: int
    in_transaction: bool
    pending: int
    command: str

    @property
    def source(self) -> str:
        """Who opened it, as far as is known: name and address without the port."""
        return f"{self.name or '-'} from {self.address.rpartition(':')[0]}"


async def look(link: Link, redis: Redis) -> Look:
    """PING, TIME, INFO and the sessions' count in one write. Raises Permanent or Transient when it does not tell."""
    count = counting(redis.sessions)
    select: list[Command] = [("SELECT", redis.sessions.database)] if redis.sessions and redis.sessions.database else []
    back: list[Command] = [("SELECT", 0)] if select else []
    pong, time, info, *rest = await link.ask(("PING",), ("TIME",), ("INFO",), *select, *count, *back)
    state = "ready" if pong == b"PONG" else STATES.get(code(pong), "")
    if not state:
        raise refusal(link.where, pong)
    if not isinstance(info, bytes):
        raise refusal(link.where, info)
    fields = fields_of(info)
    if fields.get("loading") == "1":
        state = "loading"
    now = float(time[0]) + float(time[1]) / 1e6 if isinstance(time, list) else 0.0
    if not now:
        raise refusal(link.where, time)
    sessions = rest[len(select)] if count else None
    if isinstance(sessions, ReplyError) and state not in ("loading", "busy", "stale"):
        raise refusal(link.where, sessions)
    return Look(state, fields, sessions if isinstance(sessions, int) else None, now)


def counting(sessions: RedisSessions | None) -> list[Command]:
    """The command, of constant cost, that counts the sessions; none when none are configured."""
    if sessions is None:
        return []
    return [(sessions.count.upper(),) if sessions.key is None else (sessions.count.upper(), sessions.key)]


def fields_of(info: bytes) -> dict[str, str]:
    """INFO's lines `name:value`."""
    lines = info.decode("utf-8", errors="replace").splitlines()
    return {name: value for name, found, value in (line.partition(":") for line in lines) if found}


def clients_of(listed: bytes) -> tuple[Client, ...]:
    """CLIENT LIST's lines; one that lacks a field makes the whole list unreadable: KeyError becomes Permanent."""
    found = []
    for line in listed.decode("utf-8", errors="replace").splitlines():
        fields = {name: value for name, _, value in (word.partition("=") for word in line.split(" "))}
        try:
            found.append(_client(fields))
        except (KeyError, ValueError) as error:
            raise Permanent(f"a line of CLIENT LIST cannot be read: {error}") from error
    return tuple(found)


def _client(fields: Mapping[str, str]) -> Client:
    return Client(
        id=int(fields["id"]),
        address=fields["addr"],
        name=fields["name"],
        user=fields["user"],
        age=int(fields["age"]),
        idle=int(fields["idle"]),
        flags=fields["flags"],
        subscriptions=sum(int(fields.get(name, "0")) for name in ("sub", "psub", "ssub")),
        in_transaction=fields["multi"] != "-1" or int(fields.get("watch", "0")) > 0,
        pending=sum(int(fields.get(name, "0")) for name in ("qbuf", "obl", "oll", "omem")),
        command=fields["cmd"],
    )


def loss(found: Look, redis: Redis) -> str:
    """What a restart would lose, as words for people; "" when nothing that anybody wants to keep. Pure.

    With the append-only file on and written, nothing. With snapshots, what changed since the last good one: the one
    that Redis makes on its way down may take longer than Docker's grace period, so it is not counted on. A policy of
    `allkeys-…` says that any key may go at any time; that makes it a cache only where the settings say where the
    sessions live and there are none.
    """
    if redis.cache_only or not found.keys:
        return ""
    info = found.info
    if info.get("aof_enabled") == "1" and info.get("aof_last_write_status") == "ok":
        return ""
    changes = found.number("rdb_changes_since_last_save")
    if changes == 0 and info.get("rdb_last_bgsave_status") == "ok":
        return ""
    policy = info.get("maxmemory_policy", "unknown")
    if policy.startswith("allkeys-") and found.sessions == 0:
        return ""
    what = f"{found.keys:,} keys" if found.sessions is None else f"{found.sessions:,} sessions in {found.keys:,} keys"
    age = human(max(1.0, round(found.now - found.number("rdb_last_save_time"))))
    return f"{what} ({changes:,} changes since the last save or start {age} ago, no append-only file, policy {policy})"
