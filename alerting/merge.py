"""Would our alerts arrive in somebody else's Alertmanager as they do in ours?

In: the merged configuration as data, the severity table, and the label sets that our rules make. Out: findings, each
with what is wrong and what to do. Pure. The judge is our own whole configuration: every label set goes through both
trees, and each difference is told with the route that makes it. What it cannot judge it says, as an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from alerting import routes
from alerting.matching import Inhibition, Labels, Route, Unreadable, inhibitions, tree
from alerting.severity import Severity, seconds

_INTEGRATIONS = "_configs"
_SHOWN = 3
"""Alert names that a finding lists before it says how many more."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. An `error` means that an alert of ours does not arrive as it must."""

    level: Literal["error", "warning"]
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.level}: {self.what} ({self.remedy})"


def label_sets(rules: Iterable[Mapping[str, Any]], table: Severity, environment: str) -> list[dict[str, str]]:
    """Every label set to be tried: those of the rules, the remediator's own, and some that nobody foresaw."""
    common = {"environment": environment}
    found = [{"alertname": rule["alert"], **common, **rule.get("labels", {})} for rule in rules if "alert" in rule]
    own = {"component": "remediator", "service": "unforeseen", "episode": "0123456789abcdef", **common}
    for level in ("P1", "P2"):
        found.append({"alertname": f"Remediation{level}", "symptom": "remediation-failed", "severity": level, **own})
    holds = sorted({level.hold for level in table.levels.values() if level.hold})
    base = {"component": "unforeseen", "symptom": "unforeseen", "service": "unforeseen", **common}
    for severity, runbook, hold in product([*table.levels, "unlisted", ""], ("", "unforeseen"), ("", *holds)):
        labels = {**base, "severity": severity, "runbook": runbook, "hold": hold}
        name = f"Unforeseen {severity or 'no severity'}{' runbook' * bool(runbook)}{f' hold {hold}' * bool(hold)}"
        found.append({"alertname": name, **{key: value for key, value in labels.items() if value}})
    return found


def check(data: Any, table: Severity, alerts: Sequence[Labels]) -> list[Finding]:
    """All findings, errors first. `data`: the merged configuration as YAML gives it."""
    if not isinstance(data, Mapping):
        return [Finding("error", "the file is no configuration of Alertmanager", "give the whole merged file")]
    try:
        theirs, mutes = tree(data.get("route")), inhibitions(data.get("inhibit_rules"))
        found = [
            *_receivers(data, table, theirs),
            *_intervals(data, table),
            *_routing(theirs, _ours(table), alerts),
            *_inhibition(mutes, inhibitions(routes.inhibit_rules(table)), alerts),
        ]
    except Unreadable as error:
        return [Finding("error", f"cannot be judged: {error}", "mend it, or look at these routes by hand")]
    return sorted(found, key=lambda finding: finding.level)


def _ours(table: Severity) -> Route:
    return tree({**routes.root(table), "routes": routes.child_routes(table)})


# -- routes -------------------------------------------------------------------------------------------


def _routing(theirs: Route, ours: Route, alerts: Sequence[Labels]) -> Iterator[Finding]:
    """A finding for each kind of difference, with the alerts that have it."""
    kinds: dict[tuple[Literal["error", "warning"], str, str], list[str]] = {}
    for labels in alerts:
        taken = theirs.take(labels)
        for wanted in ours.take(labels):
            for level, what, remedy in _differences(theirs, taken, wanted, labels):
                kinds.setdefault((level, what, remedy), []).append(labels["alertname"])
    for (level, what, remedy), names in kinds.items():
        yield Finding(level, f"{_names(names)}: {what}", remedy)


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _differences(
    theirs: Route, taken: Sequence[Route], wanted: Route, labels: Labels
) -> Iterator[tuple[Literal["error", "warning"], str, str]]:
    there = [route for route in taken if route.receiver == wanted.receiver]
    if not there:
        yield "error", f"not sent to `{wanted.receiver}`, {_why(theirs, taken, wanted, labels)}", _REMEDY
        return
    route = there[0]
    for key, value in wanted.timing.items():
        if not _same_time(route.timing[key], value):
            what = f"{key} at `{wanted.receiver}` is {route.timing[key]}, ours is {value}"
            yield "error", what, f"set it at {route.path}"
    if route.group_by != wanted.group_by:
        what = f"grouped at `{wanted.receiver}` by {sorted(route.group_by)}, ours by {sorted(wanted.group_by)}"
        yield "error", what, f"set group_by at {route.path}"
    if route.mute:
        what = f"muted at `{wanted.receiver}` during {', '.join(route.mute)}"
        yield "error", what, f"remove mute_time_intervals at {route.path}"
    if route.active != wanted.active:
        what = f"told at `{wanted.receiver}` {_when(route.active)}, with us {_when(wanted.active)}"
        yield "error", what, f"set active_time_intervals at {route.path}"


_REMEDY = "make the fragment's route the first of route.routes"


def _why(theirs: Route, taken: Sequence[Route], wanted: Route, labels: Labels) -> str:
    """The route that took the alert instead."""
    if any(route.receiver == wanted.receiver for route in theirs.walk()):
        # The tree has the receiver: what came before it, without `continue`, took the alert away.
        blocker = _blocker(theirs, wanted.receiver, labels)
        if blocker is not None:
            return f"because {blocker} takes it before and has no `continue: true`"
        return f"because no route to it matches; it ends at {taken[0]}"
    return f"because no route leads there; it ends at {taken[0]}"


def _blocker(route: Route, receiver: str, labels: Labels) -> Route | None:
    """The first sibling that takes the alert, before one that would have led to `receiver`."""
    if not all(matcher.matches(labels) for matcher in route.matchers):
        return None
    first: Route | None = None
    for child in route.children:
        taken = child.take(labels)
        if first is not None and any(each.receiver == receiver for each in taken):
            return first
        if taken and not child.goes_on and first is None:
            if (inside := _blocker(child, receiver, labels)) is not None:
                return inside
            first = child
    return None


def _same_time(one: str, other: str) -> bool:
    try:
        return seconds(one) == seconds(other)
    except ValueError:
        return False


def _when(names: Sequence[str]) -> str:
    return f"only during {', '.join(names)}" if names else "always"


# -- receivers and hours ------------------------------------------------------------------------------


def _receivers(data: Mapping[str, Any], table: Severity, theirs: Route) -> Iterator[Finding]:
    there = {str(item.get("name")): item for item in data.get("receivers") or () if isinstance(item, Mapping)}
    for name in sorted({route.receiver for route in theirs.walk()} - set(there)):
        yield Finding("error", f"receiver `{name}` is not there", "add it from the fragment")
    ours = {item["name"]: item for item in [*routes.machine_receivers(table), *routes.people_receivers(table)]}
    for name in ours:
        item = there.get(name)
        if item is None:
            continue
        if not any(key.endswith(_INTEGRATIONS) and value for key, value in item.items()):
            yield Finding(
                "error", f"receiver `{name}` tells nobody", "give it the fragment's configuration, or your own"
            )
    machine = there.get(table.remediator.receiver)
    if machine is not None:
        yield from _remediator(table.remediator.receiver, machine)


def _remediator(name: str, item: Mapping[str, Any]) -> Iterator[Finding]:
    hooks = [hook for hook in item.get("webhook_configs") or () if isinstance(hook, Mapping)]
    if not hooks:
        yield Finding("error", f"receiver `{name}` has no webhook", "give it the fragment's webhook_configs")
    for hook in hooks:
        if hook.get("max_alerts"):
            what = f"receiver `{name}` cuts messages after {hook['max_alerts']} alerts; the rest is never delivered"
            yield Finding("error", what, "set max_alerts: 0")
        if hook.get("send_resolved") is False:
            yield Finding("error", f"receiver `{name}` is not told what is resolved", "set send_resolved: true")
        client = hook.get("http_config") or {}
        if not any(client.get(key) for key in ("authorization", "bearer_token_file", "bearer_token")):
            yield Finding("error", f"receiver `{name}` sends no token and will be answered 401", "add authorization")


def _intervals(data: Mapping[str, Any], table: Severity) -> Iterator[Finding]:
    lists = (*(data.get("time_intervals") or ()), *(data.get("mute_time_intervals") or ()))
    there = {str(item.get("name")): item.get("time_intervals") for item in lists if isinstance(item, Mapping)}
    for wanted in routes.time_intervals(table):
        name = wanted["name"]
        if name not in there:
            yield Finding("error", f"time interval `{name}` is not there", "add it from the fragment")
        elif there[name] != wanted["time_intervals"]:
            what = f"time interval `{name}` is another one than ours: {there[name]}"
            yield Finding("warning", what, "fine if those are your hours")


# -- inhibition ---------------------------------------------------------------------------------------


def _inhibition(
    theirs: Sequence[Inhibition], ours: Sequence[Inhibition], alerts: Sequence[Labels]
) -> Iterator[Finding]:
    """Who would be muted there and not with us; then what others' alerts could mute; then what is missing."""
    told: set[int] = set()
    for rule in theirs:
        pairs = [
            (source, target)
            for target in alerts
            if rule.may_mute(target)
            for source in alerts
            if rule.mutes(source, target) and not any(own.mutes(source, target) for own in ours)
        ]
        if pairs:
            told.add(rule.number)
            source, target = pairs[0]
            lacking = [name for name in rule.equal if not target.get(name) and not source.get(name)]
            why = f"it compares {', '.join(rule.equal) or 'nothing'}"
            why += f", and both lack {', '.join(lacking)}, which counts as equal" if lacking else ""
            what = f"inhibit_rules[{rule.number}] lets {source['alertname']} mute {target['alertname']}; {why}"
            what += f"; {len(pairs)} pairs in all" if len(pairs) > 1 else ""
            yield Finding("error", what, 'exclude our alerts on the target side: symptom=""')
    for rule in theirs:
        if rule.number in told or any(_same_rule(rule, own) for own in ours):
            continue
        names = [target["alertname"] for target in alerts if rule.may_mute(target)]
        if names:
            equal = f"with the same {', '.join(rule.equal)}" if rule.equal else "of any target"
            what = f"inhibit_rules[{rule.number}] lets alerts of others {equal} mute {_names(names)}"
            yield Finding("warning", what, 'exclude our alerts on the target side: symptom=""')
    for own in ours:
        if not any(_same_rule(own, rule) for rule in theirs):
            what = "the inhibition of a symptom's P2 form by its P1 form is not there: both will page"
            yield Finding("warning", what, "add inhibit_rules from the fragment")


def _same_rule(one: Inhibition, other: Inhibition) -> bool:
    def sides(rule: Inhibition) -> tuple[set[str], set[str], set[str]]:
        return {str(each) for each in rule.source}, {str(each) for each in rule.target}, set(rule.equal)

    return sides(one) == sides(other)
