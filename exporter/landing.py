"""The page at `/`: which exporter this is, and how its collectors do.

In: the version and each collector's health. Out: HTML without scripts. Every word of it is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:3rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ccc}"
)


@dataclass(frozen=True, slots=True)
class Health:
    """How a collector's last run went. `fault` None: well; `ran` False: it has not run yet. Duration in seconds."""

    collector: str
    ran: bool
    fault: str | None
    duration: float


def page(version: str, collectors: Sequence[Health]) -> str:
    """The whole page."""
    rows = "".join(_row(one) for one in collectors)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>prep-exporter</title>'
        f"<style>{_STYLE}</style></head><body><h1>prep-exporter</h1><p>Version {escape(version)}. "
        'Metrics: <a href="/metrics">/metrics</a>. Health: <a href="/-/healthy">/-/healthy</a>, '
        '<a href="/-/ready">/-/ready</a>.</p><table><thead><tr><th>Collector</th><th>Last run</th><th>Took</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></body></html>"
    )


def _row(one: Health) -> str:
    word = "has not run yet" if not one.ran else "well" if one.fault is None else one.fault
    took = f"{one.duration * 1000:.1f} ms" if one.ran else ""
    return f"<tr><td>{escape(one.collector)}</td><td>{escape(word)}</td><td>{took}</td></tr>"
