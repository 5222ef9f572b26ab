"""The OpenAPI 3.1 document of the JSON API, made of the models that it takes and answers with.

In: the names of the runbooks that are loaded, since a pause can name only one of these. Out: one JSON document. A test
holds `OPERATIONS` equal to the routes, and another one the real answers to the document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from remediator import api_models as models
from remediator.runbooks import Strict
from remediator.seal_names import SEAL

MOST_EPISODES = 500
MOST_EVENTS = 1000
EPISODE = "[0-9a-zA-Z-]{1,64}"
ATTEMPT = "[0-9a-f]{32}"
RUNBOOK = "[a-z][a-z0-9-]{1,62}"
MOST_SINCE = 365 * 86400  # seconds
VERIFIED = f"(episode:{EPISODE}|seal:[0-9]{{1,9}})"
MOMENT = r"[0-9]{1,12}(\.[0-9]{1,9})?"

Json = Any  # what `json.dumps` takes
ALWAYS = (401, 403, 503)  # token missing or wrong; the API is switched off; the journal or the token cannot be read
_REFERENCE = "#/components/schemas/{model}"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One in the path (always required) or in the query. `schema` describes what is taken."""

    name: str
    schema: Mapping[str, Json]
    place: str = "query"
    required: bool = False

    def as_json(self) -> Json:
        required = self.required or self.place == "path"
        return {"name": self.name, "in": self.place, "required": required, "schema": dict(self.schema)}


@dataclass(frozen=True, slots=True)
class Operation:
    """One route: what it takes, the status and shape of its yes, and the statuses of its no beside ALWAYS.

    links  where a value of the answer leads: operation -> (its parameter, the place in the answer)
    """

    method: str
    path: str
    name: str
    answer: type[Strict]
    summary: str
    status: int = 200
    parameters: tuple[Parameter, ...] = ()
    body: type[Strict] | None = None
    refusals: tuple[int, ...] = ()
    links: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def as_json(self) -> Json:
        yes: dict[str, Json] = {"description": _doc(self.answer), "content": _content(self.answer)}
        if self.links:
            yes["links"] = {
                name: {"operationId": name, "parameters": {parameter: f"$response.body#{place}"}}
                for name, (parameter, place) in self.links.items()
            }
        no = {str(status): _refusal(status) for status in sorted((*self.refusals, *ALWAYS))}
        said = {"operationId": self.name, "summary": self.summary, "responses": {str(self.status): yes, **no}}
        if self.parameters:
            said["parameters"] = [parameter.as_json() for parameter in self.parameters]
        if self.body is not None:
            said["requestBody"] = {"required": True, "content": _content(self.body)}
        return said


def _number(name: str, most: int) -> Parameter:
    return Parameter(name, {"type": "integer", "minimum": 1, "maximum": most})


def _named(name: str, pattern: str) -> Parameter:
    return Parameter(name, {"type": "string", "pattern": f"^{pattern}$"}, "path")


_WHO = Parameter("who", TypeAdapter(models.Said).json_schema(), required=True)

OPERATIONS = (
    Operation(
        "GET", "/api/v1/episodes", "episodes", models.Episodes,
        "The latest episodes; `open=1` only open ones, `open=0` only closed ones.",
        parameters=(Parameter("open", {"type": "string", "enum": ["0", "1"]}), _number("limit", MOST_EPISODES)),
        refusals=(400,), links={"episode": ("id", "/episodes/0/id")},
    ),
    Operation(
        "GET", "/api/v1/episodes/{id}", "episode", models.EpisodeStory, "One episode, event by event.",
        parameters=(_named("id", EPISODE),), refusals=(404,),
    ),
    Operation(
        "GET", "/api/v1/journal", "journal", models.JournalPart,
        "Events of all episodes by time: the newest, or those since `after`.",
        parameters=(Parameter("after", {"type": "string", "pattern": f"^{MOMENT}$"}), _number("limit", MOST_EVENTS)),
        refusals=(400,),
    ),
    Operation(
        "GET", "/api/v1/doubts", "doubts", models.Doubts, "Attempts in doubt.",
        links={"settle": ("attempt", "/doubts/0/attempt")},
    ),
    Operation(
        "POST", "/api/v1/doubts/{attempt}/settle", "settle", models.Settling, "A person's word about a doubt.",
        status=202, parameters=(_named("attempt", ATTEMPT),), body=models.Settle, refusals=(400, 404, 409, 413, 422),
    ),
    Operation(
        "GET", "/api/v1/journal/verify", "verify", models.Verification,
        "Recompute charges and seals from the events, in parts; with `seal` only compare that one with what was told.",
        parameters=(
            Parameter("after", {"type": "string", "pattern": f"^{VERIFIED}$"}),
            Parameter("seal", {"type": "string", "pattern": f"^{SEAL}$"}),
        ),
        refusals=(400,),
    ),
    Operation(
        "GET", "/api/v1/approvals", "approvals", models.Questions, "What waits for a person's yes.",
        links={"approve": ("id", "/approvals/0/id"), "decline": ("id", "/approvals/0/id")},
    ),
    Operation(
        "POST", "/api/v1/approvals/{id}/approve", "approve", models.Answering, "Yes, to what the digest stands for.",
        status=202, parameters=(_named("id", ATTEMPT),), body=models.Yes, refusals=(400, 404, 409, 413, 422),
    ),
    Operation(
        "POST", "/api/v1/approvals/{id}/decline", "decline", models.Answering, "No, for this episode.",
        status=202, parameters=(_named("id", ATTEMPT),), body=models.Decline, refusals=(400, 404, 409, 413, 422),
    ),
    Operation(
        "POST", "/api/v1/commands/preview", "preview", models.Previewed, "What a person's own command would do now.",
        body=models.Wish, refusals=(400, 404, 409, 413, 422),
    ),
    Operation(
        "POST", "/api/v1/commands", "command", models.Commanded, "Do it once: a person's own command.",
        status=202, body=models.NewCommand, refusals=(400, 404, 409, 413, 422),
    ),
    Operation(
        "POST", "/api/v1/storm/end", "end_storm", models.StormEnded, "A person says that the storm is over.",
        body=models.Because, refusals=(400, 409, 413, 422),
    ),
    Operation(
        "POST", "/api/v1/runbooks/{name}/restore", "restore", models.Restored, "Let a demoted runbook act again.",
        parameters=(_named("name", RUNBOOK),), body=models.Because, refusals=(400, 404, 409, 413, 422),
    ),
    Operation(
        "GET", "/api/v1/shadow", "shadow", models.ShadowReport,
        "What would have been done, what really came, and what each runbook is ready for.",
        parameters=(
            Parameter("runbook", {"type": "string", "pattern": f"^{RUNBOOK}$"}), _number("since", MOST_SINCE),
        ),
        refusals=(400, 404),
    ),
    Operation(
        "POST", "/api/v1/runbooks/{name}/promote", "promote", models.PromotionNoted,
        "Note that a person gives a runbook more freedom.",
        parameters=(_named("name", RUNBOOK),), body=models.Promote, refusals=(400, 404, 409, 413, 422),
    ),
    Operation("GET", "/api/v1/pauses", "pauses", models.Pauses, "Pauses in force."),
    Operation(
        "POST", "/api/v1/pauses", "pause", models.Paused, "Begin no more actions, until it ends or is ended.",
        status=201, body=models.NewPause, refusals=(400, 409, 413, 422),
    ),
    Operation(
        "DELETE", "/api/v1/pauses/{id}", "resume", models.Resumed, "End a pause.",
        parameters=(_named("id", "[0-9]+"), _WHO), refusals=(400, 404),
    ),
    Operation("GET", "/api/v1/status", "status", models.Status, "What it is, what it may do, what needs a person."),
    Operation("GET", "/api/v1/openapi.json", "openapi", models.Document, "This document."),
)  # fmt: skip


def document(version: str, runbooks: Sequence[str]) -> Json:
    """The whole document. `runbooks` are those that a pause can name."""
    paths: dict[str, dict[str, Json]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = operation.as_json()
    return {
        "openapi": "3.1.0",
        "info": {"title": "prep-remediator", "version": version, "description": "For operators; prepctl uses it."},
        "paths": paths,
        "components": {
            "schemas": _schemas(runbooks),
            "securitySchemes": {"operator": {"type": "http", "scheme": "bearer"}},
        },
        "security": ({"operator": []},),
    }


def _schemas(runbooks: Sequence[str]) -> dict[str, Json]:
    """Bodies as they are taken, answers as they are given: there a field with a default is always present."""
    taken = {model for each in OPERATIONS if (model := each.body) is not None}
    given = {each.answer for each in OPERATIONS} | {models.Refused}
    pairs: list[tuple[type[Strict], Any]] = [(model, "validation") for model in taken]
    pairs += [(model, "serialization") for model in given]
    _, made = models_json_schema(sorted(pairs, key=lambda pair: pair[0].__name__), ref_template=_REFERENCE)
    schemas: dict[str, Json] = made["$defs"]
    scope = schemas[models.NewPause.__name__]["properties"]["scope"]
    scope["pattern"] = scope["pattern"].replace("runbook:[a-z][a-z0-9-]+", f"runbook:({'|'.join(sorted(runbooks))})")
    return schemas


def _content(model: type[Strict]) -> Json:
    return {"application/json": {"schema": {"$ref": _REFERENCE.format(model=model.__name__)}}}


def _refusal(status: int) -> Json:
    return {"description": HTTPStatus(status).phrase, "content": _content(models.Refused)}


def _doc(model: type[Strict]) -> str:
    return (model.__doc__ or "").strip()


def described() -> Iterator[tuple[str, str]]:
    """Method and path of every operation."""
    return ((operation.method, operation.path) for operation in OPERATIONS)
