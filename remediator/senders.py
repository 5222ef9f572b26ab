"""Who may deliver alerts: by certificate, and by bearer token or password.

In: a request to the webhook, before a byte of its body is read. Out: None, or why not with the answer to give. All
that is configured must hold: a client's certificate where `listen.tls.client_ca_file` is set, and one of token and
password where files of them are named. Nothing that was offered is logged or answered.
"""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from remediator import tls
from remediator.answers import problem, refused, refused_password
from remediator.basic import Passwords
from remediator.bearer import Answer, Tokens
from remediator.settings import Tls, Webhook


@dataclass(frozen=True, slots=True)
class Denied:
    """`why` is a short word for the log."""

    why: str
    answer: web.Response


class Senders:
    """The checks of the webhook."""

    def __init__(self, webhook: Webhook, served: Tls | None) -> None:
        self._tokens = Tokens(webhook.token_files) if webhook.token_files else None
        self._passwords = Passwords(webhook.basic_auth) if webhook.basic_auth else None
        self._certificates = served is not None and served.client_ca_file is not None
        self._names = frozenset(map(tls.alternative_name, served.client_allowed_sans if served else ()))

    def check(self, request: web.Request) -> Denied | None:
        """None: it may deliver."""
        return self._certificate(request) or self._header(request.headers.get("Authorization"))

    def _certificate(self, request: web.Request) -> Denied | None:
        """The handshake has verified it already; whether there is one, and whose, is judged here."""
        if not self._certificates:
            return None
        found = request.get_extra_info("peercert")
        if not found:
            do = "Set cert_file and key_file in Alertmanager's http_config.tls_config."
            said = "The webhook takes deliveries only from clients with a certificate."
            return Denied("certificate_missing", problem(403, "certificate_missing", said, do))
        if self._names and not self._names & tls.names(found):
            do = "Name one of its subject alternative names in `listen.tls.client_allowed_sans`."
            said = "The client's certificate is of a trusted authority, but has none of the names that may deliver."
            return Denied("certificate_name", problem(403, "certificate_name", said, do))
        return None

    def _header(self, header: str | None) -> Denied | None:
        """Where both ways are configured the header says which one it is."""
        basic = (header or "").strip().partition(" ")[0].lower() == "basic"
        if self._passwords is not None and (basic or self._tokens is None):
            answer = self._passwords.check(header)
            return None if answer is Answer.OK else Denied(f"password_{answer}", refused_password(answer))
        if self._tokens is not None:
            answer = self._tokens.check(header)
            return None if answer is Answer.OK else Denied(f"token_{answer}", refused(answer, "webhook.token_files"))
        return None
