"""Looking at the world: every Prometheus, every Alertmanager and the target itself, side by side.

In: settings, runbook, target labels. Out: the values of `world.py`. Reads only, each question with its own
timeout; a server that does not answer is "unknown", never an exception and never a permission.

What Prometheus calls firing is not believed: `keep_firing_for`, a restart or a dead exporter make it lie. The
rule's expression, as the server has it loaded, is evaluated anew. An empty answer counts as "not true" only
while the server sees the job that the alert came from (`up`), for a cut-off exporter has no bad samples either.
No text of an alert ever becomes PromQL.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import aiohttp
import structlog
from pydantic import BaseModel

from remediator import notifications, pause_file, probing, proofs, rules
from remediator.actions.base import Action, Preview
from remediator.alertmanager import Alertmanager
from remediator.clock import Clock
from remediator.errors import RemediatorError
from remediator.probing import Probed
from remediator.prometheus import Prometheus
from remediator.rules import RuleLook
from remediator.runbooks import Runbook, Rung
from remediator.settings import Settings
from remediator.together import Together
from remediator.world import Answer, Health, ProofLook, World

log = structlog.get_logger(__name__)
SLOW = 1.0  # seconds: when the probe took longer, the other questions are asked once more
OURS = frozenset({"alertname", "job", "environment"})  # no rule's result carries them as a target


class Sight:
    """The remediator's eyes."""

    def __init__(
        self, settings: Settings, session: aiohttp.ClientSession, actions: Mapping[str, Action], clock: Clock
    ) -> None:
        self._settings = settings
        self._session = session
        self._actions = actions
        self._clock = clock
        self._together = Together()
        prometheus, alertmanager = settings.prometheus, settings.alertmanager
        self._prometheus = tuple(Prometheus(url, session, prometheus.timeout) for url in prometheus.urls)
        self._alertmanagers = tuple(Alertmanager(url, session, alertmanager.timeout) for url in alertmanager.urls)

    async def look(
        self, book: Runbook, rung: Rung, params: BaseModel | None, labels: Mapping[str, str], now: float
    ) -> World:
        """Everything that can forbid an effect. `now` is the journal's clock at the call.

        `labels` are the alert's, or only the target's: then the rule is any of the runbook's, and silences are
        compared by target alone where an Alertmanager does not hold the alert. When a slow target's probe
        outlives the other answers by more than a second, those are asked again, and `looked_at` is when that
        began: the rest must not be stale.
        """
        began = self._clock.boottime()
        found = asyncio.ensure_future(self.probe(labels))
        try:
            world = await self._ask(book, rung, params, labels, now)
            probed = await found
            took = self._clock.boottime() - began
            if took > SLOW:
                world = await self._ask(book, rung, params, labels, now + took)
        finally:
            found.cancel()
        return replace(world, probe=probed.health, probe_detail=probed.detail)

    async def _ask(
        self, book: Runbook, rung: Rung, params: BaseModel | None, labels: Mapping[str, str], now: float
    ) -> World:
        """All but the probe, side by side."""
        names = (labels["alertname"],) if "alertname" in labels else book.match.alertnames
        target = {name: labels.get(name, "") for name in book.target_labels}
        (rule, causes), (muted, muted_by), (preview, error) = await asyncio.gather(
            self._rules(names, target, labels.get("job"), book.blocked_by),
            self.muted(names, target, labels),
            self._preview(rung, params),
        )
        return World(
            looked_at=now,
            rule=rule.answer,
            rule_detail=rule.detail,
            skew=rule.skew,
            causes=causes,
            muted=muted,
            muted_by=muted_by,
            probe=Health.UNKNOWN,
            probe_detail="not asked yet",
            preview=preview,
            preview_error=error,
            pause_file=self.pause_file(),
        )

    async def rule(self, alertname: str, labels: Mapping[str, str]) -> tuple[Answer, str, float | None]:
        """Is the alert's rule true for this target? With the value or why not, and the clock skew in seconds.

        `labels` are the target's, with `job` where it is known. Yes and no only when every Prometheus says so.
        """
        target = {name: value for name, value in labels.items() if name not in OURS}
        found, _ = await self._rules((alertname,), target, labels.get("job"), ())
        return found.answer, found.detail, found.skew

    async def causes(self, names: Sequence[str]) -> tuple[str, ...] | None:
        """Those of these alerts that are pending, firing or true now anywhere; None when nobody can know."""
        _, causes = await self._rules((), {}, None, names)
        return causes

    async def muted(
        self, alertnames: Sequence[str], target: Mapping[str, str], labels: Mapping[str, str]
    ) -> tuple[Answer, str]:
        """Is such an alert on this target silenced or inhibited at any Alertmanager, and by what?

        `labels` are all that is known of the alert, for silences where a server does not hold it.
        """
        ours = {"environment": self._settings.environment}
        looks = await asyncio.gather(
            *(_muted_at(server, alertnames, {**target, **ours}, {**labels, **ours}) for server in self._alertmanagers)
        )
        by = [said for answer, said in looks if answer is Answer.YES]
        if by:
            return Answer.YES, "; ".join(dict.fromkeys(by))
        silent = [said for answer, said in looks if answer is Answer.UNKNOWN]
        return (Answer.UNKNOWN, "; ".join(silent)) if silent else (Answer.NO, "")

    async def proof(self, book: Runbook, labels: Mapping[str, str], since: float, now: float) -> ProofLook:
        """One round of the runbook's proof for an effect that was over at `since` (UNIX seconds)."""
        interval = self._settings.prometheus.scrape_interval
        rounds, probed = await asyncio.gather(
            asyncio.gather(
                *(
                    proofs.check(item, self._prometheus, since, interval, labels, self._clock.now)
                    for item in book.proof.checks
                )
            ),
            self.probe(labels),
        )
        return ProofLook(at=now, checks=tuple(rounds), probe=probed.health, probe_detail=probed.detail)

    async def probe(self, labels: Mapping[str, str]) -> Probed:
        """The direct probe of the target's service; bounded by its settings.

        One at a time for all episodes of a service: their looks fall together, and what is just coming up, or lets only
        so many probes in, must not be found ill by our own crowd.
        """
        service, known = labels.get("service", ""), self._settings
        question = functools.partial(probing.probe, known, self._session, service)
        if service in known.services or service in known.databases or service in known.redis:
            return await self._together.ask(service, question)
        return await question()  # nobody is asked, and of such names there is no end

    async def active_alerts(self) -> list[bytes]:
        """What every Alertmanager has routed to us and not muted, as bodies of webhook version 4.

        A server that does not answer is left out and logged: the next minute asks again.
        """
        receiver = self._settings.alertmanager.receiver
        found = await asyncio.gather(*(self._active(server, receiver) for server in self._alertmanagers))
        return [body for body in found if body is not None]

    async def reachable(self) -> bool:
        """Does any Prometheus answer? For readiness only; a decision needs all of them."""
        results = await asyncio.gather(*(server.skew() for server in self._prometheus), return_exceptions=True)
        return any(isinstance(result, float) for result in results)

    def pause_file(self) -> bool:
        """Is the pause file there? One that cannot be looked for counts as there."""
        return pause_file.there(self._settings.pause_file)

    async def _rules(
        self, names: Sequence[str], target: Mapping[str, str], job: str | None, causes: Iterable[str]
    ) -> tuple[RuleLook, tuple[str, ...] | None]:
        looks = await asyncio.gather(
            *(rules.look(server, names, target, job, tuple(causes)) for server in self._prometheus)
        )
        return rules.agree(looks), rules.agree_causes(looks)

    async def _preview(self, rung: Rung, params: BaseModel | None) -> tuple[Preview | None, str]:
        """What the rung's action would do, or why that is not known."""
        action = self._actions.get(rung.action)
        if action is None or params is None:
            return None, f"no action {rung.action}" if action is None else "no valid parameters"
        limit = self._settings.guards.look_max_age
        try:
            async with asyncio.timeout(limit):
                return await action.preview(params), ""
        except TimeoutError:
            return None, f"{rung.action} could not look at its target within {limit:g} s"
        except RemediatorError as error:
            return None, str(error)

    async def _active(self, server: Alertmanager, receiver: str) -> bytes | None:
        try:
            return notifications.body(await server.alerts(*notifications.active(receiver)), receiver, server.url)
        except RemediatorError as error:
            log.warning("active alerts cannot be read", url=server.url, why=str(error))
            return None


async def _muted_at(
    server: Alertmanager, alertnames: Sequence[str], target: Mapping[str, str], labels: Mapping[str, str]
) -> tuple[Answer, str]:
    """One Alertmanager's word, with the ids of what mutes."""
    try:
        held = notifications.held(await server.alerts(), alertnames, target)
        by = notifications.muted(held) if held else notifications.silenced(await server.silences(), alertnames, labels)
    except RemediatorError as error:
        return Answer.UNKNOWN, str(error)
    return (Answer.YES, f"{', '.join(by)} at {server.url}") if by else (Answer.NO, "")
