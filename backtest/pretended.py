"""What stands in the place of the outside while the past is replayed: sight, actions, people and evidence.

What a history of series holds is asked of it: the alert's rule, its causes, what was scraped. What it cannot hold is
assumed, and each assumption is in `ASSUMED`, with the words that the report gives it. Nothing here has an effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel

from backtest.past import Past
from remediator import rules
from remediator.actions import registry
from remediator.actions.base import Action, Call, Outcome, Preview, Result, Settled, Settlement
from remediator.people import OwnAlert
from remediator.reasons import Reason, Refusal
from remediator.runbooks import Runbook, Rung
from remediator.settings import Settings
from remediator.world import Answer, CheckSample, Evidence, Health, ProofLook, World

ASSUMED: Mapping[str, str] = {
    "target": "The target itself had no reason against it: its container was the expected one, labelled, not young and "
    "nobody worked in it; the query had written nothing; and there was something to act on.",
    "probe": "The remediator's own direct probe would have found the target ill, as the alert's rule did.",
    "silences": "No person had silenced the alert, and no other alert inhibited it.",
    "people": "Nobody paused anything, and nobody answered a question: what needs a yes is counted as `would ask`.",
    "evidence": "The evidence could be captured.",
    "effect": "What would have been done changed nothing: the world went on as recorded. So a fault that lasted takes "
    "the ladder to its end, and limits are charged for it.",
    "mode": "Everything was allowed to act: the settings' mode is taken for auto, and so is a runbook's `shadow`. A "
    "runbook in `approve` asks.",
    "alone": "What ended soon ended by itself: that a person mended it, or the remediator, is in no history.",
    "proof": "Of the proof only one thing is known: whether the alert's rule was true. Not true for the hold time "
    "counts as proven.",
    "rules": "The rules are those that Prometheus has loaded now, and it could evaluate them.",
    "looks": "It looked again at the moment at which anything changed. A living remediator looks each 15 s, and may "
    "miss what lasts shorter: it may keep an episode that is closed here and opened again.",
    "servers": "One Prometheus is asked, and a living remediator asks all of them: they would have agreed.",
    "delivery": "Alertmanager delivered every alert that a runbook matches, at once, and its end at the next "
    "minute (the shipped route), without relabelling.",
    "budget": "The automation's own budget demotes no runbook, since no verdict is known.",
    "footing": "The remediator, its journal and its clock were well all the time.",
}
"""What no history of series holds, and what is taken for it."""

UNSEEN: Mapping[Reason, str] = {
    **{
        reason: "target"
        for reason in Reason
        if reason.startswith(("target_", "query_", "replica_", "redis_"))
        and reason not in (Reason.TARGET_BUSY, Reason.TARGET_NOT_ALLOWED, Reason.TARGET_IN_DOUBT)
    },
    Reason.NEVER_LIST: "target",
    Reason.NOTHING_TO_DO: "target",
    Reason.PROVIDER_FAILING: "target",
    Reason.VANTAGE_DISAGREES: "probe",
    Reason.VANTAGE_UNKNOWN: "probe",
    Reason.MUTED: "silences",
    Reason.ALERTMANAGER_UNREACHABLE: "silences",
    Reason.PAUSED: "people",
    Reason.NEEDS_APPROVAL: "people",
    Reason.DECLINED: "people",
    Reason.NO_EVIDENCE: "evidence",
    Reason.SHADOW: "mode",
    Reason.TARGET_IN_DOUBT: "effect",
    Reason.CLOCK: "footing",
    Reason.LOOK_STALE: "footing",
    Reason.RECOVERING: "footing",
    Reason.JOURNAL_REGRESSED: "footing",
}
"""Reasons of a living remediator that no history shows, each with the assumption in its place."""

ASKS = {"restart_redis": "What Redis would lose by it cannot be known from its history."}
"""Actions whose target may say that a person must agree: it is taken to say so."""

FAMILIES: Mapping[str, str] = {
    "cancel_query": "pg",
    "terminate_query": "pg",
    "close_redis_clients": "docker",
    "purge_redis_memory": "docker",
    "raise_redis_maxmemory": "docker",
    "prune_docker": "docker",
    "restart_redis": "docker",
    "restart_replica": "docker",
    "restart_service": "docker",
    "start_service": "docker",
    "retry_failed_payments": "payments",
}
"""How an action names what it acts on. An action that is not here shares one resource with all such."""


class PastSight:
    """Looks at the recorded world."""

    def __init__(self, past: Past, actions: Mapping[str, Action]) -> None:
        self._past, self._actions = past, actions

    async def look(
        self, book: Runbook, rung: Rung, params: BaseModel | None, labels: Mapping[str, str], now: float
    ) -> World:
        """The rule and its causes as recorded; all else as assumed."""
        names = (labels["alertname"],) if "alertname" in labels else book.match.alertnames
        target = {name: labels.get(name, "") for name in book.target_labels}
        found = await rules.look(self._past, names, target, labels.get("job"), book.blocked_by)
        action = self._actions.get(rung.action)
        preview = await action.preview(params) if action is not None and params is not None else None
        return World(
            looked_at=now,
            rule=found.answer,
            rule_detail=found.detail,
            skew=found.skew if found.skew is not None else 0.0,
            causes=found.causes,
            muted=Answer.NO,
            muted_by="",
            probe=Health.SICK,
            probe_detail="assumed",
            preview=preview,
            preview_error="" if preview else f"no action {rung.action}, or no valid parameters for it",
            pause_file=False,
        )

    async def rule(self, alertname: str, labels: Mapping[str, str]) -> tuple[Answer, str, float | None]:
        """Was the rule true? As `Sight.rule`."""
        ours = ("alertname", "job", "environment")
        target = {name: value for name, value in labels.items() if name not in ours}
        found = await rules.look(self._past, (alertname,), target, labels.get("job"), ())
        return found.answer, found.detail, found.skew

    async def proof(self, book: Runbook, labels: Mapping[str, str], since: float, now: float) -> ProofLook:
        """One check, in place of the runbook's: is any rule of the runbook true for this target?"""
        target = {name: labels.get(name, "") for name in book.target_labels}
        found = await rules.look(self._past, book.match.alertnames, target, labels.get("job"), ())
        good = {Answer.NO: True, Answer.YES: False}.get(found.answer)
        value = None if good is None else float(not good)
        probe = {True: Health.HEALTHY, False: Health.SICK, None: Health.UNKNOWN}[good]
        return ProofLook(now, (CheckSample("the alert's rule", value, good, found.detail),), probe, "assumed")

    async def active_alerts(self) -> list[bytes]:
        """Nobody asks: what is delivered is all there is."""
        return []


class Pretended(Action):
    """An action that is not done. Name, risk, parameters and deadline are those of the real one."""

    real: ClassVar[type[Action]]

    def __init__(self, settings: Settings, known: bool, now: Callable[[], float]) -> None:
        self._settings, self._known, self._now = settings, known, now

    async def preview(self, params: BaseModel) -> Preview:
        """One thing to act on, always the same; and what the settings forbid, where they are known."""
        service = str(getattr(params, "service", ""))
        refusals: tuple[Refusal, ...] = ()
        if self._known:
            faults = self.real.obstacles(self._settings, service)
            refusals = tuple(Refusal(Reason.TARGET_NOT_ALLOWED, f"Settings: {fault}.") for fault in faults)
        resource = self._resource(service)
        summary = f"{self.name} {service}".strip()
        items = ({"id": resource},)
        return Preview(resource, summary, items, self._now(), refusals, asks=ASKS.get(self.name, ""))

    def _resource(self, service: str) -> str:
        """What limits and holds belong to. Where two targets may be one, they are taken for one: that acts less."""
        family = FAMILIES.get(self.name, "any")
        if family == "docker":
            project = f"docker:{self._settings.docker.project}"
            return f"{project}/{service}" if service else project
        if family == "pg":
            if not self._known:
                return "pg:any"
            found = self._settings.databases.get(service)
            return f"pg:{(found.replica_of if found else None) or service}"
        return f"{family}:{service}"

    async def execute(self, call: Call) -> Outcome:
        """Not done; the replay goes on as if it had been, and had changed nothing."""
        return Outcome(Result.DONE, "assumed; nothing was done", call.items)

    async def settle(self, call: Call) -> Settled:
        """Never asked: no outcome here is in doubt."""
        return Settled(Settlement.UNKNOWN, "nothing was done")


def actions(settings: Settings, known: bool, now: Callable[[], float]) -> Mapping[str, Action]:
    """One for each real action. `known`: the settings are the remediator's own, and say what it may act on."""
    made: dict[str, Action] = {}
    for real in registry.CLASSES:
        body: dict[str, Any] = {
            "real": real,
            "name": real.name,
            "risk": real.risk,
            "idempotent": real.idempotent,
            "deadline": real.deadline,
            "params_model": real.params_model,
        }
        made[real.name] = type(f"Pretended{real.__name__}", (Pretended,), body)(settings, known, now)
    return made


class NoPeople:
    """Nobody is told."""

    async def post(self, alerts: Sequence[OwnAlert]) -> bool:
        return True


class NoEvidence:
    """Evidence is assumed to be there."""

    async def run(self, episode: str, names: Sequence[str], labels: Mapping[str, str]) -> Evidence:
        return Evidence("", "assumed", True, {})
