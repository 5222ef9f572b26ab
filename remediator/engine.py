"""The only shell: claim an episode, plan, perform one step, write what came of it, again.

It may be killed after any line. The order that makes this safe: the intent is durable before the effect, the
outcome follows it, and a begun attempt without an outcome is a doubt for whoever reads the journal next.
`drive` is to be read from top to bottom as section 5 of docs/architecture.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import structlog
from pydantic import BaseModel, ValidationError

from remediator import guardrails, pause_file
from remediator.actions.base import Action, Call, Outcome, Result, Risk, Settled, Settlement
from remediator.clock import Clock, StepDetector
from remediator.episodes import Episodes, Run
from remediator.errors import Conflict, JournalError, Permanent, Transient
from remediator.events import Event, Kind
from remediator.facts import Facts
from remediator.journal import Claim, Journal
from remediator.ledger import Approval, Attempt, fold
from remediator.matching import params_of
from remediator.narrative import clock
from remediator.people import OwnAlert
from remediator.planner import (
    Allowed,
    AskApproval,
    Close,
    Diagnose,
    HandOver,
    Hold,
    Intend,
    Look,
    LookAtProof,
    LookAtRule,
    RecordProof,
    Refuse,
    SettleDoubt,
    Step,
    View,
    Wait,
    WouldAct,
    next_step,
)
from remediator.ports import Diagnoses, People, Sight
from remediator.reasons import Reason, Refusal
from remediator.runbooks import Runbook, Rung
from remediator.settings import Settings
from remediator.world import World

log = structlog.get_logger(__name__)

STUCK_CLAIMS = 3
FAILED_WAIT = 5.0  # seconds until an episode that raised is tried again
UNTOLD_WAIT = 5.0  # seconds until what no Alertmanager took is posted again
STANDING = 60.0  # seconds between two posts of what people have in hand
MAX_STEPS = 40  # of one episode in one go; then it is released and claimed again
OUTCOME_TRIES = 30
SYMPTOMS = {
    "RemediationBreakGlass": "remediation-break-glass",
    "RemediationFailed": "remediation-failed",
    "RemediationInDoubt": "remediation-in-doubt",
    "RemediationNeedsApproval": "remediation-needs-approval",
    "RemediationNeedsPeople": "remediation-needs-people",
    "RemediationRecurs": "remediation-recurs",
}
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


@dataclass
class Engine:
    """Performs the planner's steps."""

    journal: Journal
    sight: Sight
    actions: Mapping[str, Action]
    people: People
    diagnoses: Diagnoses
    settings: Settings
    episodes: Episodes
    clock: Clock
    _rounds: dict[str, float] = field(default_factory=dict)
    _steps_of_clock: StepDetector = field(init=False)

    def __post_init__(self) -> None:
        self._steps_of_clock = StepDetector(self.clock, self.settings.guards.clock_step)

    def reconfigure(self, parts: Parts, books: tuple[Runbook, ...]) -> None:
        """Another configuration, between two steps. What was seen under the one before is not acted upon any more.

        An effect that is intended already goes on with the action that looked at its target.
        """
        self.settings, self.sight, self.actions = parts.settings, parts.sight, parts.actions
        self.people, self.diagnoses = parts.people, parts.diagnoses
        self._steps_of_clock.tolerance = parts.settings.guards.clock_step
        self.episodes.reconfigure(parts.settings, books)

    def clock_stepped(self) -> float | None:
        """Seconds by which the wall clock was stepped since it was last asked, None when it was not."""
        return self._steps_of_clock.tick()

    async def hold_off_after_step(self) -> None:
        """Limits counted on a stepped clock mean nothing: start nothing for the longest cooldown, by boot time."""
        hold = max((book.limits.cooldown for book in self.episodes.books), default=0.0)
        log.error("the clock was stepped; starting nothing for a full cooldown", hold=hold)
        await self.journal.hold_off(hold, "the clock was stepped")

    # -- one episode ------------------------------------------------------------------------------------

    async def drive(self, claim: Claim) -> float:
        """Take one claimed episode as far as it goes now; return when it is due again (UNIX seconds).

        An exception of one episode never ends the process: it is released for later, and after three claims
        without a new event it is stuck and people are told.
        """
        try:
            run = await self.episodes.load(claim)
            if run is None:
                return await self._fail(claim, "It was written by a newer version, which must go on with it.")
            if claim.claims >= STUCK_CLAIMS:
                return await self._stuck(run)
            return await self._steps(run)
        except Conflict:
            log.info("episode changed under us, reading it again", episode=claim.episode)
            return await self._release(claim.episode, await self.journal.now())
        except JournalError:
            raise
        except Exception:  # the one broad except: whatever it is, it is this episode's alone
            log.exception("episode failed", episode=claim.episode)
            return await self._fail(claim, "The remediator fails on it again and again; see its log.")

    async def _fail(self, claim: Claim, sentence: str) -> float:
        """Give it back as failed; from the third time on people are told, whatever state it is in."""
        stuck = claim.claims >= STUCK_CLAIMS
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
            now = await self.journal.now()
            service = run.ledger.target.get("service", "")
            facts = await self.journal.facts(run.episode, run.ledger.runbook or "", _resource(run), service=service)
            if run.generation != self.episodes.generation:
                return await self._release(run.episode, now)
            step = next_step(self._view(run, now, facts))
            due = await self._perform(run, step, now)
            if due is not None:
                return due
        return await self._release(run.episode, await self.journal.now() + 1.0)

    def _view(self, run: Run, now: float, facts: Facts) -> View:
        risks = {name: action.risk for name, action in self.actions.items()}
        last_round = self._rounds.get(run.ledger.last.id) if run.ledger.last else None
        return View(now, run.ledger, run.book, self.settings, facts, risks, run.world, run.proof, run.rule, last_round)

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
            case Refuse(refusal, rung_name, until):
                return await self._refuse(run, refusal, rung_name, until)
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
            case Close(reason, sentence):
                return await self._close(run, reason, sentence)
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

    def _params(self, action: str, values: Mapping[str, Any]) -> BaseModel:
        return self.actions[action].params_model.model_validate(dict(values))

    async def _refuse(self, run: Run, refusal: Refusal, rung: str | None, until: float) -> float:
        if (run.ledger.refused, run.ledger.refused_rung) != (refusal.reason, rung):
            data = {
                "reason": refusal.reason,
                "sentence": refusal.sentence,
                "earliest": refusal.earliest,
                "rung": rung,
            }
            await self.episodes.append(run, Kind.REFUSED, data)
            if refusal.reason is Reason.DECLINED:
                await self._answered(run)
        await self._tell_standing(run)
        return await self._release(run.episode, max(until, await self.journal.now() + 0.2))

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

    def _book(self, run: Run) -> Runbook:
        if run.book is None:
            raise ValueError(f"episode {run.episode}: a step that needs a runbook, and there is none")
        return run.book

    # -- acting -----------------------------------------------------------------------------------------

    async def _propose(self, run: Run, step: WouldAct | AskApproval | Allowed) -> None:
        """Write down what is not done: by a shadow, before a person's yes, or for a while."""
        match step:
            case WouldAct(rung, world):
                await self.episodes.append(run, Kind.WOULD_ACT, self._proposal(rung, world))
            case Allowed(rung, waits):
                await self.episodes.append(run, Kind.ALLOWED, {"rung": rung.name, "waits": waits})
            case AskApproval(rung, world, digest, good_until, persons, attempt):
                asked = {"digest": digest, "good_until": good_until, "persons": persons, "try": attempt}
                await self.episodes.append(run, Kind.NEEDS_APPROVAL, self._proposal(rung, world) | asked)

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

        def decide(facts: Facts) -> Refusal | None:
            if run.generation != self.episodes.generation:
                return Refusal(Reason.LOOK_STALE, "The configuration was reloaded after the look.", facts.now)
            return guardrails.locked(replace(step.case, now=facts.now, facts=facts))

        refusal = await self.journal.intend(
            intent,
            runbook=self._book(run).name,
            resource=call.resource,
            decide=decide,
            service=run.ledger.target.get("service", ""),
        )
        if refusal is not None:
            run.forget()
            return await self._refuse(run, refusal, step.rung.name, refusal.earliest or intent.at + 1.0)
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
        action = self.actions[attempt.action]
        params = self._params(attempt.action, attempt.params)
        call = Call(attempt.id, params, attempt.items, attempt.resource, attempt.start_by, attempt.deadline, attempt.at)
        try:
            settled = await action.settle(call)
        except Transient as error:
            log.warning("doubt cannot be settled yet", episode=run.episode, attempt=attempt.id, why=str(error))
            await self._tell_standing(run)
            return await self._release(
                run.episode, await self.journal.now() + (STANDING if run.ledger.handed_over else 5.0)
            )
        except Permanent as error:
            settled = Settled(Settlement.UNKNOWN, f"The target cannot tell: {error}")
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

    async def _record_proof(self, run: Run, step: RecordProof) -> float | None:
        judged, attempt = step.judged, step.attempt
        self._rounds[attempt.id] = step.look.at
        checks = [{"name": c.name, "value": c.value, "good": c.good, "detail": c.detail} for c in step.look.checks]
        data = {"attempt": attempt.id, "checks": checks, "probe": step.look.probe, "sentence": judged.sentence}
        if judged.verdict is not None:
            del self._rounds[attempt.id]
            await self.episodes.append(run, Kind.VERDICT, data | {"verdict": judged.verdict})
            await self._judge_budget(run)
            run.forget()
            return None
        if judged.good_since != attempt.good_since or not attempt.proving:
            await self.episodes.append(run, Kind.PROVING, data | {"good_since": judged.good_since})
        return await self._release(run.episode, step.until)

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

    async def _tell_standing(self, run: Run, *, resolved: bool = False) -> bool:
        """What people must know is said again at every wait, until it is over: a state, not an event.

        False when there is something to say and no Alertmanager took it: then it is tried again soon.
        """
        ledger = run.ledger
        if ledger.handed_over:
            said = ledger.hand_over
            alert = self._own_alert(run, said["alertname"], said["severity"], said["sentence"], resolved)
        elif ledger.approval is not None and ledger.approval.open:
            alert = self._approval_alert(run, ledger.approval, resolved)
        else:
            return True
        if await self.people.post([alert]):
            return True
        log.error("no Alertmanager takes our alert", episode=run.episode, alertname=alert.alertname)
        return False

    async def _tell_glass(self, run: Run) -> None:
        """Before it is done, and never taken back: it ends by itself when Alertmanager has kept it for its time."""
        command = run.ledger.command
        if command is None or not command.break_glass:
            return
        sentence = f"{command.who} breaks the glass for {command.action}: {command.reason}"
        if not await self.people.post([self._own_alert(run, "RemediationBreakGlass", "P2", sentence, False)]):
            log.error("no Alertmanager takes our alert", episode=run.episode, alertname="RemediationBreakGlass")

    async def _answered(self, run: Run) -> None:
        """The question is answered: nobody need be asked any more."""
        if run.ledger.approval is not None:
            await self.people.post([self._approval_alert(run, run.ledger.approval, True)])

    def _approval_alert(self, run: Run, asked: Approval, resolved: bool) -> OwnAlert:
        some = "A person must" if asked.persons == 1 else f"{asked.persons} persons must"
        sentence = (
            f"{some} approve or decline until {clock(asked.good_until)}: {asked.summary} "
            f"(prepctl approvals:approve {asked.id[:12]})"
        )
        return self._own_alert(run, "RemediationNeedsApproval", "P2", sentence, resolved)

    def _own_alert(self, run: Run, name: str, severity: str, sentence: str, resolved: bool) -> OwnAlert:
        steps = run.book.hand_over.first_steps if run.book else ""
        target = run.ledger.target.get("service", "")
        return OwnAlert(
            alertname=name,
            severity=severity,
            service=target,
            # not the target's symptom: inhibition within it would mute what we have to say
            symptom=SYMPTOMS[name],
            episode=run.episode,
            summary=f"{run.ledger.alert.name} on {target or 'an unknown target'}: {sentence}",
            description=steps or sentence,
            resolved=resolved,
        )

    async def _stuck(self, run: Run) -> float:
        """Claimed again and again without getting anywhere: people, and leave it alone for a while."""
        sentence = "The remediator fails on this episode again and again; see its log."
        if run.ledger.handed_over is None:
            await self._hand_over(run, HandOver("stuck", sentence, "RemediationNeedsPeople"))
        await self._tell_standing(run)
        return await self._steps(run)

    async def _close(self, run: Run, reason: str, sentence: str) -> float:
        event = await self.episodes.event(
            run.episode, run.ledger.seq + 1, Kind.CLOSED, {"reason": reason, "sentence": sentence}
        )
        await self.journal.append([event], close=True)
        await self._tell_standing(run, resolved=True)
        self.episodes.take(run, [event])
        return event.at

    async def _release(self, episode: str, due: float) -> float:
        await self.journal.release(episode, due)
        return due


def _with_job(run: Run) -> dict[str, str]:
    """The target, and the job whose scrapes the rule needs: without them an empty answer means nothing."""
    job = run.ledger.alert.labels.get("job", "")
    return {**run.ledger.target, **({"job": job} if job else {})}


def _glass(run: Run) -> bool:
    return run.ledger.command is not None and run.ledger.command.break_glass


def _resource(run: Run) -> str | None:
    """The canonical resource, once a look or an attempt has told it."""
    if run.world is not None and run.world.preview is not None:
        return run.world.preview.resource
    return run.ledger.last.resource if run.ledger.last else None
