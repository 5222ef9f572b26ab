"""The TLS that the remediator serves with, made of files.

In: `listen.tls` of the settings. Out: a context to serve with, or ConfigError naming the file; and the names in a
client's certificate. It never asks for the password of a key: an encrypted key is a mistake.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from remediator.errors import ConfigError, Fault
from remediator.settings import Tls

Stamp = tuple[tuple[int, int, int] | None, ...]


def context(settings: Tls) -> ssl.SSLContext:
    """TLS 1.2 or newer. Raises ConfigError with every file that cannot be used.

    A client's certificate is verified when one comes and is not demanded here: health, metrics and the API are served
    on the same port to clients without one. The webhook demands it (`remediator.senders`).
    """
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    found = []
    try:
        made.load_cert_chain(settings.cert_file, settings.key_file, password=_no_password)
    except (OSError, ValueError) as error:
        remedy = "the certificate with its chain in one PEM file, its key, not encrypted, in the other"
        files = f"{settings.cert_file}, {settings.key_file}"
        found.append(Fault("listen.tls.cert_file, key_file", f"{files}: {_why(error)}", remedy))
    if settings.client_ca_file is not None:
        made.verify_mode = ssl.CERT_OPTIONAL
        try:
            made.load_verify_locations(cafile=settings.client_ca_file)
        except (OSError, ValueError) as error:
            remedy = "the authorities that sign clients' certificates, PEM"
            found.append(Fault("listen.tls.client_ca_file", f"{settings.client_ca_file}: {_why(error)}", remedy))
    if found:
        raise ConfigError(found)
    return made


def stamp(settings: Tls) -> Stamp:
    """What tells that a file has changed: its time, size and number (a renamed one has another); None: not there."""
    files = (settings.cert_file, settings.key_file, settings.client_ca_file)
    return tuple(_one_stamp(file) for file in files if file is not None)


def names(certificate: Mapping[str, Any]) -> frozenset[str]:
    """Subject alternative names of a client's certificate, as `ssl.SSLSocket.getpeercert` tells it."""
    return frozenset(alternative_name(value) for _, value in certificate.get("subjectAltName", ()))


def alternative_name(text: str) -> str:
    """A subject alternative name as it is compared: an address has more than one way of being written."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


def _why(error: Exception) -> str:
    reason = error.reason if isinstance(error, ssl.SSLError) else getattr(error, "strerror", None)
    return f"cannot be used: {reason or 'no PEM'}"


def _no_password() -> str:
    """Instead of OpenSSL asking on the terminal for the password of an encrypted key."""
    return ""


def _one_stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
