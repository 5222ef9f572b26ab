"""What every panel has, so that no panel can lack it: title, description, unit, words for "no data", thresholds, links.

In: plain words and PromQL in which every selector is written with braces. Out: builders of the Foundation SDK. A
selector of a scraped series gets `job` and `instance` of the dashboard's variables, one of a recorded series `job`
alone: recording takes `instance` away. Objectives (`slo:`) and `ALERTS` have neither.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import prometheus as prometheus_model

from dashboards.limits import Limit

CONSOLE = "http://localhost:11471"
"""The remediator: console and alert pages, where the alerts' `runbook_url` leads too."""
SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
COLOURS = {"P0": "red", "P1": "red", "P2": "orange", "P3": "yellow", "P4": "blue"}
GOOD, BAD, NEUTRAL = "green", "red", "text"
TAG = "prep-ops"
_SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*)\}")

P = TypeVar("P", stat.Panel, timeseries.Panel, table.Panel)
Panel = stat.Panel | timeseries.Panel | table.Panel
Words = Mapping[str, tuple[str, str]]
"""Text and colour of each value."""
UP_DOWN: Words = {"1": ("up", GOOD), "0": ("DOWN", BAD)}
YES_NO: Words = {"1": ("yes", GOOD), "0": ("NO", BAD)}


def scoped(expr: str) -> str:
    """The expression with the dashboard's variables in every selector, on one line."""

    def fill(found: re.Match[str]) -> str:
        name, own = found.group(1), found.group(2).strip()
        if name == "ALERTS" or name.startswith("slo:"):
            return found.group(0)
        matchers = ['job=~"$job"'] if ":" in name else ['job=~"$job"', 'instance=~"$instance"']
        return f"{name}{{{', '.join([*matchers, *([own] if own else [])])}}}"

    return _SELECTOR.sub(fill, " ".join(expr.split()))


@dataclass(frozen=True, slots=True)
class Series:
    """One query: PromQL, and what its series are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class About:
    """What every panel must say.

    empty    shown instead of a number when Prometheus has no sample: why that is, in words
    unit     one of Grafana's; what it counts has `short`
    limits   the alerts that tell of it; their numbers are the thresholds
    """

    title: str
    says: str
    empty: str
    unit: str = "short"
    limits: Sequence[Limit] = field(default=())


def spoken(value: float, unit: str) -> str:
    """A number with its unit, as a person says it: 10 %, 256 MiB, 5 min."""
    if unit == "percentunit":
        return f"{value * 100:g} %"
    steps = {
        "bytes": ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "bytes")),
        "s": ((86400, "days"), (3600, "h"), (60, "min"), (1, "s")),
    }
    for factor, name in steps.get(unit, ()):
        if value >= factor and value % factor == 0:
            return f"{value / factor:g} {name}"
    return f"{value:g} s" if unit == "s" else f"{value:g}"


def _description(about: About) -> str:
    told = [
        f"{each.alert} ({each.severity}) tells when it is {'below' if each.below else 'above'} {spoken(each.value, about.unit)}."
        for each in about.limits
    ]
    return " ".join([about.says, *told])


def _thresholds(limits: Sequence[Limit], otherwise: str = GOOD) -> dashboard.ThresholdsConfig:
    """Green up to the first alert, then each alert's colour. Limits below count downwards."""
    ordered = sorted(limits, key=lambda each: each.value)
    if any(each.below for each in limits) and not all(each.below for each in limits):
        raise ValueError("a panel has limits above, or below, not both")
    if ordered and ordered[0].below:
        colours = [*(COLOURS[each.severity] for each in ordered), GOOD]
    else:
        colours = [otherwise, *(COLOURS[each.severity] for each in ordered)]
    values = [None, *(each.value for each in ordered)]
    steps = [model.Threshold(value=value, color=colour) for value, colour in zip(values, colours, strict=True)]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)


def _query(series: Series, *, instant: bool, ref: str, as_table: bool = False) -> prometheus.Dataquery:
    made = prometheus.Dataquery().expr(scoped(series.expr)).legend_format(series.legend or "__auto").ref_id(ref)
    made = made.datasource(SOURCE).editor_mode(prometheus_model.QueryEditorMode.CODE)
    if as_table:
        made = made.format(prometheus_model.PromQueryFormat.TABLE)
    return made.instant() if instant else made.range()


def _mapping(words: Words) -> model.ValueMap:
    return model.ValueMap(
        {
            value: model.ValueMappingResult(text=text, color=colour, index=index)
            for index, (value, (text, colour)) in enumerate(words.items())
        }
    )


def _alert_links(limits: Sequence[Limit]) -> list[dashboard.DashboardLink]:
    return [
        dashboard.DashboardLink(f"What to do: {name}").url(f"{CONSOLE}/alerts/{name}").target_blank(True)
        for name in dict.fromkeys(each.alert for each in limits)
    ]


def _with(panel: P, about: About) -> P:
    panel.title(about.title).description(_description(about)).datasource(SOURCE).unit(about.unit)
    panel.no_value(about.empty).links(list(_alert_links(about.limits)))
    return panel


def number(
    about: About, *series: Series, words: Words | None = None, span: int = 4, decimals: int | None = None
) -> stat.Panel:
    """One number now, coloured by its alerts; with `words` each value is a word, with a colour of its own."""
    panel = _with(stat.Panel(), about).height(4).span(span)
    for ref, each in zip("ABCDEF", series, strict=False):
        panel.with_target(_query(each, instant=True, ref=ref))
    colour = GOOD if about.limits else NEUTRAL
    panel.thresholds(_thresholds(about.limits, colour)).color_scheme(_by_threshold())
    panel.graph_mode(common_model.BigValueGraphMode.NONE).color_mode(
        common_model.BigValueColorMode.BACKGROUND if about.limits or words else common_model.BigValueColorMode.NONE
    )
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    if decimals is not None:
        panel.decimals(decimals)
    if words:
        panel.mappings([_mapping(words)])
    return panel


def chosen(about: About, series: Series, span: int = 4) -> stat.Panel:
    """Which of a set of states holds: the name of the series that is there."""
    return number(about, series, span=span).text_mode(common_model.BigValueTextMode.NAME)


def trend(about: About, *series: Series, span: int = 8, stacked: bool = False, share: bool = False) -> timeseries.Panel:
    """Lines over time, each alert's number a dashed line. `share`: the axis holds 0 to 1 at least, so that noise is small."""
    panel = _with(timeseries.Panel(), about).height(8).span(span)
    for ref, each in zip("ABCDEF", series, strict=False):
        panel.with_target(_query(each, instant=False, ref=ref))
    panel.thresholds(_thresholds(about.limits)).color_scheme(
        dashboard.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC_BY_NAME)
    )
    style = common_model.GraphThresholdsStyleMode.DASHED if about.limits else common_model.GraphThresholdsStyleMode.OFF
    panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(style))
    panel.line_width(2).fill_opacity(10).show_points(common_model.VisibilityMode.NEVER).axis_soft_min(0)
    if share:
        panel.axis_soft_max(1)
    if stacked:
        panel.stacking(common.StackingConfig().mode(common_model.StackingMode.NORMAL))
    legend = common.VizLegendOptions().display_mode(common_model.LegendDisplayMode.TABLE).show_legend(True)
    panel.legend(legend.placement(common_model.LegendPlacement.BOTTOM).calcs(["lastNotNull", "max"]))
    panel.tooltip(common.VizTooltipOptions().mode(common_model.TooltipDisplayMode.MULTI))
    return panel


def alerts(which: str, empty: str, span: int = 16) -> table.Panel:
    """The alerts that fire, each a link to its page. `which` are further matchers."""
    about = About(
        "What is wrong now",
        "Every alert that fires, the gravest first: P0 and P1 page at once. Click a name for its page: what it means, what to "
        "look at, what to do first. The console shows what the remediator does about it.",
        empty,
    )
    matchers = ", ".join(['alertstate="firing"', *([which] if which else [])])
    panel = _with(table.Panel(), about).height(8).span(span)
    labels = "severity, alertname, service, component, runbook, symptom"
    panel.with_target(_query(Series(f"sum by ({labels}) (ALERTS{{{matchers}}})"), instant=True, ref="A", as_table=True))
    panel.sort_by([common.TableSortByFieldState().display_name("Level").desc(False)])
    order = {name: place for place, name in enumerate(labels.split(", "))}
    names = {
        "severity": "Level",
        "alertname": "Alert",
        "service": "Service",
        "component": "Part",
        "runbook": "Runbook",
        "symptom": "Symptom",
    }
    panel.with_transformation(
        model.DataTransformerConfig(
            "organize",
            options={"excludeByName": {"Time": True, "Value": True}, "indexByName": order, "renameByName": names},
        )
    )
    page = {"title": "What to do", "url": f"{CONSOLE}/alerts/${{__value.text}}", "targetBlank": True}
    panel.override_by_name("Alert", [model.DynamicConfigValue("links", [page])])
    levels = {level: (level, colour) for level, colour in COLOURS.items()}
    panel.override_by_name(
        "Level",
        [
            model.DynamicConfigValue("mappings", [_mapping(levels)]),
            model.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}),
        ],
    )
    return panel


def _by_threshold() -> dashboard.FieldColor:
    return dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of panels; all but the first three of a dashboard are collapsed."""

    title: str
    panels: Sequence[Panel]
    collapsed: bool = False


def board(uid: str, title: str, says: str, rows: Sequence[Row], *, since: str = "now-6h") -> dashboard.Dashboard:
    """A dashboard with what all have: variables, links, annotations, times, rows."""
    made = dashboard.Dashboard(title).uid(uid).description(says).tags([TAG]).readonly().timezone("browser")
    made.tooltip(model.DashboardCursorSync.CROSSHAIR).refresh("30s").time(since, "now")
    for variable in _variables():
        made.with_variable(variable)
    made.link(
        dashboard.DashboardLink("Dashboards").type(model.DashboardLinkType.DASHBOARDS).tags([TAG]).as_dropdown(True)
        .include_vars(False).keep_time(True)
    )  # fmt: skip
    made.link(_link("Console", f"{CONSOLE}/console", "What the remediator does, waits for and refuses"))
    made.link(
        _link("Alert pages", f"{CONSOLE}/alerts/README", "A page for each alert: meaning, first look, first step")
    )
    made.annotations(_annotations())
    for row in rows:
        head = dashboard.Row(row.title)
        if row.collapsed:
            for panel in row.panels:
                head.with_panel(panel)
            made.with_row(head)
        else:
            made.with_row(head)
            for panel in row.panels:
                made.with_panel(panel)
    return made


def _link(title: str, url: str, tooltip: str) -> dashboard.DashboardLink:
    made = dashboard.DashboardLink(title).type(model.DashboardLinkType.LINK).url(url).tooltip(tooltip)
    return made.icon("external link").target_blank(True)


def _variables() -> list[dashboard.DatasourceVariable | dashboard.QueryVariable]:
    source = dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    queries = {
        "job": "label_values(up, job)",
        "instance": 'label_values(up{job=~"$job"}, instance)',
        "service": 'label_values({service!=""}, service)',
    }
    return [source, *(_choice(name, query) for name, query in queries.items())]


def _choice(name: str, query: str) -> dashboard.QueryVariable:
    every = model.VariableOption(selected=True, text="All", value="$__all")
    made = dashboard.QueryVariable(name).label(name.title()).query(query).datasource(SOURCE).current(every)
    made.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(model.VariableSort.ALPHABETICAL_ASC)
    return made.multi(True).include_all(True).all_value(".+")


def _annotations() -> list[Builder[model.AnnotationQuery]]:
    attempts = "sum by (action, result) (increase(prep_remediator_attempts_total{}[1m])) > 0"
    started = "changes(prep_container_start_timestamp_seconds{}[1m]) > 0"
    firing = 'ALERTS{alertstate="firing", severity=~"P[0-2]"}'
    return [
        _annotation("Alerts", firing, "red", "{{severity}} {{alertname}}", "{{service}}"),
        _annotation("Remediations", attempts, "purple", "{{action}}: {{result}}", "by the remediator"),
        _annotation(
            "Deployments and restarts", started, "blue", "{{compose_service}} started", "a container was started"
        ),
    ]


class _Annotation(dashboard.AnnotationQuery):
    """With what Grafana's Prometheus reads and the SDK does not know: the words on the mark."""

    def __init__(self, words: Mapping[str, str]) -> None:
        super().__init__()
        self._internal = _AnnotationModel(words)


class _AnnotationModel(model.AnnotationQuery):
    def __init__(self, words: Mapping[str, str]) -> None:
        super().__init__()
        self._words = words

    def to_json(self) -> dict[str, object]:
        return {**super().to_json(), **self._words}


def _annotation(name: str, expr: str, colour: str, title: str, text: str) -> dashboard.AnnotationQuery:
    words = {"titleFormat": title, "textFormat": text, "step": "60s", "useValueForTime": "false"}
    made = _Annotation(words).name(name).datasource(SOURCE).enable(True).hide(False).icon_color(colour)
    return made.expr(scoped(expr))
