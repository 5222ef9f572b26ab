"""What the API's handlers share: a way to say no, a person's words, and a request's body as a model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TypeVar

from aiohttp import web
from pydantic import ValidationError

from remediator.answers import problem
from remediator.operators import Caller
from remediator.runbooks import Strict

MOST_BODY = 64 * 1024
BODY_TIMEOUT = 5.0  # seconds for a body of at most MOST_BODY
Model = TypeVar("Model", bound=Strict)
CALLER = web.RequestKey("caller", Caller)
SAID = web.RequestKey("said", Strict)
"""The body, once it was read: it may say who somebody with a shared token is."""


class No(Exception):
    """A handler's way to say no with an answer of its own."""

    def __init__(self, answer: web.Response) -> None:
        self.answer = answer
        super().__init__(answer.status)

    @property
    def error(self) -> Mapping[str, str]:
        """`code`, `message` and `do` of the answer, for who says it otherwise than in JSON."""
        said: Mapping[str, str] = json.loads(self.answer.text or "{}")["error"]
        return said


def no(status: int, code: str, message: str, do: str) -> No:
    """To be raised."""
    return No(problem(status, code, message, do))


def caller_of(request: web.Request) -> Caller:
    """Who asks, as the guard before the handler has found out."""
    return request[CALLER]


def named(caller: Caller, said: str | None) -> str:
    """The name that goes into the journal: of the token where it has one, else what the caller says. Raises No."""
    name = caller.name or said
    if not name:
        raise no(
            403, "who", "Who acts is not said, and the token is shared.", "Give `who`, or use a token of your own."
        )
    return name


async def read_body(request: web.Request, model: type[Model]) -> Model:
    """The request's JSON as a model; raises No with every fault of it."""
    data = await read_bytes(request)
    try:
        made = model.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise unusable(model, error) from error
    said: Strict = made
    request[SAID] = said
    return made


def unusable(model: type[Model], error: ValidationError) -> No:
    """To be raised: every fault of a body."""
    found = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}" for item in error.errors())
    fields = ", ".join(model.model_fields)
    return no(422, "bad_body", f"The body cannot be used: {found}.", f"It is JSON with {fields}.")


async def read_bytes(request: web.Request) -> bytes:
    """The whole body, at most MOST_BODY bytes within BODY_TIMEOUT. Raises No."""
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            while len(data) <= MOST_BODY and (chunk := await request.content.readany()):
                data += chunk
    except (TimeoutError, ConnectionError, web.RequestPayloadError) as error:
        raise no(400, "incomplete_body", "The body did not come to its end.", "Send it again, whole.") from error
    if len(data) > MOST_BODY:
        raise no(413, "too_large", f"The body is over {MOST_BODY} bytes.", "Send less.")
    return bytes(data)
