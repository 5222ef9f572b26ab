"""What Redis says of itself, judged: clients, what a restart would lose, and what people are asked."""

from __future__ import annotations

from typing import Any

import pytest

from remediator.actions.close_redis_clients import CloseRedisClientsParams, choose
from remediator.actions.mending_redis import against
from remediator.actions.registry import CLASSES
from remediator.errors import Permanent
from remediator.planner import next_step
from remediator.reasons import Reason
from remediator.redis_diagnoses import class_of, pattern
from remediator.redis_state import Look, clients_of, loss
from remediator.settings import Redis
from remediator.steps import AskApproval, Intend
from tests.unit.cases import History, preview, view, world

LINE = (
    "id={id} addr=10.0.0.1:{id} laddr=10.0.0.9:6379 fd=8 name={name} age=900 idle={idle} flags={flags} db=0 sub={sub} "
    "psub=0 ssub=0 multi={multi} qbuf={qbuf} qbuf-free=0 argv-mem=10 multi-mem=0 rbs=1024 rbp=0 obl=0 oll=0 omem={omem} "
    "tot-mem=22298 events=r cmd=get user={user} redir=-1 resp=2 lib-name= lib-ver="
)
PLAIN = {"name": "app", "idle": 900, "flags": "N", "sub": 0, "multi": -1, "qbuf": 0, "omem": 0, "user": "default"}
REDIS = Redis(host="redis", protected_users=("batch",))


def line(number: int, **changes: Any) -> str:
    return LINE.format(**{**PLAIN, "id": number, **changes})


def chosen(*lines: str, **params: Any) -> list[int]:
    wanted = CloseRedisClientsParams(service="redis", **{"min_idle": 600.0, "keep": 0, **params})
    return [client.id for client in choose(clients_of("\n".join(lines).encode()), wanted, REDIS)[0]]


@pytest.mark.parametrize(
    "changes",
    [
        {"idle": 599},
        {"flags": "S"},
        {"flags": "M"},
        {"flags": "b"},
        {"flags": "P"},
        {"flags": "O"},
        {"flags": "x"},
        {"flags": "Nx"},
        {"sub": 1},
        {"multi": 0},
        {"qbuf": 10},
        {"omem": 10},
        {"name": "prep_exporter"},
        {"name": "PREP_exporter:2"},
        {"name": "prep-remediator/0123"},
        {"user": "batch"},
    ],
)
def test_only_an_ordinary_idle_client_is_chosen(changes: dict[str, Any]) -> None:
    """One thing that differs from an ordinary idle client is enough."""
    assert chosen(line(1), line(2, **changes)) == [1]


def test_the_longest_idle_first_and_no_more_than_allowed() -> None:
    """The number is a bound, and who stays of each source was used last."""
    lines = [line(number, idle=1000 + number) for number in range(1, 6)]
    assert chosen(*lines, max_clients=2) == [5, 4]
    assert chosen(*lines, keep=3) == [5, 4]
    assert chosen(*lines, line(6, name="other", idle=5000), keep=3) == [5, 4]


def test_a_line_that_cannot_be_read_closes_nothing() -> None:
    """Half a list is no list."""
    with pytest.raises(Permanent, match="CLIENT LIST"):
        clients_of(f"{line(1)}\nid=2 addr=?".encode())


SAVED = {
    "db0": "keys=10,expires=0,avg_ttl=0",
    "aof_enabled": "0",
    "aof_last_write_status": "ok",
    "rdb_changes_since_last_save": "0",
    "rdb_last_bgsave_status": "ok",
    "rdb_last_save_time": "1000",
    "maxmemory_policy": "noeviction",
    "role": "master",
}


def found(state: str = "ready", sessions: int | None = None, **info: str) -> Look:
    return Look(state, {**SAVED, **info}, sessions, 1600.0)


@pytest.mark.parametrize(
    ("look", "entry", "lost"),
    [
        (found(), {}, ""),
        (found(rdb_changes_since_last_save="3"), {}, "10 keys (3 changes since the last save or start 10m ago"),
        (found(rdb_changes_since_last_save="3"), {"cache_only": True}, ""),
        (found(rdb_changes_since_last_save="3", db0="keys=0,expires=0,avg_ttl=0"), {}, ""),
        (found(rdb_changes_since_last_save="3", aof_enabled="1"), {}, ""),
        (found(rdb_changes_since_last_save="3", aof_enabled="1", aof_last_write_status="err"), {}, "10 keys"),
        (found(rdb_last_bgsave_status="err"), {}, "10 keys"),
        (found(rdb_changes_since_last_save="3", sessions=7), {}, "7 sessions in 10 keys"),
        (found(rdb_changes_since_last_save="3", sessions=0), {}, "0 sessions in 10 keys"),
        # Any key may go at any time, and the owner has said where the sessions live: there are none.
        (found(rdb_changes_since_last_save="3", sessions=0, maxmemory_policy="allkeys-lru"), {}, ""),
        (found(rdb_changes_since_last_save="3", maxmemory_policy="allkeys-lru"), {}, "10 keys"),
        (found(rdb_changes_since_last_save="3", sessions=7, maxmemory_policy="allkeys-lru"), {}, "7 sessions"),
        (found(rdb_changes_since_last_save="3", sessions=0, maxmemory_policy="volatile-lru"), {}, "0 sessions"),
    ],
)
def test_what_a_restart_would_lose(look: Look, entry: dict[str, Any], lost: str) -> None:
    """Persistence, eviction policy and sessions decide; what is not told counts as lost."""
    told = loss(look, Redis(host="redis", **entry))
    assert told.startswith(lost)
    assert bool(told) is bool(lost)


def test_a_loss_waits_for_a_person_in_mode_auto() -> None:
    """What the target asks for binds the planner as a rung's own `approval` does, under the lock too."""
    history = History().diagnosed()
    assert isinstance(next_step(view(history, world=world())), Intend)
    asking = world(preview=preview(asks="It would lose 7 sessions."))
    question = next_step(view(history, world=asking))
    assert isinstance(question, AskApproval)


@pytest.mark.parametrize(
    ("look", "reason"),
    [
        (found("loading", loading="1"), Reason.REDIS_LOADING),
        (found(rdb_bgsave_in_progress="1"), Reason.REDIS_LOADING),
        (found(aof_rewrite_in_progress="1"), Reason.REDIS_LOADING),
        (found("cannot_save"), Reason.REDIS_CANNOT_SAVE),
        (found(rdb_last_bgsave_status="err"), Reason.REDIS_CANNOT_SAVE),
        (found(aof_last_write_status="err"), Reason.REDIS_CANNOT_SAVE),
        (found(role="slave"), Reason.REDIS_ROLE),
        (found("busy"), Reason.TARGET_UNREACHABLE),
    ],
)
def test_redis_own_reasons_by_name(look: Look, reason: Reason) -> None:
    """Each has its own name: LOADING is not down, MISCONF is the disk."""
    assert [refusal.reason for refusal in against(look)] == [reason]
    assert against(found()) == ()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"session:7f3a", "session:*"),
        (b"cart|ana@example.com", "cart:*"),
        (b"ana@example.com:cart", "*"),
        (b"4111111111111111", "*"),
        (b"ana", "*"),
        (b"\xff:\x00", "*"),
    ],
)
def test_a_keys_name_does_not_get_through(name: bytes, shown: str) -> None:
    """Only a plain word before the first separator is shown."""
    assert pattern(name) == shown


def test_sizes_have_classes() -> None:
    """Bounds belong to the class above."""
    assert [class_of(size) for size in (1023, 1024, 65536, 1048576)] == [
        "under 1 KiB",
        "1 to 64 KiB",
        "64 KiB to 1 MiB",
        "1 MiB and more",
    ]


def test_every_redis_action_is_registered() -> None:
    """What is not listed cannot run."""
    names = {action.name for action in CLASSES}
    assert names >= {"close_redis_clients", "purge_redis_memory", "raise_redis_maxmemory", "restart_redis"}
