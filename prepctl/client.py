"""The remediator's API, as prepctl uses it. One request a call, bounded in time, no retry.

In: a base URL and the file of an operator's token. Out: decoded JSON, or Failure with the words of the API.
It uses no proxy and follows no redirect: both would carry the token to another host. It never opens the
journal: a reader that is stopped with Ctrl-Z inside a transaction would stop the remediator.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from prepctl.errors import Exit, Failure
from remediator.errors import Fault

TIMEOUT = 10.0  # seconds for one answer
MOST_BYTES = 64 * 1024 * 1024
Json = Any  # what the API answers with


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """None makes urllib raise the 3xx as an error."""


def _opener() -> OpenerDirector:
    return build_opener(ProxyHandler({}), _NoRedirect())


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and decoded body of an answer that was read to its end."""

    status: int
    body: Json


@dataclass(frozen=True, slots=True)
class Client:
    """`url` is the remediator's base URL, `token_file` holds an operator's token (None: ask without one)."""

    url: str
    token_file: Path | None = None

    def get(self, path: str, **query: str | int | float | None) -> Json:
        """GET; raises Failure for everything but 200."""
        return self._ask("GET", path, query)

    def post(self, path: str, body: Mapping[str, Json]) -> Json:
        """POST with a JSON body; raises Failure for everything but 2xx."""
        return self._ask("POST", path, {}, body)

    def delete(self, path: str, **query: str | int | float | None) -> Json:
        """DELETE; raises Failure for everything but 2xx."""
        return self._ask("DELETE", path, query)

    def ready(self) -> Answer:
        """`/-/ready` says no with 503 and the reasons: that is an answer, not a failure."""
        return self._send("GET", "/-/ready", {}, None)

    def _ask(self, method: str, path: str, query: Mapping[str, str | int | float | None], body: Json = None) -> Json:
        answer = self._send(method, path, query, body)
        if 200 <= answer.status < 300:
            return answer.body
        raise self._refusal(method, path, answer)

    def _send(self, method: str, path: str, query: Mapping[str, str | int | float | None], body: Json) -> Answer:
        given = {key: value for key, value in query.items() if value is not None}
        url = self._base() + path + (f"?{urlencode(given)}" if given else "")
        headers = {"Accept": "application/json", **self._authorization()}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        request = Request(url, data, headers, method=method)  # noqa: S310 - the scheme is checked in _base
        try:
            with _opener().open(request, timeout=TIMEOUT) as response:
                return Answer(response.status, _decode(response.read(MOST_BYTES), url))
        except HTTPError as error:
            with error:
                return Answer(error.code, _decode(error.read(MOST_BYTES), url))
        except (URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
            why = getattr(error, "reason", None) or error or type(error).__name__
            raise Failure(
                Exit.UNREACHABLE,
                f"The remediator at {self.url} does not answer: {why}.",
                "Is it running, and is PREPCTL_URL (or --url) its address? "
                "To stop everything without it, create the file that its configuration names as pause_file.",
            ) from error

    def _base(self) -> str:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise Failure(
                Exit.USAGE,
                f"{self.url!r} is not a URL.",
                "Set PREPCTL_URL to one like http://127.0.0.1:11471.",
            )
        return self.url.rstrip("/")

    def _authorization(self) -> dict[str, str]:
        if self.token_file is None:
            return {}
        try:
            token = self.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not text"
            do = "Set PREPCTL_TOKEN_FILE (or --token-file) to a file that holds an operator's token."
            raise Failure(Exit.USAGE, f"The token file {self.token_file} cannot be read: {why}.", do) from error
        if not token.isascii() or not token.isprintable() or not token:
            raise Failure(Exit.USAGE, f"The token file {self.token_file} holds no token.", "It is one line of ASCII.")
        return {"Authorization": f"Bearer {token}"}

    def _refusal(self, method: str, path: str, answer: Answer) -> Failure:
        """The API's own words; a proxy's page in between has none of them."""
        said = answer.body.get("error") if isinstance(answer.body, dict) else None
        if not isinstance(said, dict):
            message = f"{method} {self.url}{path} was answered with status {answer.status}, not by the remediator."
            return Failure(Exit.UNREACHABLE, message, "Check that PREPCTL_URL leads to it, and to nothing in between.")
        if answer.status in (401, 403):
            code = Exit.FORBIDDEN
        else:
            code = Exit.UNREACHABLE if answer.status >= 500 else Exit.NO
        do = str(said.get("do", ""))
        if said.get("code") == "token_missing" and self.token_file is None:
            do = "Set PREPCTL_TOKEN_FILE (or --token-file) to a file that holds an operator's token."
        faults = said.get("faults") or ()
        lines = [str(said.get("message", answer.status)), *(f"  {_fault(each)}" for each in faults)]
        return Failure(code, "\n".join(lines), do)


def _fault(said: Json) -> str:
    """A fault of the remediator's configuration in one line; what is none is shown as it came."""
    try:
        return str(Fault(**said))
    except TypeError:
        return str(said)


def _decode(data: bytes, url: str) -> Json:
    try:
        return json.loads(data) if data else {}
    except ValueError as error:
        raise Failure(
            Exit.UNREACHABLE,
            f"{url} answers, but not with JSON: it is not the remediator.",
            "Check PREPCTL_URL.",
        ) from error
