"""What a person does by hand, by the automation's own way: shown, confirmed by digest, journaled, done once, proven.

In: requests of operators. Out: an episode of its own in the inbox; the engine looks again, and does only what was
shown. No mode holds for it; limits, holds, doubts and the target's own reasons do. An admin may break the glass before
what protects from the automation (`guardrails.GLASS`), and everyone is told.

    POST /api/v1/commands/preview   {action, service, params, runbook}
    POST /api/v1/commands           {action, service, params, runbook, digest, reason, who, break_glass}
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import structlog
from aiohttp import web
from pydantic import BaseModel, ValidationError

from remediator.actions.base import Action, Preview, Risk
from remediator.api import Api, Handler
from remediator.api_models import NewCommand, Wish
from remediator.clicks import Act
from remediator.errors import RemediatorError
from remediator.handling import caller_of, named, no, read_body
from remediator.journal import Journal
from remediator.ledger import Command
from remediator.matching import params_of
from remediator.runbooks import Runbook, Rung
from remediator.sameness import digest_of_preview

log = structlog.get_logger(__name__)

BY_HAND = "by-hand"
"""Under this name a person's commands are charged: they use up no runbook's number, only the target's and the total."""
GOOD_FOR = 60.0  # seconds from the confirmation: nothing is done for somebody who has gone on by other ways
LOOK = 5.0  # seconds for a preview
TARGET = "service"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A wish, understood: the runbook that has the action, cut down to it, and what it would do now."""

    book: Runbook
    preview: Preview
    proven_by: str

    @property
    def rung(self) -> Rung:
        return self.book.ladder[0]


@dataclass
class Commands:
    """Handlers; `api` guards them."""

    journal: Journal
    api: Api
    actions: Callable[[], Mapping[str, Action]]

    def routes(self) -> list[web.RouteDef]:
        """For `app.add_routes`."""

        def act(handler: Handler, act: Act | None = None) -> Handler:
            return self.api.guarded(handler, role="operator", act=act)

        return [
            web.post("/api/v1/commands/preview", act(self.preview)),
            web.post("/api/v1/commands", act(self.command, "command")),
        ]

    async def preview(self, request: web.Request) -> web.Response:
        """What it would do now, and the target's own reasons against it."""
        said = await read_body(request, Wish)
        wanted = await self._wanted(said)
        shown = wanted.preview
        told = {
            "action": said.action,
            "runbook": wanted.proven_by,
            "resource": shown.resource,
            "summary": shown.summary,
            "items": [dict(item) for item in shown.items],
            "refusals": [{"reason": each.reason, "sentence": each.sentence} for each in shown.refusals],
            "digest": digest_of_preview(wanted.rung, shown),
        }
        return web.json_response(told)

    async def command(self, request: web.Request) -> web.Response:
        """Taken; what comes of it stands in the episode. The digest is that of what is there now, or it is refused."""
        said = await read_body(request, NewCommand)
        who = named(caller_of(request), said.who)
        if said.break_glass and not caller_of(request).may("admin"):
            do = "Ask somebody who has it, or leave the glass whole: the reason why nothing is done tells how long."
            raise no(403, "role", "Breaking the glass needs the role admin.", do)
        wanted = await self._wanted(said)
        digest = digest_of_preview(wanted.rung, wanted.preview)
        if not digest.startswith(said.digest):
            do = "Look at it again: what would be done has changed since you saw it."
            raise no(409, "digest", "The digest is not that of what would be done now.", do)
        command = Command(said.action, digest, who, said.reason, said.break_glass)
        episode = uuid.uuid4().hex
        body = {"command": asdict(command), "target": {TARGET: said.service}, "book": wanted.book.body()}
        label = f"{said.action} on {said.service} by {who}"
        await self.journal.command(episode, label, json.dumps(body).encode())
        log.warning("a person's command", episode=episode, action=said.action, service=said.service, who=who)
        return web.json_response({"status": "accepted", "episode": episode}, status=202)

    # -- understanding it -------------------------------------------------------------------------------

    async def _wanted(self, said: Wish) -> Wanted:
        """Raises No."""
        action = self.actions().get(said.action)
        if action is None or action.risk is Risk.DESTRUCTIVE:
            known = ", ".join(sorted(self.actions()))
            raise no(
                404, "no_such_action", "There is no such action, or it needs two persons.", f"Give one of {known}."
            )
        book, source = self._book(said)
        params = _params(action, book.ladder[0], said)
        try:
            async with asyncio.timeout(LOOK):
                preview = await action.preview(params)
        except (TimeoutError, RemediatorError) as error:
            why = str(error) or f"no answer within {LOOK:.0f} s"
            do = "Look at the target and at the gate before it; nothing was done."
            raise no(503, "target_unreachable", f"The target cannot be looked at: {why}.", do) from error
        return Wanted(book, preview, source)

    def _book(self, said: Wish) -> tuple[Runbook, str]:
        """The runbook whose proof counts, cut down to one rung that is done at once; and its name."""
        able = [
            (book, rung)
            for book in self.api.books()
            for rung in book.ladder
            if rung.action == said.action
            and book.target_labels == (TARGET,)
            and book.match.labels.get(TARGET, said.service) == said.service
            and said.runbook in (None, book.name)
        ]
        names = sorted({book.name for book, _ in able})
        if len(names) != 1:
            found = f"several runbooks have {said.action}" if names else f"no runbook proves {said.action}"
            do = (
                f"Name one as `runbook` (prepctl act --runbook): {', '.join(names)}."
                if names
                else "It would be done unproven: do it by hand."
            )
            raise no(409, "runbook", f"On {said.service} {found}.", do)
        book, rung = able[0]
        return by_hand(book, rung, said.params), book.name


def by_hand(book: Runbook, rung: Rung, params: Mapping[str, str | int | float | bool]) -> Runbook:
    """The runbook cut down to one rung, to be done at once and once, with these parameters beside the rung's own."""
    only = rung.model_copy(update={"wait": 0.0, "params": {**rung.params, **params}, "attempts": 1})
    changes = {"name": BY_HAND, "settle": 0.0, "stale_after": GOOD_FOR, "blocked_by": (), "ladder": (only,)}
    return book.model_copy(update=changes)


def _params(action: Action, rung: Rung, said: Wish) -> BaseModel:
    try:
        return action.params_model.model_validate(params_of(rung, {TARGET: said.service}))
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        fields = ", ".join(action.params_model.model_fields)
        # 409, not 422: the body is a good one, and at odds with this action and this runbook.
        raise no(409, "params", f"{said.action} does not take that: {found}.", f"It takes {fields}.") from error
