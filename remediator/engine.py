"""The only shell: claim an episode, plan, perform one step, write what came of it, again.

It may be killed after any line. The order that makes this safe: the intent is durable before the effect, the
outcome follows it, and a begun attempt without an outcome is a doubt for whoever reads the journal next.
`drive` is to be read from top to bottom as section 3 of docs/architecture.md; intent, effect and outcome are in
`acting.py`, what people are told in `telling.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import structlog
from pydantic import BaseModel, ValidationError

from remediator import guardrails
from remediator.acting import Acting
from remediator.actions.base import Action, Risk
from remediator.episodes import Run
from remediator.errors import Conflict, JournalError
from remediator.events import Kind, Unreadable
from remediator.facts import Facts
from remediator.journal import Claim
from remediator.journal.watch import STUCK
from remediator.matching import params_of
from remediator.people import OwnAlert
from remediator.planner import next_step
from remediator.ports import Diagnoses, People, Sight
from remediator.reasons import Reason, Refusal
from remediator.runbooks import Runbook, Rung
from remediator.sameness import digest_of_target
from remediator.settings import Settings
from remediator.steps import (
    Allowed,
    AskApproval,
    Close,
    Diagnose,
    HandOver,
    Hold,
    Intend,
    Look,
    LookAtFacts,
    LookAtProof,
    LookAtRule,
    RecordProof,
    Refuse,
    SettleDoubt,
    Step,
    View,
    Wait,
    WouldAct,
)
from remediator.telling import STANDING, SYMPTOMS, UNTOLD_WAIT
from remediator.world import World

log = structlog.get_logger(__name__)

FAILED_WAIT = 5.0  # seconds until an episode that raised is tried again
MAX_STEPS = 40  # of one episode in one go; then it is released and claimed again
LEVELS = {"RemediationInDoubt": "P1", "RemediationRecurs": "P3"}
"""What does not go by the runbook's own `hand_over.severity`."""
EVIDENCE_FIRST = frozenset({Risk.DISRUPTIVE, Risk.DESTRUCTIVE, Risk.FINANCIAL})


@dataclass(frozen=True)
class Parts:
    """What one configuration makes of the outside: replaced all at once, see `Engine.reconfigure`."""

    settings: Settings
    sight: Sight
    actions: Mapping[str, Action]
    people: People
    diagnoses: Diagnoses


class Engine(Acting):
    """Performs the planner's steps: the shell as a whole, over `acting.py`, `telling.py` and `shell.py`."""

    def reconfigure(self, parts: Parts, books: tuple[Runbook, ...]) -> None:
        """Another configuration, between two steps. What was seen under the one before is not acted upon any more.

        An effect that is intended already goes on with the action that looked at its target.
        """
        self.settings, self.sight, self.actions = parts.settings, parts.sight, parts.actions
        self.people, self.diagnoses = parts.people, parts.diagnoses
        self._steps_of_clock.tolerance = parts.settings.guards.clock_step
        self.episodes.reconfigure(parts.settings, books)

    # -- one episode ------------------------------------------------------------------------------------

    async def drive(self, claim: Claim) -> float:
        """Take one claimed episode as far as it goes now; return when it is due again (UNIX seconds).

        An exception of one episode never ends the process: it is released for later, and after three claims
        without a new event it is stuck and people are told.
        """
        try:
            run = await self.episodes.load(claim)
            due = await (self._stuck(run) if claim.claims >= STUCK else self._steps(run))
            if run.made_room:
                await self._wake_next()
            return due
        except Conflict:
            log.info("episode changed under us, reading it again", episode=claim.episode)
            return await self._release(claim.episode, await self.journal.now())
        except JournalError:
            raise
        except Unreadable as error:
            log.warning("episode left alone", episode=claim.episode, why=str(error))
            return await self._fail(claim, error.sentence)
        except Exception:  # the one broad except: whatever it is, it is this episode's alone
            log.exception("episode failed", episode=claim.episode)
            return await self._fail(claim, Unreadable.sentence)

    async def _wake_next(self) -> None:
        """A hint that may be lost: whoever is held back looks again by itself. The episode is given back already."""
        try:
            await self.journal.wake_next_held()
        except JournalError as error:
            log.warning("whoever is next was not woken", why=str(error))

    async def _fail(self, claim: Claim, sentence: str) -> float:
        """Give it back as failed; from the third time on people are told, whatever state it is in."""
        stuck = claim.claims >= STUCK
        if stuck:
            name = "RemediationNeedsPeople"
            summary = f"Episode {claim.episode} is stuck: {sentence}"
            await self.people.post(
                [OwnAlert(name, "P2", "remediator", SYMPTOMS[name], claim.episode, summary, sentence)]
            )
        due = await self.journal.now() + (STANDING if stuck else FAILED_WAIT)
        await self.journal.release(claim.episode, due, failed=True)
        return due

    async def _steps(self, run: Run) -> float:
        for _ in range(MAX_STEPS):
            now, facts = await self.journal.now(), None
            step = next_step(self._view(run, now, None))
            if isinstance(step, LookAtFacts):
                facts = await self._facts(run)
                now = await self.journal.now()
            if run.generation != self.episodes.generation:
                return await self._release(run.episode, now)
            if facts is not None:
                step = next_step(self._view(run, now, facts))
            due = await self._perform(run, step, now)
            if due is not None:
                return due
        return await self._release(run.episode, await self.journal.now() + 1.0)

    async def _facts(self, run: Run) -> Facts:
        service = run.ledger.target.get("service", "")
        return await self.journal.facts(run.episode, run.ledger.runbook or "", _resource(run), service=service)

    def _view(self, run: Run, now: float, facts: Facts | None) -> View:
        risks = {name: action.risk for name, action in self.actions.items()}
        seen = (run.world, run.proof, run.rule, run.last_round)
        return View(now, run.ledger, run.book, self.settings, facts, risks, *seen)

    async def _perform(self, run: Run, step: Step, now: float) -> float | None:
        """One step. A number means: released, due then. None: go on planning."""
        match step:
            case Wait(until):
                told = await self._tell_standing(run)
                return await self._release(run.episode, until if told else min(until, now + UNTOLD_WAIT))
            case Hold(until):
                await self.clock.sleep(until - now)
            case Look(rung):
                await self._tell_glass(run)
                run.world = await self._look(run, rung, now)
            case LookAtProof(attempt):
                run.proof = await self.sight.proof(self._book(run), run.ledger.target, attempt.effect_at, now)
            case LookAtRule():
                run.rule, _, _ = await self.sight.rule(run.ledger.alert.name, _with_job(run))
            case Refuse(refusal, rung_name, until, answers):
                return await self._refuse(run, refusal, rung_name, until, answers)
            case Diagnose(rung):
                return await self._diagnose(run, rung, now)
            case WouldAct() | AskApproval() | Allowed():
                await self._propose(run, step)
            case Intend():
                return await self._act(run, step)
            case SettleDoubt(attempt):
                return await self._settle(run, attempt)
            case RecordProof():
                return await self._record_proof(run, step)
            case HandOver():
                await self._hand_over(run, step)
            case Close():
                return await self._close(run, step)
        return None

    # -- looking ----------------------------------------------------------------------------------------

    async def _look(self, run: Run, rung: Rung, now: float) -> World:
        params: BaseModel | None = None
        error = ""
        try:
            params = self._params(rung.action, params_of(rung, run.ledger.target))
        except ValidationError as invalid:
            error = f"the alert's labels do not fit {rung.action}: {invalid.errors()[0]['msg']}"
        world = await self.sight.look(
            self._book(run), rung, params, {**run.ledger.alert.labels, **run.ledger.target}, now
        )
        return replace(world, preview=None, preview_error=error) if error else world

    async def _diagnose(self, run: Run, rung: Rung, now: float) -> float | None:
        book = self._book(run)
        evidence = await self.diagnoses.run(run.episode, book.diagnosis, run.ledger.target)
        if not evidence.complete and self.actions[rung.action].risk in EVIDENCE_FIRST:
            missing = "; ".join(f"{name}: {said}" for name, said in evidence.summary.items())
            refusal = Refusal(
                Reason.NO_EVIDENCE, f"A restart would destroy evidence that could not be read: {missing}."
            )
            return await self._refuse(run, refusal, rung.name, now + 15.0)
        data = {
            "rung": rung.name,
            "digest": evidence.digest,
            "path": evidence.path,
            "complete": evidence.complete,
            "summary": dict(evidence.summary),
        }
        await self.episodes.append(run, Kind.DIAGNOSED, data)
        run.forget()
        return None

    # -- acting -----------------------------------------------------------------------------------------

    async def _propose(self, run: Run, step: WouldAct | AskApproval | Allowed) -> None:
        """Write down what is not done: by a shadow, before a person's yes, or for a while."""
        said = {"answers": dict(step.answers)}
        match step:
            case WouldAct(rung, world):
                data = self._proposal(rung, world) | {"digest": digest_of_target(rung, world)}
                await self.episodes.append(run, Kind.WOULD_ACT, data | said)
            case Allowed(rung, waits):
                await self.episodes.append(run, Kind.ALLOWED, {"rung": rung.name, "waits": waits} | said)
            case AskApproval(rung, world, digest, good_until, persons, attempt):
                asks = world.preview is not None and bool(world.preview.asks)
                asked = {"digest": digest, "good_until": good_until, "persons": persons, "try": attempt}
                asked |= {"target_asked": asks}
                await self.episodes.append(run, Kind.NEEDS_APPROVAL, self._proposal(rung, world) | asked | said)

    async def _record_proof(self, run: Run, step: RecordProof) -> float | None:
        judged, attempt = step.judged, step.attempt
        checks = [{"name": c.name, "value": c.value, "good": c.good, "detail": c.detail} for c in step.look.checks]
        data = {"attempt": attempt.id, "checks": checks, "probe": step.look.probe, "sentence": judged.sentence}
        if judged.verdict is not None:
            await self.episodes.append(run, Kind.VERDICT, data | {"verdict": judged.verdict})
            await self._judge_budget(run)
            run.forget()
            return None
        if judged.good_since != attempt.good_since or not attempt.proving:
            await self.episodes.append(run, Kind.PROVING, data | {"good_since": judged.good_since})
        return await self._release(run.episode, step.until, step.look.at)

    async def _judge_budget(self, run: Run) -> None:
        """A runbook that fails too often may only ask from now on. The lock's facts say so too, should this be lost."""
        if run.ledger.command is not None:
            return  # a person's own command is not the automation's failure
        runbook = run.ledger.runbook or ""
        why = guardrails.demotion(await self.journal.facts(run.episode, runbook, None), self.settings.guards)
        if why is not None and await self.journal.demote(runbook, why):
            log.error("runbook demoted: it only asks for approval now", runbook=runbook, why=why)

    # -- people -----------------------------------------------------------------------------------------

    async def _hand_over(self, run: Run, step: HandOver) -> None:
        severity = run.book.hand_over.severity if run.book else "P2"
        data = {
            "reason": step.reason,
            "sentence": step.sentence,
            "alertname": step.alertname,
            "severity": LEVELS.get(step.alertname, severity),
        }
        asked = run.ledger.approval
        await self.episodes.append(run, Kind.HANDED_OVER, data)
        if asked is not None and asked.open:
            await self._answered(run)
        await self._tell_standing(run)

    async def _stuck(self, run: Run) -> float:
        """Claimed again and again without getting anywhere: people, and leave it alone for a while."""
        sentence = "The remediator fails on this episode again and again; see its log."
        if run.ledger.handed_over is None:
            await self._hand_over(run, HandOver("stuck", sentence, "RemediationNeedsPeople"))
        await self._tell_standing(run)
        return await self._steps(run)

    async def _close(self, run: Run, step: Close) -> float:
        data: dict[str, Any] = {"reason": step.reason, "sentence": step.sentence}
        if step.changed:
            data["changed"] = True
        event = await self.episodes.event(run.episode, run.ledger.seq + 1, Kind.CLOSED, data)
        await self.journal.append([event], close=True)
        await self._tell_standing(run, resolved=True)
        self.episodes.take(run, [event])
        return event.at


def _with_job(run: Run) -> dict[str, str]:
    """The target, and the job whose scrapes the rule needs: without them an empty answer means nothing."""
    job = run.ledger.alert.labels.get("job", "")
    return {**run.ledger.target, **({"job": job} if job else {})}


def _resource(run: Run) -> str | None:
    """The canonical resource, once a look or an attempt has told it."""
    if run.world is not None and run.world.preview is not None:
        return run.world.preview.resource
    return run.ledger.last.resource if run.ledger.last else None
