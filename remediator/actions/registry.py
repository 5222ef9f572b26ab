"""Every action there is, by name. Nothing is found by import tricks: what is not listed cannot run."""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp
from pydantic import BaseModel

from remediator.actions.base import Action
from remediator.actions.cancel_query import CancelQuery
from remediator.actions.close_redis_clients import CloseRedisClients
from remediator.actions.prune_docker import PruneDocker
from remediator.actions.purge_redis_memory import PurgeRedisMemory
from remediator.actions.raise_redis_maxmemory import RaiseRedisMaxmemory
from remediator.actions.restart_redis import RestartRedis
from remediator.actions.restart_replica import RestartReplica
from remediator.actions.restart_service import RestartService
from remediator.actions.retry_payments import RetryFailedPayments
from remediator.actions.start_service import StartService
from remediator.actions.terminate_query import TerminateQuery
from remediator.clock import Clock
from remediator.settings import Settings

CLASSES: tuple[type[Action], ...] = (
    CancelQuery,
    CloseRedisClients,
    PruneDocker,
    PurgeRedisMemory,
    RaiseRedisMaxmemory,
    RestartRedis,
    RestartReplica,
    RestartService,
    RetryFailedPayments,
    StartService,
    TerminateQuery,
)
NAMES = frozenset(action.name for action in CLASSES)
PARAMS: Mapping[str, type[BaseModel]] = {action.name: action.params_model for action in CLASSES}
"""What each action takes: a runbook's parameters are checked against it when it is loaded."""


def build(settings: Settings, session: aiohttp.ClientSession, clock: Clock) -> Mapping[str, Action]:
    """The actions with their clients. `session` belongs to the caller and outlives them."""
    actions: tuple[Action, ...] = (
        CancelQuery(settings, clock),
        CloseRedisClients(settings, clock),
        PruneDocker(settings, session, clock),
        PurgeRedisMemory(settings, clock),
        RaiseRedisMaxmemory(settings, session, clock),
        RestartRedis(settings, session, clock),
        RestartReplica(settings, session, clock),
        RestartService(settings, session, clock),
        RetryFailedPayments(settings, session, clock),
        StartService(settings, session, clock),
        TerminateQuery(settings, clock),
    )
    return {action.name: action for action in actions}
