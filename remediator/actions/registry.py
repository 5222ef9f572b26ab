"""Every action there is, by name. Nothing is found by import tricks: what is not listed cannot run."""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp
from pydantic import BaseModel

from remediator.actions.base import Action
from remediator.actions.cancel_query import CancelQuery
from remediator.actions.close_redis_clients import CloseRedisClients
from remediator.actions.purge_redis_memory import PurgeRedisMemory
from remediator.actions.raise_redis_maxmemory import RaiseRedisMaxmemory
from remediator.actions.restart_redis import RestartRedis
from remediator.actions.restart_service import RestartService
from remediator.actions.terminate_query import TerminateQuery
from remediator.clock import Clock
from remediator.settings import Settings

CLASSES: tuple[type[Action], ...] = (
    CancelQuery,
    CloseRedisClients,
    PurgeRedisMemory,
    RaiseRedisMaxmemory,
    RestartRedis,
    RestartService,
    TerminateQuery,
)
NAMES = frozenset(action.name for action in CLASSES)
PARAMS: Mapping[str, type[BaseModel]] = {action.name: action.params_model for action in CLASSES}
"""What each action takes: a runbook's parameters are checked against it when it is loaded."""


def build(settings: Settings, session: aiohttp.ClientSession, clock: Clock) -> Mapping[str, Action]:
    """The actions with their clients. `session` belongs to the caller and outlives them."""
    actions: tuple[Action, ...] = (
        CancelQuery(settings, clock),
        TerminateQuery(settings, clock),
        RestartService(settings, session, clock),
        CloseRedisClients(settings, clock),
        PurgeRedisMemory(settings, clock),
        RaiseRedisMaxmemory(settings, session, clock),
        RestartRedis(settings, session, clock),
    )
    return {action.name: action for action in actions}
