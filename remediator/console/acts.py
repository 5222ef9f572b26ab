"""What people do in the console: each form to the decision that the API takes too, with the same words and checks.

In: a visitor and the fields of a form. Out: where to go next, and a sentence for there. It decides nothing itself:
`decisions.py` does, and journals who.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from aiohttp import web
from pydantic import ValidationError

from remediator.api_models import Because, Decline, NewPause, Settle, Yes
from remediator.console.access import Visitor
from remediator.decisions import Decisions
from remediator.durations import human
from remediator.handling import no
from remediator.runbooks import Strict

Form = Mapping[str, str]
Model = TypeVar("Model", bound=Strict)
FOR = {"15m": 900.0, "30m": 1800.0, "1h": 3600.0, "2h": 7200.0, "4h": 14400.0, "8h": 28800.0, "24h": 86400.0}
"""How long a pause may be from here; for longer ones there is the command line, and a change of the configuration."""


@dataclass(frozen=True, slots=True)
class Went:
    """It is taken: where to go, and what to say there."""

    to: str
    said: str


@dataclass
class Acts:
    """Handlers; the console guards them."""

    decisions: Decisions

    async def approve(self, request: web.Request, visitor: Visitor, form: Form) -> Went:
        """Yes, to what the digest stands for."""
        said = _made(Yes, digest=form.get("digest"), who=visitor.said, reason=form.get("reason") or None)
        episode = await self.decisions.approve(visitor.caller, request.match_info["id"], said)
        return Went(f"/console/episodes/{episode}", "Your yes is taken. The timeline tells whose answer counted.")

    async def decline(self, request: web.Request, visitor: Visitor, form: Form) -> Went:
        """No, for this episode."""
        said = _made(Decline, digest=form.get("digest"), who=visitor.said, reason=form.get("reason"))
        episode = await self.decisions.decline(visitor.caller, request.match_info["id"], said)
        return Went(f"/console/episodes/{episode}", "Your no is taken. The timeline tells whose answer counted.")

    async def settle(self, request: web.Request, visitor: Visitor, form: Form) -> Went:
        """What a person saw at the target."""
        said = _made(Settle, settlement=form.get("settlement"), who=visitor.said, reason=form.get("reason"))
        episode = await self.decisions.settle(visitor.caller, request.match_info["attempt"], said)
        return Went(f"/console/episodes/{episode}", "Your word is taken. The timeline tells what came of it.")

    async def pause(self, request: web.Request, visitor: Visitor, form: Form) -> Went:
        """Stop beginning actions, with an end."""
        del request
        if form.get("for") not in FOR:
            raise no(422, "no_end", "A pause needs an end.", f"Choose one of {', '.join(FOR)}.")
        seconds, kind, name = FOR[form["for"]], form.get("scope", ""), form.get("name", "").strip()
        if kind == "all" and name:
            raise no(422, "scope", f"Everything, or only {name!r}?", "Choose what the name is of, or leave it empty.")
        scope = kind if kind == "all" else f"{kind}:{name}"
        said = _made(NewPause, scope=scope, who=visitor.said, reason=form.get("reason"), for_seconds=seconds)
        made, running = await self.decisions.pause(visitor.caller, said)
        what = "everything" if made.scope == "all" else made.scope
        under_way = f" {len(running)} under way already cannot be stopped." if running else ""
        return Went("/console/pauses", f"Paused for {human(seconds)}: {what}.{under_way}")

    async def resume(self, request: web.Request, visitor: Visitor, form: Form) -> Went:
        """End a pause."""
        del form
        number = await self.decisions.resume(visitor.caller, request.match_info["id"], visitor.said)
        return Went("/console/pauses", f"Pause {number} is over.")

    async def end_storm(self, request: web.Request, visitor: Visitor, form: Form) -> Went:
        """The storm is over."""
        del request
        await self.decisions.end_storm(visitor.caller, _made(Because, who=visitor.said, reason=form.get("reason")))
        return Went("/console", "The storm is over. What waits is released one after the other.")

    async def restore(self, request: web.Request, visitor: Visitor, form: Form) -> Went:
        """A demoted runbook may act again."""
        name = request.match_info["name"]
        said = _made(Because, who=visitor.said, reason=form.get("reason"))
        await self.decisions.restore(visitor.caller, name, said)
        return Went(f"/console/runbooks/{name}", "It does what its mode says again.")


def _made(model: type[Model], **fields: object) -> Model:
    """The same model as the API's body. Raises No in words for somebody before a form."""
    given = {name: value.strip() if isinstance(value, str) else value for name, value in fields.items()}
    try:
        return model.model_validate({name: value for name, value in given.items() if value is not None}, strict=True)
    except ValidationError as error:
        wrong = sorted({str(item["loc"][0]) if item["loc"] else "form" for item in error.errors()})
        said = f"Not taken; these fields are empty or cannot be so: {', '.join(wrong)}."
        raise no(422, "bad_form", said, "A reason is one line of at most 500 characters, and is needed.") from error
