"""docs/severity.md from the severity table.

In: a `Severity`. Out: one Markdown page. Pure.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from alerting.severity import Severity, Timing

_STATUS_PAGE = {"always": "draft", "customers": "draft, if customers see it", "never": "-"}

_HEAD = """\
# Severity: who is told, how fast, how

Made from `alert-rules/severity.yml` by `prepctl severity:generate`; a test holds them equal. Times to answer and
examples are the handbook's own. The same file makes `alertmanager/alertmanager.yml` (people are the demo's inbox),
`alertmanager/alertmanager.people.yml` (PagerDuty and Slack), `alertmanager/fragment.yml` (for an Alertmanager that you
have already), `alertmanager/pagerduty.tf.json` (escalation) and the `response_time` of every rule.
"""


def render(table: Severity) -> str:
    """The page."""
    return "\n".join([*_lines(table)]) + "\n"


def _lines(table: Severity) -> Iterator[str]:
    yield _HEAD
    yield from _levels(table)
    yield from _timing(table)
    yield from _rules_of_routing(table)
    yield from _escalation(table)
    yield from _FRAGMENT.splitlines()


def _levels(table: Severity) -> Iterator[str]:
    yield "| Level | Respond | Example | Who is told, and how | Status page |"
    yield "|---|---|---|---|---|"
    for name, level in table.levels.items():
        told = f"{level.told} Only in {_hours(table, level.hours)}." if level.hours else level.told
        what = (
            f"| {name} {level.name} | {level.respond} | {level.example} | {told} | {_STATUS_PAGE[level.status_page]} |"
        )
        yield what
    yield ""


def _hours(table: Severity, name: str) -> str:
    row = table.hours[name]
    first, _, last = row.weekdays.partition(":")
    return f"{name}: {first.title()} to {(last or first).title()}, {row.times[0]} to {row.times[1]}, {row.location}"


def _timing(table: Severity) -> Iterator[str]:
    yield "## Routes"
    yield ""
    yield "In this order. An alert goes to the first that matches, and from the remediator's on to people."
    yield ""
    yield "| Alerts | Receiver | First after | Then at most each | Again after |"
    yield "|---|---|---|---|---|"
    yield _route("with a runbook, beside the people", table.remediator)
    yield _route("the Watchdog", table.watchdog)
    for name, level in table.levels.items():
        if level.hold:
            yield _route(f"{name} with a runbook and `hold: {level.hold}`", level, level.hold)
        yield _route(name, level)
    yield _route("everything else, an unknown severity for instance", table.catch_all)
    yield ""


def _route(what: str, row: Timing, wait: str | None = None) -> str:
    return f"| {what} | `{row.receiver}` | {wait or row.group_wait} | {row.group_interval} | {row.repeat_interval} |"


def _rules_of_routing(table: Severity) -> Iterator[str]:
    holds = ", ".join(f"{name} (`hold: {level.hold}`)" for name, level in table.levels.items() if level.hold)
    yield from _filled(
        "- ",
        "Whatever its labels, an alert reaches a receiver of people: the last route catches what no other took.",
    )
    yield from _filled(
        "- ",
        "Alerts of one environment, service and symptom are one message. The P1 form of a symptom mutes its P2 form"
        " at the"
        " same target, and nothing else is muted. What the remediator itself has to say is never muted.",
    )
    yield from _filled(
        "- ",
        f"A level may let people wait for the remediator: {holds}. The label counts only beside `runbook`, and only"
        f" with"
        " this very value; P0 and P1 never wait. The wait is the same when the remediator is away.",
    )
    for name, level in table.levels.items():
        if level.hours:
            yield from _filled(
                "- ",
                f"{name} outside of its hours is kept, and leaves at most {level.group_interval} and a few seconds"
                f" after they"
                " open, if it still fires. One that ends before they open is told to nobody.",
            )
    yield ""


def _filled(mark: str, text: str) -> list[str]:
    lines = textwrap.wrap(text, 118 - len(mark), break_on_hyphens=False)
    return [(mark if number == 0 else " " * len(mark)) + line for number, line in enumerate(lines)]


def _escalation(table: Severity) -> Iterator[str]:
    plan = table.escalation
    words = ", ".join(rung.replace("_", " ") for rung in plan.rungs)
    executives = " and ".join(plan.executives).upper()
    yield from ("## When nobody acknowledges", "")
    yield from _filled(
        "",
        f"That is PagerDuty's business: {words}, each {plan.acknowledge} after the one before, and from the top again"
        f" {plan.loops} times. An outage (P0) begins with {' and '.join(plan.outage_begins_with)} at once; after the"
        f" ladder"
        f" {executives} are paged, only where `page_executives` is set to true (it is false)."
        " `alertmanager/pagerduty.tf.json` says so for Terraform:",
    )
    key = table.receivers.pagerduty["outage"].key_file.rsplit("/", 1)[-1]
    yield from (
        "",
        "```bash",
        "cd alertmanager && terraform init && terraform apply",
        f"terraform output -raw outage_key   # into {key}",
        "```",
        "",
    )
    yield from _filled(
        "",
        "The file was checked for its structure and its references only. It was never applied to a real PagerDuty: read"
        " what `terraform plan` says before you do.",
    )
    yield ""


_FRAGMENT = """\
## You have an Alertmanager already

`alertmanager/fragment.yml` (or `prepctl severity:fragment`) has four pieces to copy into your file. Then:

```bash
prepctl severity:check-merge /etc/alertmanager/alertmanager.yml
```

It sends every label set that the rules can make, and some that nobody foresaw, through your routes and through ours,
and tells each difference: a route of yours that takes our alerts first, a missing `continue`, a receiver that is not
there or reaches nobody, other grouping or timing, hours that are missing or say something else, and inhibitions of
yours that would mute our alerts, by a label that both sides lack for instance. Exit code 1 when an alert of ours would
not arrive as here. It reads files only. What Alertmanager itself refuses, `amtool check-config` tells."""
