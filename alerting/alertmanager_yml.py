"""Alertmanager's configuration as text that people can read: the data of `alerting.routes` with the reasons beside it.

In: a `Severity`. Out: three files' texts: the whole configuration for the demo's inbox, the same for PagerDuty and
Slack, and the fragment for an Alertmanager that is there already. Comments are all that this adds to the data; a test
reads the texts back and compares.
"""

from __future__ import annotations

import textwrap
from typing import Any

import yaml

from alerting import routes
from alerting.routes import Data
from alerting.severity import Severity

_MADE = "Made from alert-rules/severity.yml by `prepctl severity:generate`; edit that file, not this one."


_THEN = (
    "Then `prepctl severity:check-merge YOUR_ALERTMANAGER.yml` says whether anything in it mutes or misroutes our"
    " alerts. What your root says of grouping and timing does not reach below this route: all is set here."
)
_SHORT = 90
"""Characters of a list or mapping that stands on one line."""


class _Dumper(yaml.SafeDumper):
    """Short lists and mappings without further ones inside stand on one line; nothing is an alias."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML calls it so
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 - as above
        super().increase_indent(flow, False)


def _text(dumper: _Dumper, value: str) -> yaml.Node:
    style = "|" if "\n" in value else "'" if '"' in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _list(dumper: _Dumper, value: list[Any]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=_fits(value))


def _mapping(dumper: _Dumper, value: Data) -> yaml.Node:
    flow = len(value) > 1 and _fits([*value, *value.values()])
    return dumper.represent_mapping("tag:yaml.org,2002:map", value.items(), flow_style=flow)


def _fits(values: list[Any]) -> bool:
    plain = all(isinstance(value, str | bool | int) and "\n" not in str(value) for value in values)
    return plain and sum(len(str(value)) + 2 for value in values) <= _SHORT


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _list)
_Dumper.add_representer(dict, _mapping)


def _yaml(data: Any, indent: int = 0) -> str:
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)
    return textwrap.indent(text, " " * indent)


def _comment(text: str, indent: int = 0) -> str:
    lines = textwrap.wrap(" ".join(text.split()), 116 - indent, break_on_hyphens=False)
    return "".join(f"{' ' * indent}# {line}\n" for line in lines)


def inbox_file(table: Severity) -> str:
    """alertmanager/alertmanager.yml: people are the demo's inbox."""
    head = (
        _comment(f"Who is told what, and when. {_MADE}")
        + "#\n"
        + _comment(
            "As shipped, what people would get goes to the demo's inbox, one path a receiver. TO REACH YOUR OWN"
            " PEOPLE use"
            " alertmanager.people.yml beside it: the same routes, with PagerDuty and Slack."
        )
    )
    return head + _whole(table, routes.inbox_receivers(table))


def people_file(table: Severity) -> str:
    """alertmanager/alertmanager.people.yml: people are reached by PagerDuty and Slack."""
    head = (
        _comment(f"Who is told what, and when, by PagerDuty and Slack. {_MADE}")
        + "#\n"
        + _comment(
            "Mount it as /etc/alertmanager/alertmanager.yml. Keys are read from files at each notification, so"
            " rotating one"
            " needs no reload:"
        )
    )
    return head + _key_files(table) + _whole(table, routes.people_receivers(table))


def fragment_file(table: Severity) -> str:
    """alertmanager/fragment.yml: what to copy into a configuration that is there already."""
    head = _comment(f"For an Alertmanager that you have already: four pieces to copy into its file. {_MADE}") + "#\n"
    head += "".join(
        _comment(line)
        for line in (
            "1. `routes`: as the FIRST entry of your `route.routes`, so that no route of yours takes our alerts.",
            "2. `inhibit_rules`, 3. `time_intervals`, 4. `receivers`: add to your lists of the same name.",
            _THEN,
        )
    )
    parts = [
        head + _key_files(table),
        "routes:\n",
        _comment("Only what carries both labels is ours; all of our rules and the remediator's own alerts do.", 2),
        _yaml([{**routes.fragment_route(table), "routes": []}], 2).replace("routes: []\n", "routes:\n"),
        _children(table, 6),
        "\n",
        _inhibition(table),
        "\n",
        _yaml({"time_intervals": routes.time_intervals(table)}),
        "\n",
        _yaml({"receivers": [*routes.machine_receivers(table), *routes.people_receivers(table)]}),
    ]
    return "".join(parts)


def _key_files(table: Severity) -> str:
    services = table.receivers.pagerduty
    lines = [
        *(f"{row.key_file}: PagerDuty, Events API v2 key of the service `{name}`" for name, row in services.items()),
        *(f"{row.url_file}: Slack, incoming webhook of {row.channel}" for row in table.receivers.slack.values()),
    ]
    return "".join(f"#   {line}\n" for line in lines) + _comment(
        "alertmanager/pagerduty.tf.json makes these services and their escalation. The watchdog's address is that of"
        " your dead man's switch, which should run on another machine."
    )


def _whole(table: Severity, people: list[Data]) -> str:
    parts = [
        _yaml({"global": {"resolve_timeout": routes.RESOLVE_TIMEOUT}}),
        "\nroute:\n",
        _comment("Reached only where no child matches; the last child makes sure that none is left over.", 2),
        _yaml(routes.root(table), 2),
        "  routes:\n",
        _children(table, 4),
        "\n",
        _inhibition(table),
        "\n",
        _yaml({"time_intervals": routes.time_intervals(table)}),
        "\nreceivers:\n",
        _yaml(routes.machine_receivers(table), 2),
        "\n",
        _comment("people", 2),
        _yaml(people, 2),
    ]
    return "".join(parts)


def _children(table: Severity, indent: int) -> str:
    reasons = {
        0: "The remediator first, and beside the people: `continue` lets the alert go on to its level's own route. One"
        " group an alert, so that a slow delivery of one delays no other; nothing is ever cut off.",
        1: "Asked for each 15 s, since with an interval as long as the repetition every second message is left out.",
        2: "People, by level. One message a symptom and target: two alerts of one fault page once.",
    }
    children = routes.child_routes(table)
    reasons[len(children) - 1] = (
        "Without this route an alert with a runbook and an unlisted severity would reach the remediator and no person:"
        " the root is not asked again once a child with `continue` has matched."
    )
    for index, child in enumerate(children):
        if any("hold=" in matcher for matcher in child.get("matchers", ())):
            reasons[index] = "These wait for the remediator: it may mend the fault before anybody is told."
    return "".join(
        (_comment(reasons[index], indent) if index in reasons else "") + _yaml([child], indent)
        for index, child in enumerate(children)
    )


def _inhibition(table: Severity) -> str:
    text = _yaml({"inhibit_rules": routes.inhibit_rules(table)})
    # The linter reads this mark at the end of a line only.
    first, rest = text.split("\n", 2)[:2], text.split("\n", 2)[2]
    return (
        _comment(
            "One symptom at one target: its P1 form mutes its P2 form. Each side must carry the labels that are"
            " compared, because a label that is missing on both sides counts as equal and would mute strangers. What"
            " the remediator itself has to say (it carries `episode`) mutes nothing and is never muted. `severity`"
            " tells the two sides apart, so what they have in common does no harm."
        )
        + f"{first[0]}\n{first[1]}  # amlint: disable=inhibit-same-match\n{rest}"
    )
