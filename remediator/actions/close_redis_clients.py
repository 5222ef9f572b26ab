"""Close connections to Redis that nobody has used for long: what a leak leaves behind.

Only ordinary clients that wait for nothing: no replica, no subscriber, none blocked, in a transaction or watching, none
with bytes to read or write, no protected name or user, never our own. Of each source (name and address) the most lately
used stay open: a pool keeps some idle, a leak has many.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Annotated, ClassVar

from hiredis import ReplyError
from pydantic import BaseModel, Field

from remediator.actions.base import Call, Item, Outcome, Result, Risk
from remediator.actions.mending_redis import MendingRedis, RedisParams, Selected, Step
from remediator.actions.redis_guard import Passed
from remediator.durations import Duration, human
from remediator.reasons import Reason, Refusal
from remediator.redis_link import Command, Link, refusal
from remediator.redis_state import Client, Look, clients_of
from remediator.settings import Redis


class CloseRedisClientsParams(RedisParams):
    """
    min_idle     seconds without a command, at least
    keep         how many connections of each source stay open, the most lately used
    max_clients  how many at most in one call, the longest idle first
    """

    min_idle: Annotated[Duration, Field(ge=1.0, le=604800.0)] = 600.0
    keep: int = Field(default=10, ge=0, le=10000)
    max_clients: int = Field(default=200, ge=1, le=1000)


class CloseRedisClients(MendingRedis):
    """`CLIENT KILL` by id, address and user, and of ordinary clients only: Redis compares all of them itself.

    How long a client is idle, CLIENT KILL cannot ask; that is looked at one round trip before (`step`).
    """

    name: ClassVar[str] = "close_redis_clients"
    risk: ClassVar[Risk] = Risk.DISRUPTIVE
    idempotent: ClassVar[bool] = False
    params_model: ClassVar[type[BaseModel]] = CloseRedisClientsParams

    async def select(self, link: Link, found: Look, params: BaseModel) -> Selected:
        wanted = CloseRedisClientsParams.model_validate(params.model_dump())
        redis = self._settings.redis[wanted.service]
        clients = await listed(link)
        chosen, left = choose(clients, wanted, redis)
        most = found.info.get("maxclients", "?")
        if not chosen:
            words = "; ".join(dict.fromkeys(why for _, why in left))
            sentence = f"None of {len(clients)} connections (of {most}) may be closed. {words}".strip()
            return Selected((), "Close nothing.", (Refusal(Reason.NOTHING_TO_DO, sentence),))
        return Selected(
            items=tuple(_item(client, found) for client in chosen),
            summary=f"Close {len(chosen)} of {len(clients)} connections to {wanted.service} (at most {most}), "
            f"idle for {human(min(client.idle for client in chosen))} or longer.",
            left_out=tuple({**_item(client, found), "why": why} for client, why in left[:20]),
        )

    async def step(self, link: Link, found: Look, call: Call) -> Step:
        del found
        wanted = CloseRedisClientsParams.model_validate(call.params.model_dump())
        redis = self._settings.redis[wanted.service]
        chosen, _ = choose(await listed(link), wanted, redis)
        still = {(client.id, client.address, client.user) for client in chosen}
        items = tuple(item for item in call.items if (item["id"], item["address"], item["user"]) in still)
        return Step(items, tuple(_kill(item) for item in items))

    def told(self, step: Step, passed: Passed) -> Outcome:
        pairs = list(zip(step.items, passed.answers, strict=True))
        touched = tuple(item for item, answer in pairs if answer == 1)
        refused = next((answer for _, answer in pairs if isinstance(answer, ReplyError)), None)
        said = f"{len(touched)} of {len(step.items)} connections closed"
        if refused is not None:
            said += f"; Redis refused the others: {refused}"
        elif len(touched) < len(step.items):
            said += "; the others were gone or were somebody else's by then"
        return Outcome(Result.DONE if touched else Result.FAILED, f"{said}.", touched)

    async def still(self, link: Link, found: Look, call: Call) -> Sequence[Item]:
        del found
        there = {(client.id, client.address) for client in await listed(link)}
        return [item for item in call.items if (item["id"], item["address"]) in there]


async def listed(link: Link) -> tuple[Client, ...]:
    """Every client. Raises Permanent when our user may not see them."""
    (answer,) = await link.ask(("CLIENT", "LIST"))
    if not isinstance(answer, bytes):
        raise refusal(link.where, answer)
    return clients_of(answer)


def choose(
    clients: Iterable[Client], wanted: CloseRedisClientsParams, redis: Redis
) -> tuple[list[Client], list[tuple[Client, str]]]:
    """What may be closed, the longest idle first, and what is idle and left alone, with the reason. Pure."""
    sources: dict[str, list[Client]] = defaultdict(list)
    left: list[tuple[Client, str]] = []
    for client in clients:
        why = protected(client, redis)
        if not why:
            sources[client.source].append(client)
        elif client.idle >= wanted.min_idle:
            left.append((client, why))
    able: list[Client] = []
    for ours in sources.values():
        lately = sorted(ours, key=lambda client: (client.idle, -client.id))
        left += [
            (client, "a pool keeps some idle") for client in lately[: wanted.keep] if client.idle >= wanted.min_idle
        ]
        able += [client for client in lately[wanted.keep :] if client.idle >= wanted.min_idle]
    able.sort(key=lambda client: (-client.idle, client.id))
    left += [(client, f"at most {wanted.max_clients} a call") for client in able[wanted.max_clients :]]
    return able[: wanted.max_clients], left


def protected(client: Client, redis: Redis) -> str:
    """Why this client is never closed, however idle; "" when it may be. Pure."""
    prefix = next((name for name in redis.protected_clients if client.name.lower().startswith(name.lower())), None)
    if prefix is not None or client.name.startswith("prep-remediator"):
        return f"clients named {prefix or 'prep-remediator'} are protected"
    if client.user in redis.protected_users:
        return f"clients of user {client.user} are protected"
    if client.flags != "N":
        return f"no ordinary client (flags {client.flags})"
    if client.subscriptions:
        return "it has subscriptions"
    if client.in_transaction:
        return "it is in a transaction, or watches keys"
    return "it has bytes to read or write" if client.pending else ""


def _kill(item: Item) -> Command:
    identity = ("ID", int(item["id"]), "ADDR", str(item["address"]), "USER", str(item["user"]))
    return ("CLIENT", "KILL", *identity, "TYPE", "normal", "SKIPME", "yes")


def _item(client: Client, found: Look) -> Item:
    return {
        "run_id": found.run_id,
        "id": client.id,
        "address": client.address,
        "name": client.name[:64],
        "user": client.user,
        "idle": client.idle,
    }
