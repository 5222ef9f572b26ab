"""JSON answers of the webhook and the API when they say no: what happened, and what to do about it.

One shape everywhere: `{"error": {"code": …, "message": …, "do": …}}`. `code` is a short closed word for
programs, `message` what was asked and what was found, `do` the way out. Never a secret, never a stack trace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict

from aiohttp import web

from remediator.bearer import Answer
from remediator.errors import Fault

LINGER = 5.0  # seconds for which a body that nobody wants is read away, so that its sender reads the answer


def problem(status: int, code: str, message: str, do: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer that is not a yes."""
    body = {"error": {"code": code, "message": message, "do": do}}
    return web.json_response(body, status=status, headers=headers)


def faulty(faults: Sequence[Fault]) -> web.Response:
    """A configuration that was not taken over: 422 with every fault as `{where, what, remedy}` under `error.faults`."""
    body = {
        "error": {
            "code": "config_refused",
            "message": f"Not taken over, what was before still holds. Faults: {len(faults)}.",
            "do": "Mend them all and reload again; `prep-remediator --config.check` lists them too.",
            "faults": [asdict(fault) for fault in faults],
        }
    }
    return web.json_response(body, status=422)


def refused(answer: Answer, setting: str) -> web.Response:
    """For a bearer token that does not let in; `setting` is the one that lists the token files.

    401 as RFC 6750 section 3 has it, for a missing and for a wrong token; 503 when the fault is ours, so that
    a sender that retries 5xx (Alertmanager does) loses nothing while the file is put right.
    """
    if answer is Answer.UNCONFIGURED:
        return problem(
            503,
            "no_token_configured",
            f"No token can be read from the files of `{setting}`, so nobody can be let in.",
            f"Put a token into a file of `{setting}` that the remediator can read; no restart is needed.",
            {"Retry-After": "5"},
        )
    if answer is Answer.MISSING:
        return problem(
            401,
            "token_missing",
            "The request has no bearer token.",
            f"Send `Authorization: Bearer <token>` with a token of `{setting}`.",
            {"WWW-Authenticate": 'Bearer realm="prep-remediator"'},
        )
    return problem(
        401,
        "token_wrong",
        "The bearer token is not one of those that are valid now.",
        f"Send a token that is in one of the files of `{setting}`; the old one may be rotated out.",
        {"WWW-Authenticate": 'Bearer realm="prep-remediator", error="invalid_token"'},
    )


def refused_password(answer: Answer) -> web.Response:
    """For a user and password that do not let in; statuses as of `refused`, the challenge as RFC 7617 has it."""
    if answer is Answer.UNCONFIGURED:
        return problem(
            503,
            "no_password_configured",
            "No password can be read from the files of `webhook.basic_auth.password_files`, so nobody can be let in.",
            "Put the password into one of these files, readable for the remediator; no restart is needed.",
            {"Retry-After": "5"},
        )
    challenge = {"WWW-Authenticate": 'Basic realm="prep-remediator", charset="UTF-8"'}
    do = "Send the user of `webhook.basic_auth.user` and a password that is in one of its `password_files`."
    if answer is Answer.MISSING:
        return problem(401, "password_missing", "The request has no user and password.", do, challenge)
    return problem(401, "password_wrong", "User and password are not those that are valid now.", do, challenge)


async def finished(request: web.Request, answer: web.Response) -> web.Response:
    """Send an answer that may be given before the request's body has come, and bring the connection to an end.

    Closing at once would reset the connection under a sender that is still writing, and the answer would be lost
    (RFC 9112, section 9.6). aiohttp lingers for the same reason, but 10 s long even when the sender has gone.
    """
    if request.content.is_eof():
        return answer
    try:
        async with asyncio.timeout(LINGER):
            await answer.prepare(request)
            await answer.write_eof()
            while await request.content.readany():
                pass
    except (TimeoutError, ConnectionError, web.RequestPayloadError):
        request.protocol.force_close()
    return answer


@web.middleware
async def in_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """No such path, or no such method there: said in the API's shape too, since its clients read JSON."""
    try:
        return await handler(request)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
        if not request.path.startswith("/api/"):
            raise
        do = "GET /api/v1/openapi.json tells what there is."
        if isinstance(error, web.HTTPMethodNotAllowed):
            allowed = {"Allow": ", ".join(sorted(error.allowed_methods))}
            said = f"{request.method} is not understood here."
            return await finished(request, problem(405, "no_such_method", said, do, allowed))
        return await finished(request, problem(404, "no_such_path", "There is nothing at this path.", do))
