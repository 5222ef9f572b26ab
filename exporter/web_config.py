"""The web configuration file of Prometheus' exporter-toolkit: TLS, users, headers.

In: the file that `--web.config.file` names, and the files that it names. Out: a `WebConfig` with a TLS context that is
ready to serve, or ConfigError with every mistake at its line. Format:
https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md. Relative paths are relative to the
file, as there. An empty file is plain HTTP for everybody.

Everything that `promtool check web-config` takes is taken, but for what Python's TLS cannot do, which is a mistake with
a remedy and never passed over: client certificates that are asked for and not verified, several curves, and
certificates inside of the file. HTTP/2 is not spoken whatever `http2` says: it is an offer there too.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from exporter.errors import ConfigError, Fault
from exporter.fault_words import words
from exporter.setting_types import Strict
from exporter.tls import TlsServer, alternative_name, context
from exporter.yaml_file import Document

Header = Literal[
    "Content-Security-Policy",
    "X-Frame-Options",
    "X-Content-Type-Options",
    "X-XSS-Protection",
    "Strict-Transport-Security",
]
"""The headers that exporter-toolkit lets one set."""

_BCRYPT = re.compile(r"\$2[aby]?\$(\d\d)\$[./A-Za-z0-9]{53}", re.ASCII)
_MOST_ROUNDS = 16
"""Cost beyond which one login takes seconds (2^16 rounds: some 4 s)."""


class HttpServer(Strict):
    """`http_server_config`."""

    http2: bool = True
    """Taken and not used: HTTP/1.1 is spoken."""
    headers: Mapping[Header, str] = Field(default_factory=dict)
    """Added to every answer."""


class File(Strict):
    """The whole file."""

    tls_server_config: TlsServer | None = None
    """None: plain HTTP."""
    http_server_config: HttpServer = HttpServer()
    """Of every answer."""
    basic_auth_users: Mapping[str, str] = Field(default_factory=dict)
    """User to the bcrypt hash of the password; without users everybody may read."""


@dataclass(frozen=True, slots=True)
class WebConfig:
    """What is served with. `ssl` None: plain HTTP. `watched`: every file that this was made of."""

    ssl: ssl.SSLContext | None = None
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    allowed_sans: frozenset[str] = frozenset()
    watched: tuple[Path, ...] = ()


def load(path: Path | None) -> WebConfig:
    """Read the file and all that it names; None is plain HTTP. Raises ConfigError with every mistake."""
    if path is None:
        return WebConfig()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        remedy = "put the file there, readable for the exporter's user"
        raise ConfigError([Fault(str(path), f"cannot be read: {reason}", remedy)]) from error
    if not text.strip():
        return WebConfig(watched=(path,))
    document = Document.read(text, str(path))
    content = _content(document)
    found, tls, served = [*document.faults, *_user_faults(content, document)], content.tls_server_config, None
    if tls is not None:
        try:
            served = context(tls, path.parent, document)
        except ConfigError as error:
            found += error.faults
    if found:
        raise ConfigError(found)
    return WebConfig(
        served,
        content.basic_auth_users,
        {str(name): value for name, value in content.http_server_config.headers.items()},
        frozenset(map(alternative_name, tls.client_allowed_sans if tls else ())),
        (path, *(tls.files(path.parent) if tls else ())),
    )


def _content(document: Document) -> File:
    # A key with nothing after it is not set, and TLS without a word about it is none: so says exporter-toolkit.
    said = {key: value for key, value in document.data.items() if value is not None}
    if said.get("tls_server_config") == {}:
        del said["tls_server_config"]
    try:
        return File.model_validate(said)
    except ValidationError as error:
        found = [_fault(document, item) for item in error.errors(include_url=False, include_input=False)]
        raise ConfigError([*document.faults, *found]) from None


def _fault(document: Document, error: Mapping[str, Any]) -> Fault:
    location = error["loc"]
    if location[:2] == ("http_server_config", "headers"):
        location, names = location[:3], ", ".join(Header.__args__)  # type: ignore[attr-defined]
        return Fault(document.where(location), "is not a header that can be set", f"those are {names}")
    if location[0] == "basic_auth_users" and len(location) > 1:
        # The text after a user's name may be a password: neither it nor pydantic's words about it are repeated.
        return Fault(document.where(location[:2]), "is not a bcrypt hash", "make one with `htpasswd -nBC 10 NAME`")
    return Fault(document.where(location), *words(File, error, "docs/web.md"))


def _user_faults(content: File, document: Document) -> list[Fault]:
    found = []
    for user, hashed in content.basic_auth_users.items():
        at, match = document.where(("basic_auth_users", user)), _BCRYPT.fullmatch(hashed)
        if match is None or not 4 <= int(match[1]) <= 31:
            found.append(Fault(at, "is not a bcrypt hash", f"make one with `htpasswd -nBC 10 {user}`"))
        elif int(match[1]) > _MOST_ROUNDS:
            remedy = f"make one with `htpasswd -nBC 10 {user}`"
            found.append(Fault(at, f"has a cost of {match[1]}, at most {_MOST_ROUNDS} is taken", remedy))
        if ":" in user or not user.isprintable():
            found.append(Fault(at, "is no name of a user", "take one without `:` and control characters"))
    return found
