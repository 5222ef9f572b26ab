"""Intent, then effect, then outcome: the order that everything else rests on. And what comes of a doubt.

It may be killed after any line: a begun attempt without an outcome is a doubt for whoever reads the journal next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog
from pydantic import ValidationError

from remediator import guardrails, pause_file
from remediator.actions.base import Action, Call, Outcome, Result, Settled, Settlement
from remediator.episodes import Run
from remediator.errors import JournalError, Permanent, Transient
from remediator.events import Event, Kind
from remediator.facts import Facts
from remediator.ledger import Attempt, fold
from remediator.matching import params_of
from remediator.reasons import Reason, Refusal
from remediator.runbooks import Rung
from remediator.steps import Intend
from remediator.telling import STANDING, UNTOLD_WAIT, Telling
from remediator.world import World

log = structlog.get_logger(__name__)

OUTCOME_TRIES = 30


class Acting(Telling):
    """The part of the shell that acts, or writes down why it does not."""

    async def _refuse(
        self, run: Run, refusal: Refusal, rung: str | None, until: float, answers: Mapping[str, str] | None = None
    ) -> float:
        if (run.ledger.refused, run.ledger.refused_rung) != (refusal.reason, rung):
            data = {
                "reason": refusal.reason,
                "sentence": refusal.sentence,
                "earliest": refusal.earliest,
                "rung": rung,
            } | ({"answers": dict(answers)} if answers else {})
            await self.episodes.append(run, Kind.REFUSED, data)
            if refusal.reason is Reason.DECLINED:
                await self._answered(run)
        await self._tell_standing(run)
        return await self._release(run.episode, max(until, await self.journal.now() + 0.2))

    def _proposal(self, rung: Rung, world: World) -> dict[str, Any]:
        """What would be done, for a shadow and for an approval."""
        preview = world.preview
        if preview is None:
            raise ValueError("a proposal needs a preview; the guardrails let one through without")
        return {
            "rung": rung.name,
            "action": rung.action,
            "resource": preview.resource,
            "params": {},
            "items": [dict(item) for item in preview.items],
            "summary": preview.summary,
        }

    async def _act(self, run: Run, step: Intend) -> float | None:
        """Intent, then effect, then outcome: the order that everything else rests on."""
        action = self.actions[step.rung.action]
        call, intent = await self._intent(run, step)
        if self.clock_stepped() is not None:
            await self.hold_off_after_step()
            return await self._release(run.episode, intent.at + 1.0)
        if self.journal.lease_left(run.episode) < self.settings.journal.lease / 3:
            # in the last third of a lease nothing is started: somebody else may own it before the effect
            return await self._release(run.episode, intent.at + 1.0)

        again: guardrails.Answers = {}

        def decide(facts: Facts) -> Refusal | None:
            again.clear()
            if run.generation != self.episodes.generation:
                return Refusal(Reason.LOOK_STALE, "The configuration was reloaded after the look.", facts.now)
            return guardrails.locked(replace(step.case, now=facts.now, facts=facts), again)

        refusal = await self.journal.intend(
            intent,
            runbook=self._book(run).name,
            resource=call.resource,
            decide=decide,
            service=run.ledger.target.get("service", ""),
        )
        if refusal is not None:
            run.forget()
            until = refusal.earliest or intent.at + 1.0
            return await self._refuse(run, refusal, step.rung.name, until, {**step.answers, **again})
        self.episodes.take(run, [intent])
        if step.approval is not None:
            await self._answered(run)
        log.info("acting", episode=run.episode, attempt=call.attempt, action=step.rung.action, on=call.resource)
        await self._outcome(run, call, await self._execute(run, action, call))
        run.forget()
        return None

    async def _intent(self, run: Run, step: Intend) -> tuple[Call, Event]:
        world, rung = step.world, step.rung
        preview = world.preview
        if preview is None:
            raise ValueError("an intent needs a preview; the guardrails let one through without")
        action = self.actions[rung.action]
        params = self._params(rung.action, params_of(rung, run.ledger.target))
        now = await self.journal.now()
        # Counted on the target's clock from the look, whatever has passed since: a frozen process cannot stretch it.
        start_by = preview.target_now + self.settings.guards.start_within
        deadline = rung.deadline or action.deadline
        call = Call(self.episodes.ids(), params, preview.items, preview.resource, start_by, deadline, now)
        data = (
            self._proposal(rung, world)
            | {
                "attempt": call.attempt,
                "params": params.model_dump(mode="json"),
                "looked_at": world.looked_at,
                "start_by": start_by,
                "deadline": deadline,
                "probe": world.probe,
                "answers": dict(step.answers),
            }
            | ({"approval": step.approval} if step.approval is not None else {})
        )
        return call, await self.episodes.event(run.episode, run.ledger.seq + 1, Kind.INTENT, data, at=now)

    async def _execute(self, run: Run, action: Action, call: Call) -> Outcome:
        if pause_file.there(self.settings.pause_file) and not _glass(run):
            return Outcome(Result.FAILED, "the pause file appeared after the intent; nothing was sent")
        try:
            async with asyncio.timeout(call.deadline):
                return await action.execute(call)
        except TimeoutError:
            return Outcome(Result.IN_DOUBT, f"no answer within {call.deadline:.0f} s")
        except asyncio.CancelledError:
            # shutting down in the middle: the effect may have begun, and that is written before we go
            doubt = Outcome(Result.IN_DOUBT, "the remediator was stopped before the answer came")
            await asyncio.shield(self._outcome(run, call, doubt))
            raise

    async def _outcome(self, run: Run, call: Call, outcome: Outcome) -> None:
        data = {
            "attempt": call.attempt,
            "result": outcome.result,
            "detail": outcome.detail,
            "touched": [dict(item) for item in outcome.touched],
        }
        event = await self._write_outcome(run, data)
        run.events = await self.journal.events(run.episode)
        run.ledger = fold(run.events)
        run.made_room = True
        self.episodes.observe(event, run.ledger)

    async def _write_outcome(self, run: Run, data: Mapping[str, Any]) -> Event:
        """Written until it is in: an outcome that is known must not become a doubt for a passing fault."""
        for tries in range(OUTCOME_TRIES):
            try:
                event = await self.episodes.event(run.episode, run.ledger.seq + 1, Kind.OUTCOME, data)
                return await self.journal.outcome(event)
            except JournalError as error:
                if tries == OUTCOME_TRIES - 1:
                    raise
                log.warning("outcome not written yet", episode=run.episode, attempt=data["attempt"], why=str(error))
                await self.clock.sleep(1.0)
        raise JournalError("unreachable: the last try raises")

    async def _settle(self, run: Run, attempt: Attempt) -> float | None:
        try:
            params = self._params(attempt.action, attempt.params)
            settled = await self.actions[attempt.action].settle(
                Call(
                    attempt.id, params, attempt.items, attempt.resource, attempt.start_by, attempt.deadline, attempt.at
                )
            )
        except Transient as error:
            log.warning("doubt cannot be settled yet", episode=run.episode, attempt=attempt.id, why=str(error))
            return await self._ask_on(run)
        except Permanent as error:
            settled = Settled(Settlement.UNKNOWN, f"The target cannot tell: {error}")
        except (KeyError, ValidationError) as error:
            settled = Settled(Settlement.UNKNOWN, f"This version cannot ask about {attempt.action}: {error!r:.200}")
        if attempt.settlement is Settlement.UNKNOWN and settled.settlement is not Settlement.DONE:
            # What comes to be seen counts. That nothing is seen does not: who let it through forgets it some day.
            return await self._ask_on(run)
        data = {
            "attempt": attempt.id,
            "settlement": settled.settlement,
            "detail": settled.detail,
            "evidence": dict(settled.evidence),
            "by": "target",
        }
        told = run.ledger.hand_over if run.ledger.handed_over == "in_doubt" else None
        await self.episodes.append(run, Kind.SETTLED, data)
        if told and not run.ledger.handed_over:
            await self.people.post([self._own_alert(run, told["alertname"], told["severity"], told["sentence"], True)])
        return None

    async def _ask_on(self, run: Run) -> float:
        """The target is asked again: soon, until people have been told; each minute from then on."""
        told = await self._tell_standing(run)
        wait = STANDING if run.ledger.handed_over and told else UNTOLD_WAIT
        return await self._release(run.episode, await self.journal.now() + wait)


def _glass(run: Run) -> bool:
    return run.ledger.command is not None and run.ledger.command.break_glass
