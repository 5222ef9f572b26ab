"""What people decide, by whichever way they say it: a pause and its end, a doubt settled, a question answered, a storm
ended, a demoted runbook restored.

In: who says it and his words as a model, checked for shape; the JSON API and the console both end here, so that there
is one way to do each thing. Out: what came of it, or `No` with the way out. It writes into the journal, with the name,
and performs no action. Whether the caller's role allows it is asked before.

An answer is bound to the digest that its giver has seen: what would be done may be something else by the time somebody
clicks, and then it is another question. Answers and settlements are rows for the episode's owner, who folds them in
(`episodes.py`): of two that come at once the first one counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from pydantic import ValidationError

from remediator import openapi
from remediator.api_models import SAID, Because, Decline, NewPause, Settle, Yes
from remediator.clicks import over
from remediator.errors import Conflict
from remediator.events import Event, Unreadable
from remediator.handling import named, no
from remediator.journal import EpisodeRow, Journal
from remediator.journal.values import Pause, Running
from remediator.ledger import Approval, Attempt, fold
from remediator.narrative import UNREADABLE
from remediator.operators import Caller
from remediator.runbooks import Runbook

log = structlog.get_logger(__name__)

_INSTEAD = {
    "expired": "Act by hand, or wait: it was handed to people",
    "handed_over": "Act by hand: people have it",
    "asked_anew": "Read it again and answer that",
}


@dataclass
class Decisions:
    """One method a decision; every one may raise `No` and JournalError."""

    journal: Journal
    books: Callable[[], Sequence[Runbook]]

    # -- pauses -----------------------------------------------------------------------------------------

    async def pause(self, caller: Caller, new: NewPause) -> tuple[Pause, list[Running]]:
        """Begin no more actions. Returns once it holds for every replica, with what is running already."""
        kind, _, name = new.scope.partition(":")
        known = sorted(book.name for book in self.books())
        if kind == "runbook" and name not in known:
            # A mistyped name would be a pause that stops nothing, and a person who believes it does.
            raise no(422, "no_such_runbook", f"There is no runbook {name!r}.", f"Give one of {', '.join(known)}.")
        until = None if new.for_seconds is None else await self.journal.now() + new.for_seconds
        who = named(caller, new.who)
        number = await self.journal.pause(new.scope, who, new.reason, until)
        log.warning("paused", pause=number, scope=new.scope, who=who, reason=new.reason)
        made = next((pause for pause in await self.journal.pauses() if pause.id == number), None)
        if made is None:
            raise no(409, "pause_over", f"Pause {number} is over already.", "Pause again, for longer.")
        return made, await self.journal.running()

    async def resume(self, caller: Caller, asked: str, said_who: str | None) -> int:
        """End a pause; ending one that is over is no mistake of anybody's, but is said."""
        try:
            who = caller.name or SAID.validate_python(said_who)
        except ValidationError as error:
            raise no(400, "who", "Who ends the pause is not said.", "Add ?who=<name> to the request.") from error
        known = {str(pause.id): pause.id for pause in await self.journal.pauses()}
        if asked not in known or not await self.journal.resume(known[asked], who):
            do = "GET /api/v1/pauses lists them."
            raise no(404, "no_such_pause", "No pause with this number is in force.", do)
        log.warning("resumed", pause=asked, who=who)
        return known[asked]

    # -- doubts -----------------------------------------------------------------------------------------

    async def doubts(self) -> list[tuple[str, Attempt]]:
        """Attempts that may have taken effect and are not running any more, each with its episode; the oldest first."""
        now = await self.journal.now()
        found: list[tuple[str, Attempt]] = []
        for episode in await self.journal.doubtful():
            attempts = fold(events).attempts if (events := await self.events(episode)) else ()
            found += [(episode, one) for one in attempts if one.in_doubt and not running(one, now)]
        return found

    async def settle(self, caller: Caller, asked: str, said: Settle) -> str:
        """A person's word about an attempt in doubt; its episode. Refused while it may still be running."""
        episode = await self.journal.episode_of(asked) if re.fullmatch(openapi.ATTEMPT, asked) else None
        events = await self.events(episode) if episode is not None else None
        if episode is not None and events is None:
            do = "Look at the target, and see docs/alerts/RemediationNeedsPeople.md for an episode that cannot be read."
            raise no(409, "episode_unreadable", f"Episode {episode} cannot be read whole. {UNREADABLE}", do)
        attempt = next((one for one in fold(events).attempts if one.id == asked), None) if events else None
        if episode is None or attempt is None:
            do = "GET /api/v1/doubts lists them."
            raise no(404, "no_such_attempt", "There is no attempt with this id.", do)
        if not attempt.in_doubt:
            end = attempt.settlement or attempt.outcome
            raise no(409, "not_in_doubt", f"This attempt is not in doubt: {end}.", "There is nothing to settle.")
        now = await self.journal.now()
        if running(attempt, now):
            do = f"Settle it in {attempt.at + attempt.deadline - now:.0f} s if need be."
            raise no(409, "still_running", "This attempt may still be running.", do)
        who = named(caller, said.who)
        click = {"kind": "settle", "attempt": asked, **said.model_dump(), "who": who}
        await self.journal.click(episode, json.dumps(click).encode())
        log.warning("a person settles a doubt", attempt=asked, settlement=said.settlement, who=who)
        return episode

    async def events(self, episode: str) -> list[Event] | None:
        """None when they cannot be read whole."""
        try:
            return await self.journal.events(episode)
        except Unreadable:
            return None

    # -- questions --------------------------------------------------------------------------------------

    async def questions(self) -> list[tuple[EpisodeRow, Approval]]:
        """Those that nobody has answered, the oldest first; they may be over by time."""
        found = []
        for row in await self.journal.open_episodes():
            if row.refused != "needs_approval":
                continue
            # A newer version's question is left to it, and nobody can answer one of an episode that is torn.
            asked = fold(events).approval if (events := await self.events(row.episode)) else None
            if asked is not None and asked.open:
                found.append((row, asked))
        return found

    async def approve(self, caller: Caller, id: str, said: Yes) -> str:
        """Yes; the episode. It is done when nothing forbids it at that moment, after another look."""
        row, asked = await self._asked(id, said.digest)
        who = named(caller, said.who)
        if asked.persons > 1 and caller.name is None:
            raise no(
                403,
                "shared_token",
                f"This needs {asked.persons} different persons, and a shared token is nobody in particular.",
                "Use a token of your own (`operators` in the configuration).",
            )
        if who in asked.approved_by:
            do = "Another person must approve it too."
            raise no(409, "approved_already", f"{who} has approved it; {asked.persons} persons are needed.", do)
        return await self._click(row, asked, "approve", who, said.reason or "")

    async def decline(self, caller: Caller, id: str, said: Decline) -> str:
        """No, for this episode, which is returned. It costs no limit."""
        row, asked = await self._asked(id, said.digest)
        return await self._click(row, asked, "decline", named(caller, said.who), said.reason)

    async def _asked(self, id: str, digest: str) -> tuple[EpisodeRow, Approval]:
        """The open question of this id, seen as it is. Raises No, which says whose answer counted if one did."""
        episode = await self.journal.episode_of_event(id) if re.fullmatch(openapi.ATTEMPT, id) else None
        row = await self.journal.episode(episode) if episode is not None else None
        events = await self.events(row.episode) if row is not None else None
        ledger = fold(events) if events else None
        asked = next((one for one in ledger.approvals if one.id == id), None) if ledger is not None else None
        if row is None or ledger is None or asked is None:
            do = "GET /api/v1/approvals lists what waits."
            raise no(404, "no_such_approval", "There is no question with this id.", do)
        if (why := over(ledger, asked, await self.journal.now())) is not None:
            raise no(409, *why, f"{_INSTEAD.get(why[0], 'Nothing need be done')}: see episode {row.episode}.")
        if not asked.digest.startswith(digest):
            do = "Read it again: what would be done has changed since you saw it."
            raise no(409, "digest", "The digest is not that of what would be done now.", do)
        if row.refused != "needs_approval":
            said = f"It takes no answer now: something else forbids it ({row.refused or 'it is decided on anew'})."
            raise no(409, "forbidden", said, f"It asks again when that is over: see episode {row.episode}.")
        return row, asked

    async def _click(self, row: EpisodeRow, asked: Approval, kind: str, who: str, reason: str) -> str:
        click = {"kind": kind, "approval": asked.id, "digest": asked.digest, "who": who, "reason": reason}
        try:
            await self.journal.click(row.episode, json.dumps(click).encode())
        except Conflict as error:
            raise no(409, "episode_closed", "The episode has closed meanwhile.", "Nothing need be done.") from error
        log.warning("a person answers", kind=kind, approval=asked.id, who=who)
        return row.episode

    # -- what is latched --------------------------------------------------------------------------------

    async def end_storm(self, caller: Caller, said: Because) -> None:
        """A person says that the storm is over: what waits is released one after the other."""
        who = named(caller, said.who)
        if not await self.journal.end_storm(who, said.reason):
            raise no(409, "no_storm", "There is no storm.", "GET /api/v1/status tells what holds.")
        log.warning("storm ended by a person", who=who, reason=said.reason)

    async def restore(self, caller: Caller, name: str, said: Because) -> None:
        """A demoted runbook may do what its mode says again."""
        who = named(caller, said.who)
        if not await self.journal.restore(name, who, said.reason):
            do = "GET /api/v1/status lists those that are."
            raise no(409, "not_demoted", f"Runbook {name[:63]!r} is not demoted.", do)
        log.warning("runbook restored", runbook=name, who=who, reason=said.reason)


def running(attempt: Attempt, now: float) -> bool:
    """Nothing is concluded about an attempt before its whole duration has passed."""
    return attempt.outcome is None and now < attempt.at + attempt.deadline
