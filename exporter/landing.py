"""The page at `/`: which exporter this is, and how its collectors do.

In: the version and each collector's health. Out: HTML without scripts, readable with a keyboard, a screen reader, in
the dark and on a small screen; nothing is told by colour alone. Every word of it is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from exporter.catalog import COLLECTORS
from exporter.redaction import clean

DOCS_PATH = "/docs/metrics.md"
"""Where the exporter serves what docs/metrics.md says of its own version."""

LANDING_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

_STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem}"
    ".wide{overflow-x:auto}table{border-collapse:collapse;width:100%}"
    "caption{text-align:left;padding:.3rem .6rem}"
    "td,th{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #8888}"
    "td.fault{overflow-wrap:anywhere}td.number{white-space:nowrap}"
)


@dataclass(frozen=True, slots=True)
class Health:
    """How a collector's last run went. `fault` None: well; `ran` False: it has not run yet. Duration in seconds."""

    collector: str
    ran: bool
    fault: str | None
    duration: float


def page(version: str, metrics: str, collectors: Sequence[Health]) -> str:
    """The whole page; `metrics` is their path."""
    ill = sum(1 for one in collectors if one.fault is not None)
    summary = f"{len(collectors)} collectors, {ill or 'none'} of them ill in the last run."
    rows = "".join(_row(one) for one in collectors)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>prep-exporter</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><main><h1>prep-exporter</h1><p>Version {escape(version)}.</p>"
        f'<nav aria-label="Pages"><ul><li><a href="{escape(metrics)}">Metrics</a></li>'
        f'<li><a href="{DOCS_PATH}">What each metric, setting and collector means</a></li>'
        '<li><a href="/-/healthy">Is it alive</a>, <a href="/-/ready">is it ready</a></li></ul></nav>'
        f'<div class="wide" tabindex="0" role="region" aria-labelledby="health"><table><caption id="health">{summary}'
        '</caption><thead><tr><th scope="col">Collector</th><th scope="col">Runs</th><th scope="col">Last run</th>'
        f'<th scope="col">Took</th></tr></thead><tbody>{rows}</tbody></table></div></main></body></html>'
    )


def _row(one: Health) -> str:
    word = "has not run yet" if not one.ran else "well" if one.fault is None else f"ill: {clean(one.fault)}"
    took = f"{one.duration * 1000:.1f} ms" if one.ran else "–"
    runs = COLLECTORS[one.collector].runs if one.collector in COLLECTORS else ""
    return (
        f'<tr><th scope="row">{escape(one.collector)}</th><td>{escape(runs)}</td><td class="fault">{escape(word)}</td>'
        f'<td class="number">{took}</td></tr>'
    )
