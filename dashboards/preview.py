"""All dashboards as one static page with charts, for who has no Grafana: `python -m dashboards.preview --url http://...:9090`.

In: the committed dashboards, and a Prometheus. Out: one HTML file that holds everything, charts by uPlot (vendored, MIT).
It asks Prometheus and nobody else, and shows what was there at that moment.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from dashboards.limits import ROOT
from dashboards.parts import CONSOLE, GOOD
from dashboards.queries import FOLDER, committed, filled

ASSETS = Path(__file__).parent / "assets"
OUT = ROOT / "build" / "dashboards" / "preview.html"
POINTS = 240
"""In a line, at most: what a panel of this width can show."""
UIDS = ("golden-signals", "service-health", "business-metrics", "remediation", "slo")
Json = Mapping[str, Any]


class PreviewError(Exception):
    """Prometheus does not answer, or refuses a query; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One server's HTTP API. Times are UNIX seconds."""

    url: str
    timeout: float = 10.0

    def get(self, path: str, **parameters: str) -> Any:
        """`data` of an answer of /api/v1. Raises PreviewError."""
        address = f"{self.url.rstrip('/')}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        if not address.startswith(("http://", "https://")):
            raise PreviewError(f"{self.url}: not an http address")
        try:
            with urllib.request.urlopen(address, timeout=self.timeout) as answer:  # noqa: S310 - http, see above
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            said = error.read(500).decode(errors="replace")
            raise PreviewError(f"{self.url} answers {error.code} to {parameters.get('query', path)}: {said}") from error
        except (OSError, ValueError) as error:
            raise PreviewError(
                f"{self.url}: no answer to {path}: {error}; is the demo up (make demo KEEP=1)?"
            ) from error

    def scrape_seconds(self) -> float:
        """The longest scrape interval of any target; 15 s where there is none."""
        targets = self.get("targets", state="active")["activeTargets"]
        return max((_seconds(target.get("scrapeInterval", "15s")) for target in targets), default=15.0)


@dataclass(frozen=True, slots=True)
class Span:
    """What is shown: from `begin` to `end`, a point each `step` seconds; `rate` is Grafana's $__rate_interval."""

    begin: float
    end: float
    step: float
    scrape: float

    @classmethod
    def of(cls, prometheus: Prometheus, seconds: float, end: float) -> Span:
        """The last `seconds` before `end`."""
        scrape = prometheus.scrape_seconds()
        step = max(scrape, seconds / POINTS)
        return cls(end - seconds, end, step, scrape)

    @property
    def rate(self) -> str:
        """As Grafana reckons it: four scrapes at least, and a point more than a scrape."""
        return f"{max(self.step + self.scrape, 4 * self.scrape):.0f}s"

    @property
    def times(self) -> list[float]:
        """Of every point."""
        count = int((self.end - self.begin) / self.step) + 1
        return [round(self.begin + number * self.step, 3) for number in range(count)]


@dataclass(slots=True)
class Shown:
    """One panel as the page has it. `lines` and `tiles` are ready for the page's script; numbers are None where there
    are none. `top` is what the axis shows at least.
    """

    kind: str
    title: str
    says: str
    unit: str
    width: int
    empty: str
    decimals: int | None = None
    top: float = 0.0
    limits: list[dict[str, Any]] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    tiles: list[dict[str, Any]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)

    @property
    def blank(self) -> bool:
        """Whether there is nothing to show but words."""
        return not (self.lines or self.tiles or self.table)


def shown(panel: Json, prometheus: Prometheus, span: Span) -> Shown:
    """Ask what a panel asks."""
    options = panel["fieldConfig"]["defaults"]
    steps = options.get("thresholds", {}).get("steps", ())
    made = Shown(
        kind=panel["type"],
        title=panel["title"],
        says=panel["description"],
        unit=options["unit"],
        width=panel["gridPos"]["w"],
        empty=options["noValue"],
        decimals=options.get("decimals"),
        top=options.get("custom", {}).get("axisSoftMax", 0.0),
        limits=_limits(steps),
    )
    for target in panel["targets"]:
        expr = filled(target["expr"], rate_interval=span.rate)
        if panel["type"] == "timeseries":
            made.lines += _lines(prometheus, expr, target["legendFormat"], span)
        elif panel["type"] == "table":
            made.columns, made.table = _table(panel, prometheus.get("query", query=expr, time=str(span.end))["result"])
        else:
            answer = prometheus.get("query", query=expr, time=str(span.end))["result"]
            made.tiles += [_tile(panel, target["legendFormat"], each) for each in answer]
    return made


def _limits(steps: Sequence[Json]) -> list[dict[str, Any]]:
    """The threshold lines, each in the colour of its alert: of the side that is worse."""
    colours = [each["color"] for each in steps]
    below = bool(colours) and colours[-1] == GOOD
    return [
        {"value": each["value"], "colour": colours[place - 1 if below else place]}
        for place, each in enumerate(steps)
        if each.get("value") is not None
    ]


def _lines(prometheus: Prometheus, expr: str, legend: str, span: Span) -> Iterator[dict[str, Any]]:
    parameters = {"start": str(span.begin), "end": str(span.end), "step": str(span.step)}
    for series in prometheus.get("query_range", query=expr, **parameters)["result"]:
        values: list[float | None] = [None] * len(span.times)
        for at, text in series["values"]:
            place = round((float(at) - span.begin) / span.step)
            if place < len(values):
                values[place] = number(text)
        if any(value is not None for value in values):
            yield {"name": named(legend, series["metric"]), "values": values}


def number(text: str) -> float | None:
    """A sample's value; None for what is not a number that can be drawn."""
    value = float(text)
    return value if abs(value) < float("inf") else None


def named(legend: str, labels: Mapping[str, str]) -> str:
    """A series' name, as Grafana writes it."""
    if legend == "__auto":
        own = {name: value for name, value in labels.items() if name != "__name__"}
        return ", ".join(f"{name}={value}" for name, value in sorted(own.items()))
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found.group(1), ""), legend).strip()


def _tile(panel: Json, legend: str, sample: Json) -> dict[str, Any]:
    options = panel["fieldConfig"]["defaults"]
    value = number(sample["value"][1])
    name = named(legend, sample["metric"])
    words: Mapping[str, Json] = next(
        (each["options"] for each in options.get("mappings", ()) if each["type"] == "value"), {}
    )
    word = words.get(f"{value:g}") if value is not None else None
    if panel["options"].get("textMode") == "name":
        return {"name": "", "text": name, "value": value, "colour": "text"}
    if word:
        return {"name": name, "text": word["text"], "value": value, "colour": word["color"]}
    return {"name": name, "text": "", "value": value, "colour": _colour(options, value)}


def _colour(options: Json, value: float | None) -> str:
    colour = "text"
    for step in options.get("thresholds", {}).get("steps", ()):
        if step.get("value") is None or (value is not None and value >= step["value"]):
            colour = step["color"]
    return str(colour)


def _table(panel: Json, samples: Sequence[Json]) -> tuple[list[str], list[list[str]]]:
    options = next(each["options"] for each in panel["transformations"] if each["id"] == "organize")
    order = sorted(options["indexByName"], key=options["indexByName"].__getitem__)
    rows = sorted([sample["metric"].get(label, "") for label in order] for sample in samples)
    return [options["renameByName"][label] for label in order], rows


def marks(dashboard: Json, prometheus: Prometheus, span: Span) -> list[dict[str, Any]]:
    """The dashboard's annotations within the span: when each began, its words and colour."""
    found = []
    for each in dashboard["annotations"]["list"]:
        expr = filled(each["expr"], rate_interval=span.rate)
        parameters = {"start": str(span.begin), "end": str(span.end), "step": str(span.step)}
        for series in prometheus.get("query_range", query=expr, **parameters)["result"]:
            before = None
            for at, _ in series["values"]:
                if before is None or float(at) - before > 2 * span.step:
                    text = named(each["titleFormat"], series["metric"])
                    found.append({"at": float(at), "text": text, "colour": each["iconColor"], "kind": each["name"]})
                before = float(at)
    return sorted(found, key=lambda mark: (mark["at"], mark["text"]))


def page(prometheus: Prometheus, seconds: float, end: float, folder: Path = FOLDER) -> str:
    """The whole page."""
    span = Span.of(prometheus, seconds, end)
    dashboards = committed(folder)
    views = [_view(dashboards[uid], prometheus, span) for uid in UIDS]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS), autoescape=True, undefined=jinja2.StrictUndefined
    )
    charts = {panel["id"]: _chart(panel["shown"]) for view in views for row in view["rows"] for panel in row["panels"]}
    data = {"times": span.times, "charts": charts, "marks": marks(dashboards[UIDS[0]], prometheus, span)}
    return environment.get_template("preview.html").render(
        views=views,
        data=data,
        source=prometheus.url,
        console=CONSOLE,
        begin=time.strftime("%Y-%m-%d %H:%M", time.gmtime(span.begin)),
        end=time.strftime("%H:%M", time.gmtime(span.end)),
        styles=[_asset("uplot/uPlot.min.css"), _asset("preview.css")],
        scripts=[_asset("uplot/uPlot.iife.min.js"), _asset("preview.js")],
        licence=_asset("uplot/LICENSE"),
    )


def _view(dashboard: Json, prometheus: Prometheus, span: Span) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            rows.append({"title": panel["title"], "folded": panel["collapsed"], "panels": []})
        for each in panel.get("panels", ()) if panel["type"] == "row" else (panel,):
            name = f"{dashboard['uid']}-{each['id']}"
            rows[-1]["panels"].append({"id": name, "shown": shown(each, prometheus, span)})
    return {"uid": dashboard["uid"], "title": dashboard["title"], "says": dashboard["description"], "rows": rows}


def _chart(panel: Shown) -> dict[str, Any]:
    return {"unit": panel.unit, "top": panel.top, "limits": panel.limits, "lines": panel.lines}


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _seconds(text: str) -> float:
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhd])", text)
    if not parts or "".join(count + unit for count, unit in parts) != text:
        raise PreviewError(f"{text} is no duration, such as 90s, 30m, 6h")
    return sum(float(count) * units[unit] for count, unit in parts)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 2 when Prometheus does not answer."""
    parser = argparse.ArgumentParser(prog="python -m dashboards.preview", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:9090", help="a Prometheus; the demo's is the default")
    parser.add_argument("--since", default="30m", help="how far back, for example 30m")
    parser.add_argument("--out", type=Path, default=OUT, help="the HTML file")
    arguments = parser.parse_args(argv)
    try:
        made = page(Prometheus(arguments.url), _seconds(arguments.since), time.time())
    except PreviewError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(made, encoding="utf-8")
    sys.stdout.write(f"{arguments.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
