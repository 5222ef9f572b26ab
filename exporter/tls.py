"""`tls_server_config` of exporter-toolkit to a TLS context of Python.

In: settings, and the folder that relative paths start from. Out: an `ssl.SSLContext`, or ConfigError. It must never
give a context that is weaker than what was asked for: what OpenSSL cannot do the same way is a mistake.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from exporter.errors import ConfigError, Fault
from exporter.setting_types import Strict
from exporter.yaml_file import Document

_SECTION = "tls_server_config"
_VERSIONS = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}
_CLIENT_AUTH = {
    "": ssl.CERT_NONE,
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
_CIPHERS = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
}
"""Names of Go's crypto/tls to OpenSSL's, of the suites of TLS 1.2 that Go calls secure. Those of TLS 1.3 cannot be
chosen, in Go neither."""

Version = Literal["TLS10", "TLS11", "TLS12", "TLS13"]


class TlsServer(Strict):
    """`tls_server_config`."""

    cert_file: str = Field(min_length=1)
    """Certificate with its chain, PEM."""
    key_file: str = Field(min_length=1)
    """Its private key, PEM, not encrypted."""
    client_auth_type: Literal["", "NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"] = ""
    """What is asked of clients. RequestClientCert and RequireClientCert, which verify nothing, are not there."""
    client_ca_file: str | None = None
    """Authorities that client certificates are verified by, PEM."""
    client_allowed_sans: tuple[str, ...] = ()
    """Subject alternative names (DNS, e-mail, address, URI), one of which a client's certificate must have."""
    min_version: Version = "TLS12"
    """The oldest version spoken."""
    max_version: Version = "TLS13"
    """The newest version spoken."""
    cipher_suites: tuple[str, ...] = ()
    """Of TLS 1.2, by Go's names; none named: OpenSSL's own choice."""
    prefer_server_cipher_suites: bool = True
    """Whether the order of this list counts."""
    curve_preferences: tuple[Literal["CurveP256", "CurveP384", "CurveP521", "X25519"], ...] = Field(
        default=(), max_length=1
    )
    """At most one curve; none named: OpenSSL's own choice."""

    def files(self, folder: Path) -> tuple[Path, ...]:
        """The files that this names."""
        named = (self.cert_file, self.key_file, self.client_ca_file)
        return tuple(folder / name for name in named if name)


def context(settings: TlsServer, folder: Path, document: Document) -> ssl.SSLContext:
    """A context to serve with. Raises ConfigError with every mistake, at its line in `document`."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found = [*_policy_faults(settings, document), *_load(made, settings, folder, document)]
    if found:
        raise ConfigError(found)
    made.minimum_version, made.maximum_version = _VERSIONS[settings.min_version], _VERSIONS[settings.max_version]
    made.verify_mode = _CLIENT_AUTH[settings.client_auth_type]
    made.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if settings.prefer_server_cipher_suites:
        made.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    if settings.cipher_suites:
        made.set_ciphers(":".join(_CIPHERS[name] for name in settings.cipher_suites))
    for curve in settings.curve_preferences:
        made.set_ecdh_curve(_CURVES[curve])
    made.set_alpn_protocols(["http/1.1"])
    return made


def _policy_faults(settings: TlsServer, document: Document) -> Iterator[Fault]:
    def at(key: str) -> str:
        return document.where((_SECTION, key))

    verifies = _CLIENT_AUTH[settings.client_auth_type] is not ssl.CERT_NONE
    if verifies and not settings.client_ca_file:
        yield Fault(at("client_auth_type"), "verifies clients by no authority", "name the authority in client_ca_file")
    if settings.client_ca_file and not verifies:
        yield Fault(at("client_ca_file"), "is not used", "set client_auth_type: RequireAndVerifyClientCert")
    if settings.client_allowed_sans and settings.client_auth_type != "RequireAndVerifyClientCert":
        remedy = "set client_auth_type: RequireAndVerifyClientCert"
        yield Fault(at("client_allowed_sans"), "is nothing without certificates of all clients", remedy)
    if settings.min_version > settings.max_version:
        yield Fault(at("min_version"), "is newer than max_version", "make it the older one")
    for index, name in enumerate(settings.cipher_suites):
        if name not in _CIPHERS:
            where = document.where((_SECTION, "cipher_suites", index))
            yield Fault(where, "is no cipher suite that is offered", f"those are {', '.join(_CIPHERS)}")


def _load(made: ssl.SSLContext, settings: TlsServer, folder: Path, document: Document) -> Iterator[Fault]:
    """Certificate, key and authorities into the context; what cannot be read, by file."""
    readable = True
    for key in ("cert_file", "key_file", "client_ca_file"):
        name = getattr(settings, key)
        if name and (reason := _unreadable(folder / name)):
            readable = readable and key == "client_ca_file"
            remedy = "put the file there, readable for the exporter's user"
            yield Fault(f"{document.where((_SECTION, key))}: {folder / name}", f"cannot be read: {reason}", remedy)
        elif name and key == "client_ca_file":
            try:
                made.load_verify_locations(cafile=folder / name)
            except ssl.SSLError:
                where = f"{document.where((_SECTION, key))}: {folder / name}"
                yield Fault(where, "holds no certificate", "put the authorities there, PEM")
    if not readable:
        return
    try:
        made.load_cert_chain(folder / settings.cert_file, folder / settings.key_file, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or "no PEM"
        remedy = "the certificate with its chain in one PEM file, its key, not encrypted, in the other"
        yield Fault(document.where((_SECTION, "cert_file")), f"and key_file do not go together: {reason}", remedy)


def _no_password() -> str:
    """Instead of OpenSSL asking on the terminal for the password of an encrypted key."""
    return ""


def _unreadable(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        return error.strerror
    return None


def alternative_name(text: str) -> str:
    """A subject alternative name as it is compared: addresses have more than one way of being written."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text
