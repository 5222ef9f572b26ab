"""One probe from its start to its end: a GET, a TCP connection or a TLS handshake, under one timeout.

In: a configured probe. Out: an `Attempt`, whatever the other side does: it hangs, refuses, drips, sends garbage. It
must never raise for what the other side does, keep a connection, or send anything that changes something there.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp

from exporter.background_settings import Probe
from exporter.errors import Transient
from exporter.trust import Trust
from exporter.web_client import Answer, Resolver, Unresolved, read_capped

Failure = Literal["resolve", "connect", "tls", "timeout", "answer", "status", "text"]

_HAS_EXPIRED = 10
"""X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL's <openssl/x509_vfy.h>."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """How a probe ended. `failure` None = well; `status` None = no HTTP answer; `expires` in UNIX seconds."""

    seconds: float
    failure: Failure | None
    status: int | None = None
    expires: float | None = None


class _Failed(Exception):
    """The probe is over, for this reason."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


def expiry(certificate: Mapping[str, Any]) -> float | None:
    """`notAfter` in UNIX seconds; None when there is none."""
    with suppress(KeyError, ValueError):
        return float(ssl.cert_time_to_seconds(certificate["notAfter"]))
    return None


class Prober:
    """Runs one probe again and again, one at a time."""

    def __init__(self, probe: Probe, resolver: Resolver, trust: Trust) -> None:
        self._probe = probe
        self._resolver = resolver
        self._trust = trust
        self._status: int | None = None
        self._expires: float | None = None

    async def attempt(self, session: aiohttp.ClientSession) -> Attempt:
        """One attempt, over after the probe's timeout at the latest."""
        loop = asyncio.get_running_loop()
        self._status, self._expires = None, None
        began = loop.time()
        failure: Failure | None = None
        try:
            async with asyncio.timeout(self._probe.timeout):
                await (self._get(session) if self._probe.is_http else self._connect())
        except TimeoutError:
            failure = "timeout"
        except _Failed as error:
            failure = error.failure
        return Attempt(loop.time() - began, failure, self._status, self._expires)

    async def _get(self, session: aiohttp.ClientSession) -> None:
        probe = self._probe
        context = await self._tls() if probe.is_tls or probe.follow_redirects else None
        try:
            async with session.get(
                probe.url, allow_redirects=probe.follow_redirects, ssl=context if context is not None else True
            ) as response:
                if isinstance(response, Answer):
                    self._expires = expiry(response.certificate)
                self._status = response.status
                body = await read_capped(response, probe.max_body_bytes)
        except aiohttp.ClientConnectorCertificateError as error:
            raise await self._refused(error.certificate_error) from error
        except aiohttp.ClientSSLError as error:
            raise _Failed("tls") from error
        except aiohttp.ClientConnectorDNSError as error:
            raise _Failed("resolve") from error
        except aiohttp.ClientConnectorError as error:
            raise _Failed("connect") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # ValueError: what aiohttp lets through of a head or an address (of a redirect) that is none.
            if isinstance(error, TimeoutError):
                raise
            raise _Failed("answer") from error
        if (failure := judge(probe, response.status, body)) is not None:
            raise _Failed(failure)

    async def _connect(self) -> None:
        context = await self._tls() if self._probe.is_tls else None
        try:
            await self._open(context)
        except Unresolved as error:
            raise _Failed("resolve") from error
        except ssl.SSLCertVerificationError as error:
            raise await self._refused(error) from error
        except ssl.SSLError as error:
            raise _Failed("tls") from error
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            cut = isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError)
            raise _Failed("tls" if cut and context is not None else "connect") from error

    async def _refused(self, error: Exception) -> _Failed:
        """The certificate is not valid. When it has only expired, it is looked at once more to tell when."""
        if getattr(error, "verify_code", None) == _HAS_EXPIRED and self._probe.is_tls:
            with suppress(OSError, _Failed):
                await self._open(await self._tls(expired=True))
        self._trust.doubt(self._probe.ca_file)
        return _Failed("tls")

    async def _open(self, context: ssl.SSLContext | None) -> None:
        """Connect to the first address that takes it, shake hands if there is a context, note the expiry, and close."""
        probe = self._probe
        error: OSError = Unresolved(probe.host)
        for address in await self._resolver.resolve(probe.host, probe.port):
            named = probe.host if context is not None else None
            try:
                _, writer = await asyncio.open_connection(
                    address["host"], address["port"], ssl=context, server_hostname=named
                )
            except ssl.SSLError:
                raise
            except OSError as refused:
                error = refused
                continue
            self._expires = expiry(writer.get_extra_info("peercert") or {})
            writer.transport.abort()  # nothing was said, so nothing is lost; a goodbye could hang
            with suppress(OSError):
                await writer.wait_closed()
            return
        raise error

    async def _tls(self, *, expired: bool = False) -> ssl.SSLContext:
        """The context of this probe's authorities. Raises _Failed when their file cannot be read."""
        try:
            return await self._trust.context(self._probe.ca_file, expired=expired)
        except (OSError, Transient) as error:
            raise _Failed("tls") from error


def judge(probe: Probe, status: int, body: bytes) -> Failure | None:
    """Whether an HTTP answer is what was expected."""
    if status not in probe.expected_status and (probe.expected_status or not 200 <= status <= 299):
        return "status"
    if probe.expected_text is not None and probe.expected_text.encode() not in body:
        return "text"
    return None
