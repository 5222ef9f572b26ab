"""Which text format, and whether zipped: what a scraper asks for in its headers.

In: the headers Accept and Accept-Encoding (RFC 9110, 12.5). Out: a `Format` with the Content-Type to answer with. It
must never claim a version that is not written, and never fail: what cannot be read is passed over.

Formats: text 0.0.4, text 1.0.0 (Prometheus 3: the same text, as long as every name is a legacy one), OpenMetrics 1.0.0
and 0.0.1 (https://prometheus.io/docs/instrumenting/content_negotiation/).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

_TEXT, _OPENMETRICS = "text/plain", "application/openmetrics-text"
_MEDIA = {
    _TEXT: (_TEXT,),
    _OPENMETRICS: (_OPENMETRICS,),
    "text/*": (_TEXT,),
    "application/*": (_OPENMETRICS,),
    "*/*": (_TEXT, _OPENMETRICS),
}
"""What each range of media types can be answered with, the best first."""

_VERSIONS = {_TEXT: {"": "0.0.4", "0.0.4": "0.0.4", "1.0.0": "1.0.0"}, _OPENMETRICS: {"": "1.0.0"}}
_VERSIONS[_OPENMETRICS] |= {"0.0.1": "0.0.1", "1.0.0": "1.0.0"}
"""Version asked for to version written; any other has rules that are not known here."""

_ESCAPINGS = ("allow-utf-8", "underscores", "values")
"""Schemes under which legacy names, the only ones of the catalog, stay as they are. `dots` doubles every underscore."""
_ESCAPED = "underscores"
"""What is said to whoever asks for another scheme: which one was used."""


@dataclass(frozen=True, slots=True)
class Format:
    """A text format; `openmetrics` tells the two syntaxes apart."""

    content_type: str
    openmetrics: bool


TEXT = Format("text/plain; version=0.0.4; charset=utf-8", False)
OPENMETRICS = Format("application/openmetrics-text; version=1.0.0; charset=utf-8", True)


@dataclass(frozen=True, slots=True)
class _Range:
    """One entry of Accept: lower case, `q` 0 when it cannot be read."""

    media: str
    version: str
    escaping: str | None
    q: float


@lru_cache(maxsize=64)
def negotiate(accept: str) -> Format:
    """The format for an Accept header: the highest q wins, then the first; text 0.0.4 when nothing fits.

    Worked example: `text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,*/*;q=0.2` ->
    `text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8`.
    """
    ranges = [_range(entry) for entry in accept.split(",")]
    refused = {each.media for each in ranges if each.q == 0}
    best, best_q = TEXT, 0.0
    for each in ranges:
        medium = next((one for one in _MEDIA.get(each.media, ()) if each.media == one or one not in refused), None)
        version = _VERSIONS[medium].get(each.version) if medium else None
        if medium and version and each.q > best_q:
            best, best_q = _format(medium, version, each.escaping), each.q
    return best


def zips(accept_encoding: str) -> bool:
    """Whether the answer is zipped: gzip (or any coding) is accepted, and liked no less than none at all.

    `gzip;q=0` refuses it, whatever else is there.
    """
    q = {name: _quality(parameters) for name, parameters in map(_entry, accept_encoding.split(","))}
    wanted = q.get("gzip", q.get("x-gzip", q.get("*", 0.0)))
    return wanted > 0 and wanted >= q.get("identity", 0.0)


def _format(medium: str, version: str, escaping: str | None) -> Format:
    if version == "1.0.0" and escaping is not None:
        scheme = escaping if escaping in _ESCAPINGS else _ESCAPED
        return Format(f"{medium}; version={version}; charset=utf-8; escaping={scheme}", medium == _OPENMETRICS)
    if (medium, version) == (_TEXT, "0.0.4"):
        return TEXT
    if (medium, version) == (_OPENMETRICS, "1.0.0"):
        return OPENMETRICS
    return Format(f"{medium}; version={version}; charset=utf-8", medium == _OPENMETRICS)


def _range(entry: str) -> _Range:
    media, parameters = _entry(entry)
    return _Range(media, parameters.get("version", ""), parameters.get("escaping"), _quality(parameters))


def _entry(text: str) -> tuple[str, dict[str, str]]:
    """`a/b; x="y"` to its name and parameters, lower case and without quotes."""
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    return name, dict(_pairs(parameters))


def _pairs(parameters: list[str]) -> Iterator[tuple[str, str]]:
    for part in parameters:
        name, equals, value = part.partition("=")
        if equals:
            yield name.strip(), value.strip().strip('"')


def _quality(parameters: dict[str, str]) -> float:
    """q, 1 when it is not said; 0 for what is no number from 0 to 1."""
    try:
        q = float(parameters.get("q", "1"))
    except ValueError:
        return 0.0
    return q if 0 <= q <= 1 else 0.0
