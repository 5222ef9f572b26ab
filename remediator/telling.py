"""What people are told of an episode: a state that is said again until it is over, never an event that is said once."""

from __future__ import annotations

import structlog

from remediator.episodes import Run
from remediator.ledger import Approval
from remediator.narrative import clock
from remediator.people import OwnAlert
from remediator.shell import Shell

log = structlog.get_logger(__name__)

STANDING = 60.0  # seconds between two posts of what people have in hand
UNTOLD_WAIT = 5.0  # seconds until what no Alertmanager took is posted again
SYMPTOMS = {
    "RemediationBreakGlass": "remediation-break-glass",
    "RemediationFailed": "remediation-failed",
    "RemediationInDoubt": "remediation-in-doubt",
    "RemediationNeedsApproval": "remediation-needs-approval",
    "RemediationNeedsPeople": "remediation-needs-people",
    "RemediationRecurs": "remediation-recurs",
}


class Telling(Shell):
    """The part of the shell that speaks to people."""

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
