"""The severity table -> Alertmanager's routes, inhibition, time intervals and receivers, as plain data.

In: a `Severity`. Out: mappings as Alertmanager's configuration has them (0.25 and newer). Pure. What must hold of every
result: an alert with a runbook reaches the remediator *and* people, the remediator's route stops nobody, the last route
catches what no other took, and an inhibition compares only labels that both sides carry.
"""

from __future__ import annotations

from typing import Any

from alerting.severity import Level, Severity, Timing, Told

Data = dict[str, Any]

BY_TARGET = ["environment", "service", "symptom"]
"""One message a symptom and target: two alerts of one fault page once."""
BY_NAME = ["alertname", "environment", "service"]
"""For the catch-all, whose alerts need not have a symptom."""
RESOLVE_TIMEOUT = "5m"


def _timing(row: Timing) -> Data:
    return {
        "group_wait": row.group_wait,
        "group_interval": row.group_interval,
        "repeat_interval": row.repeat_interval,
    }


def remediator_route(table: Severity) -> Data:
    """First, and beside the people: `continue`. One group an alert, so that none waits for another."""
    return {
        "receiver": table.remediator.receiver,
        "matchers": ['runbook=~".+"'],
        "continue": True,
        "group_by": ["..."],
        **_timing(table.remediator),
    }


def watchdog_route(table: Severity) -> Data:
    """The Watchdog alone: another alert of that severity is a mistake that people must see."""
    row = table.watchdog
    return {
        "receiver": row.receiver,
        "matchers": ['alertname="Watchdog"', f'severity="{row.severity}"'],
        "group_by": ["alertname", "environment"],
        **_timing(row),
    }


def hold_route(name: str, level: Level) -> Data:
    """Before the level's own route: what says `hold` and has a runbook waits. Nothing else does."""
    return {
        "receiver": level.receiver,
        "matchers": [f'severity="{name}"', f'hold="{level.hold}"', 'runbook=~".+"'],
        "group_by": BY_TARGET,
        **_timing(level),
        "group_wait": level.hold,
    }


def level_route(name: str, level: Level) -> Data:
    """People of one level."""
    route = {
        "receiver": level.receiver,
        "matchers": [f'severity="{name}"'],
        "group_by": BY_TARGET,
        **_timing(level),
    }
    return route | ({"active_time_intervals": [level.hours]} if level.hours else {})


def child_routes(table: Severity) -> list[Data]:
    """All routes below the root, in order."""
    routes = [remediator_route(table), watchdog_route(table)]
    for name, level in table.levels.items():
        if level.hold:
            routes.append(hold_route(name, level))
        routes.append(level_route(name, level))
    # The root is not asked again once a child with `continue` has matched: without this route an alert with a runbook
    # and an unlisted severity would reach the remediator and no person.
    return [*routes, {"receiver": table.catch_all.receiver}]


def root(table: Severity) -> Data:
    """The root, without its children; reached only where no child matches."""
    return {"receiver": table.catch_all.receiver, "group_by": BY_NAME, **_timing(table.catch_all)}


def fragment_route(table: Severity) -> Data:
    """The whole tree below one route that takes our alerts only."""
    top = root(table)
    head = {"receiver": top.pop("receiver"), "matchers": list(table.fragment.matchers)}
    return {**head, **top, "routes": child_routes(table)}


def inhibit_rules(_: Severity) -> list[Data]:
    """One symptom at one target: its P1 form mutes its P2 form.

    A label that is missing on both sides counts as equal, so each side must carry the labels compared. `episode=""`:
    what the remediator itself has to say mutes nothing and is never muted.
    """
    both = ['symptom=~".+"', 'service=~".+"', 'episode=""']
    return [
        {
            "source_matchers": ['severity="P1"', *both],
            "target_matchers": ['severity="P2"', *both],
            "equal": BY_TARGET,
        }
    ]


def time_intervals(table: Severity) -> list[Data]:
    """The windows, each by its name."""
    return [
        {
            "name": name,
            "time_intervals": [
                {
                    "weekdays": [row.weekdays],
                    "times": [{"start_time": row.times[0], "end_time": row.times[1]}],
                    "location": row.location,
                }
            ],
        }
        for name, row in table.hours.items()
    ]


# -- receivers ----------------------------------------------------------------------------------------


def _hook(url: str, token_file: str | None, *, send_resolved: bool) -> Data:
    hook: Data = {"url": url, "send_resolved": send_resolved, "max_alerts": 0}
    if token_file is not None:
        hook["http_config"] = {"authorization": {"type": "Bearer", "credentials_file": token_file}}
    return hook


def machine_receivers(table: Severity) -> list[Data]:
    """The remediator and the switch: the same whoever the people are."""
    remediator, watchdog = table.receivers.remediator, table.receivers.watchdog
    return [
        {
            "name": table.remediator.receiver,
            "webhook_configs": [_hook(remediator.url, remediator.token_file, send_resolved=True)],
        },
        {
            "name": table.watchdog.receiver,
            # A resolved Watchdog says that no Prometheus sends it any more: the switch's log should have it.
            "webhook_configs": [_hook(watchdog.url, watchdog.token_file, send_resolved=True)],
        },
    ]


def people(table: Severity) -> list[tuple[str, Told]]:
    """Name of the level ("" for the catch-all) and who is told."""
    return [*table.levels.items(), ("", table.catch_all)]


def inbox_receivers(table: Severity) -> list[Data]:
    """People of the demo: everything goes to its inbox."""
    return [
        {
            "name": told.receiver,
            "webhook_configs": [{"url": f"{table.receivers.inbox}/{told.receiver}", "send_resolved": True}],
        }
        for _, told in people(table)
    ]


def people_receivers(table: Severity) -> list[Data]:
    """People by PagerDuty and Slack."""
    return [_person(table, name, told) for name, told in people(table)]


def _person(table: Severity, name: str, told: Told) -> Data:
    receiver: Data = {"name": told.receiver}
    if told.pagerduty is not None:
        service = table.receivers.pagerduty[told.pagerduty]
        receiver["pagerduty_configs"] = [
            {
                "routing_key_file": service.key_file,
                "severity": service.severity,
                "description": _TITLE.format(name=name or "{{ .CommonLabels.severity }}"),
                "details": {"firing": _LINES, "runbook_url": "{{ .CommonAnnotations.runbook_url }}"},
                "send_resolved": True,
            }
        ]
    if told.slack is not None:
        channel = table.receivers.slack[told.slack]
        receiver["slack_configs"] = [
            {
                "api_url_file": channel.url_file,
                "channel": channel.channel,
                "title": _TITLE.format(name=name or "{{ .CommonLabels.severity }}"),
                "text": _LINES + _DRAFTS[told.status_page],
                "send_resolved": channel.send_resolved,
            }
        ]
    return receiver


_TITLE = (
    "[{name}] {{{{ .Status | toUpper }}}}: "
    "{{{{ .GroupLabels.service }}}} {{{{ .GroupLabels.symptom }}}}{{{{ .GroupLabels.alertname }}}}"
)
_LINES = (
    "{{ range .Alerts }}{{ .Labels.alertname }} ({{ .Status }}): {{ .Annotations.summary }}"
    " {{ .Annotations.description }} Answer: {{ .Annotations.response_time }}. {{ .Annotations.runbook_url }}\n{{ end"
    " }}"
)
_DRAFT = (
    "Draft for the status page{when}: {{{{ if eq .Status `resolved` }}}}The problem is solved; we are watching."
    "{{{{ else }}}}We are looking into a problem since {{{{ (index .Alerts 0).StartsAt.UTC.Format `15:04` }}}} UTC. "
    "The next word comes within 30 minutes.{{{{ end }}}}"
)
_DRAFTS = {
    "always": _DRAFT.format(when=""),
    "customers": _DRAFT.format(when=" (publish it if customers see the problem)"),
    "never": "",
}


def config(table: Severity, receivers: list[Data]) -> Data:
    """The whole configuration with these receivers of people."""
    return {
        "global": {"resolve_timeout": RESOLVE_TIMEOUT},
        "route": {**root(table), "routes": child_routes(table)},
        "inhibit_rules": inhibit_rules(table),
        "time_intervals": time_intervals(table),
        "receivers": [*machine_receivers(table), *receivers],
    }
