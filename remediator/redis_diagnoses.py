"""What is read of a Redis before it is acted on, and for `prepctl`: its own word, who is connected, what fills it.

In: an entry of `settings.redis`. Out: a text and a sentence for people. Reads only, bounded in time and number. Never a
value, never a key's whole name, never an argument of a client's command. Raises RemediatorError when it cannot be read.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from hiredis import ReplyError

from remediator.durations import human
from remediator.errors import Permanent
from remediator.redis_link import Answer, Command, Link, connected, refusal
from remediator.redis_state import Client, Look, clients_of, fields_of, look, loss
from remediator.settings import Redis

SAMPLE = 1000  # keys that are measured
PAGE = 100  # keys a SCAN, at most about so many
SECONDS = 3.0  # for the whole sample
SECTIONS = ("Server", "Clients", "Memory", "Persistence", "Stats", "Replication", "Keyspace")
_PATHS = re.compile(r"^(executable|config_file|aof_\w*file\w*|os|tcp_port|monotonic_clock)")
CLASSES = ((1024, "under 1 KiB"), (64 * 1024, "1 to 64 KiB"), (1024 * 1024, "64 KiB to 1 MiB"))
LARGEST = "1 MiB and more"


async def info(redis: Redis) -> tuple[str, str]:
    """State, INFO, and what a restart would lose."""
    async with connected(redis) as link:
        found = await look(link, redis)
    lost = loss(found, redis) if found.state == "ready" else "not known while it is not ready"
    lines = [f"{name}:{value}" for name, value in found.info.items() if not _PATHS.match(name)]
    head = [f"state: {found.state}", f"a restart would lose: {lost or 'nothing worth keeping'}"]
    return "\n".join([*head, *([] if found.sessions is None else [f"sessions: {found.sessions}"]), "", *lines]), _said(
        found
    )


async def section(redis: Redis, name: str) -> tuple[str, str]:
    """One section of INFO as Redis has it: `memory`, `clients`, `persistence`, …; Permanent for one that it has not."""
    async with connected(redis) as link:
        (answer,) = await link.ask(("INFO", name))
    if not isinstance(answer, bytes):
        raise refusal(link.where, answer)
    fields = {each: value for each, value in fields_of(answer).items() if not _PATHS.match(each)}
    if not fields:
        raise Permanent(f"{link.where} has no section {name!r}; try one of {', '.join(SECTIONS).lower()}")
    human_ = ("used_memory_human", "maxmemory_human", "maxmemory_policy")
    words = ", ".join(f"{each} {fields[each]}" for each in human_ if each in fields)
    return "\n".join(f"{each}:{value}" for each, value in fields.items()), words or f"{len(fields)} fields of {name}"


async def clients(redis: Redis) -> tuple[str, str]:
    """The pool: how many of how many, by name, address and user, how long idle, and the commands last used."""
    async with connected(redis) as link:
        found = await look(link, redis)
        (listed,) = await link.ask(("CLIENT", "LIST"))
    if not isinstance(listed, bytes):
        raise refusal(link.where, listed)
    sources = by_source(clients_of(listed))
    used, most = found.number("connected_clients"), found.number("maxclients")
    first = f"; most by {sources[0]['source']}: {sources[0]['connections']}" if sources else ""
    sentence = f"{used} of {most} connections, {found.info.get('rejected_connections')} refused so far{first}"
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in sources), sentence


async def keys(redis: Redis) -> tuple[str, str]:
    """A sample of all keys by size class and prefix. SCAN may give a key twice or skip a new one: it is a sample."""
    sizes: Counter[str] = Counter()
    bytes_of: Counter[str] = Counter()
    prefixes: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    measured, until = 0, time.monotonic() + SECONDS
    async with connected(redis) as link:
        found = await look(link, redis)
        cursor = b"0"
        while measured < SAMPLE and time.monotonic() < until:
            cursor, names = await _page(link, cursor)
            for name, size in zip(names, await _sizes(link, names), strict=True):
                if size is None:
                    continue  # gone since
                measured += 1
                sizes[class_of(size)] += 1
                bytes_of[class_of(size)] += size
                row = prefixes[pattern(name)]
                row[0], row[1] = row[0] + 1, row[1] + size
            if cursor == b"0":
                break
    rows: list[dict[str, object]] = [
        {"size": name, "keys": sizes[name], "bytes": bytes_of[name]} for name in (*(n for _, n in CLASSES), LARGEST)
    ]
    largest = sorted(prefixes.items(), key=lambda item: -item[1][1])[:30]
    rows += [{"pattern": name, "keys": count, "bytes": size} for name, (count, size) in largest]
    most = f", most bytes under {largest[0][0]}" if largest else ""
    sentence = f"{measured} of {found.keys} keys measured, {sizes[LARGEST]} of 1 MiB and more{most}"
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows), sentence


def pattern(name: bytes) -> str:
    """A key's name without what may tell of a person: up to the first separator, and that only if it is plain."""
    prefix = re.match(rb"[A-Za-z][A-Za-z_-]{0,31}(?=[:.|/])", name)
    return f"{prefix.group().decode()}:*" if prefix else "*"


def class_of(size: int) -> str:
    """The size class of so many bytes."""
    return next((name for limit, name in CLASSES if size < limit), LARGEST)


def by_source(found: Iterable[Client]) -> list[dict[str, object]]:
    """Connections by name, address without the port, and user; those with the most first."""
    groups: dict[tuple[str, str], list[Client]] = defaultdict(list)
    for client in found:
        groups[client.source, client.user].append(client)
    rows: list[dict[str, object]] = [
        {
            "source": source,
            "user": user,
            "connections": len(members),
            "idle_over_a_minute": sum(client.idle >= 60 for client in members),
            "longest_idle_seconds": max(client.idle for client in members),
            "commands": dict(Counter(client.command for client in members).most_common(5)),
        }
        for (source, user), members in groups.items()
    ]
    return sorted(rows, key=lambda row: -int(str(row["connections"])))[:100]


async def _page(link: Link, cursor: bytes) -> tuple[bytes, Sequence[bytes]]:
    (answer,) = await link.ask(("SCAN", cursor.decode(), "COUNT", PAGE))
    if not isinstance(answer, list):
        raise refusal(link.where, answer)
    return bytes(answer[0]), list(answer[1])


async def _sizes(link: Link, names: Sequence[bytes]) -> list[int | None]:
    """Bytes of each key with its overhead, five elements sampled; None for one that is gone."""
    questions: list[Command] = [("MEMORY", "USAGE", name) for name in names]
    answers: list[Answer] = await link.ask(*questions) if questions else []
    for answer in answers:
        if isinstance(answer, ReplyError):
            raise refusal(link.where, answer)
    return [answer if isinstance(answer, int) else None for answer in answers]


def _said(found: Look) -> str:
    used = found.info.get("used_memory_human", "?")
    most = found.info.get("maxmemory_human", "?")
    up = human(float(found.info.get("uptime_in_seconds", "0")))
    clients_ = f"{found.info.get('connected_clients', '?')} of {found.info.get('maxclients', '?')} connections"
    return f"{found.state}, up {up}, {used} of {most}, policy {found.info.get('maxmemory_policy', '?')}, {clients_}"
