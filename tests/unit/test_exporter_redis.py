"""Redis: from answers to samples. What was not answered has no sample, and is told."""

from __future__ import annotations

import pytest
from hiredis import ReplyError

from exporter.collector_settings import RedisSessions
from exporter.collectors.redis import Reading, counting, fields_of, parse, state_of
from exporter.redis_wire import Answer
from exporter.samples import Sample, faults

INFO = b"""# Server\r
redis_version:7.2.9\r
# Memory\r
used_memory:1000\r
maxmemory:0\r
total_system_memory:8000\r
# Clients\r
connected_clients:3\r
maxclients:10000\r
# Persistence\r
rdb_last_bgsave_status:err\r
aof_last_write_status:ok\r
rdb_last_save_time:1700000000\r
# Keyspace\r
db0:keys=3,expires=1,avg_ttl=0\r
db12:keys=4,expires=2,avg_ttl=5,subexpiry=0\r
"""


def found(reading: Reading) -> tuple[dict[tuple[str, ...], float], list[str]]:
    samples, refused = parse("redis", reading)
    assert faults(samples) == []
    values = {
        (each.metric.name.removeprefix("prep_redis_"), *each.labels[1:]): each.value
        for each in samples
        if isinstance(each, Sample)
    }
    return values, [what for what, _ in refused]


def test_info_to_samples() -> None:
    """Numbers, words, the sum of all databases; fields that are not there give no sample and are no fault."""
    now, refused = found(Reading("ready", 0.001, INFO))
    assert refused == []
    assert (now["up",], now["ping_seconds",]) == (1, 0.001)
    assert (now["memory_used_bytes",], now["memory_max_bytes",], now["memory_limited",]) == (1000, 8000, 0)
    assert (now["rdb_last_save_successful",], now["aof_last_write_successful",]) == (0, 1)
    assert (now["keys",], now["expiring_keys",]) == (7, 3)
    assert ("evicted_keys_total",) not in now


def test_a_limit_that_is_set() -> None:
    """It is the maximum, whatever the machine has."""
    now, _ = found(Reading("ready", 0.001, INFO.replace(b"maxmemory:0", b"maxmemory:2000")))
    assert (now["memory_max_bytes",], now["memory_limited",]) == (2000, 1)


def test_no_key_is_a_number() -> None:
    """An empty server has 0 keys, which is not the same as not knowing."""
    now, _ = found(Reading("ready", 0.001, INFO[: INFO.index(b"db0")]))
    assert (now["keys",], now["expiring_keys",]) == (0, 0)


@pytest.mark.parametrize(
    ("reading", "told", "absent"),
    [
        (Reading("loading", 0.1, INFO, ReplyError("LOADING x")), ["count keys", "count sessions"], "keys"),
        (Reading("stale", 0.1, INFO, ReplyError("MASTERDOWN x")), ["count sessions"], "sessions"),
        (Reading("busy", 0.1, ReplyError("BUSY x")), ["INFO"], "keys"),
        (Reading("ready", 0.1, b"nonsense"), ["INFO"], "keys"),
        (Reading("ready", 0.1, 7, 5), ["INFO"], "memory_used_bytes"),
        (Reading("ready", 0.1, INFO, b"five"), ["count sessions"], "sessions"),
    ],
    ids=["loading", "stale", "busy", "text that is no INFO", "a number for INFO", "text for a number"],
)
def test_what_is_missing_is_told_and_not_shown(reading: Reading, told: list[str], absent: str) -> None:
    """The server is up in its state, and each part that could not be had is named."""
    now, refused = found(reading)
    assert refused == told
    assert (now["up",], now["state", reading.state]) == (1, 1)
    assert sum(value for key, value in now.items() if key[0] == "state") == 1
    assert (absent,) not in now


@pytest.mark.parametrize("value", ["", "many", "nan", "inf"])
def test_value_that_is_no_number_gives_no_sample(value: str) -> None:
    """One strange field takes no other away."""
    now, _ = found(Reading("ready", 0.1, INFO.replace(b"connected_clients:3", b"connected_clients:" + value.encode())))
    assert ("clients",) not in now
    assert now["clients_max",] == 10000


@pytest.mark.parametrize(
    ("pong", "state"),
    [
        (b"PONG", "ready"),
        (ReplyError("LOADING Redis is loading the dataset in memory"), "loading"),
        (ReplyError("MASTERDOWN Link with MASTER is down"), "stale"),
        (ReplyError("MISCONF Redis is configured to save RDB snapshots"), "writes_refused"),
        (ReplyError("BUSY Redis is busy running a script"), "busy"),
        (ReplyError("NOPERM this user has no permissions to run the 'ping' command"), None),
        (ReplyError("NOAUTH Authentication required."), None),
        (ReplyError("ERR something new"), None),
        (b"HELLO", None),
        (1, None),
    ],
)
def test_state_is_what_ping_says(pong: Answer, state: str | None) -> None:
    """Errors that say why it does not serve are states of a server that is there; all others are not."""
    assert state_of(pong) == state


@pytest.mark.parametrize(
    ("sessions", "commands"),
    [
        (None, []),
        (RedisSessions(), [("DBSIZE",)]),
        (RedisSessions(count="zcard", key="live"), [("ZCARD", "live")]),
    ],
)
def test_sessions_are_counted_by_one_command(sessions: RedisSessions | None, commands: list[tuple[str, ...]]) -> None:
    """Never a walk over the keys."""
    assert counting(sessions) == commands


def test_fields_hold_whatever_follows_the_first_colon() -> None:
    """Values with colons and lines without any are no trouble; nor is text that is not UTF-8."""
    assert fields_of(b"a:b:c\r\n# Title\r\n\r\nd:\xff\r\n") == {"a": "b:c", "d": "\ufffd"}
