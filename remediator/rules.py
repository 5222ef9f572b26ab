"""What one Prometheus says of an alert's rule and of its causes, and what several say together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from remediator.errors import RemediatorError
from remediator.prometheus import Prometheus, Rule, Sample
from remediator.world import Answer


@dataclass(frozen=True, slots=True)
class RuleLook:
    """One server's word. `causes` None = not known; `skew` in seconds, None = not known."""

    answer: Answer
    detail: str
    skew: float | None = None
    causes: tuple[str, ...] | None = None
    blind: str = ""
    """Why the causes are not known."""


async def look(
    server: Prometheus, names: Sequence[str], target: Mapping[str, str], job: str | None, causes: Sequence[str]
) -> RuleLook:
    """Ask one server for the rules of these names and whether a cause is true. Never raises for its silence."""
    try:
        rules, (up, skew) = await asyncio.gather(server.rules(), server.up())
        (answer, detail), (found, blind) = await asyncio.gather(
            _rule(server, rules, up, names, target, job), _causes(server, rules, causes)
        )
    except RemediatorError as error:
        return RuleLook(Answer.UNKNOWN, str(error), blind=str(error))
    return RuleLook(answer, detail, skew, found, blind)


def agree(looks: Sequence[RuleLook]) -> RuleLook:
    """Several servers' words as one: `yes` and `no` only when all say so."""
    answers = {item.answer for item in looks}
    together = answers.pop() if len(answers) == 1 else Answer.UNKNOWN
    skews = [item.skew for item in looks]
    known = [skew for skew in skews if skew is not None]
    details = list(dict.fromkeys(item.detail for item in looks))
    details += [f"causes: {item.blind}" for item in looks if item.blind and item.blind not in details]
    return RuleLook(together, "; ".join(details), max(known) if known and len(known) == len(skews) else None)


def agree_causes(looks: Sequence[RuleLook]) -> tuple[str, ...] | None:
    """A cause that any server sees is one; none is only what all of them say."""
    found = sorted({name for item in looks for name in item.causes or ()})
    if found:
        return tuple(found)
    return None if any(item.causes is None for item in looks) else ()


async def _rule(
    server: Prometheus,
    rules: Sequence[Rule],
    up: Sequence[Sample],
    names: Sequence[str],
    target: Mapping[str, str],
    job: str | None,
) -> tuple[Answer, str]:
    """True when any rule of these names gives a sample with the target's labels."""
    ours = [rule for rule in rules if rule.name in names]
    if not ours:
        return Answer.UNKNOWN, f"no rule {' or '.join(names)} at {server.url}"
    results = await asyncio.gather(*(server.query(rule.expression) for rule in ours))
    for rule, samples in zip(ours, results, strict=True):
        for sample in samples:
            if labels_of(rule, sample).items() >= target.items():
                return Answer.YES, f"{rule.name} is {sample.value:g} at {server.url}"
    if ill := [rule for rule in ours if rule.health == "err"]:
        return Answer.UNKNOWN, f"{ill[0].name} cannot be evaluated at {server.url}: {ill[0].last_error[:200]}"
    if templated := [rule.name for rule in ours if any("{{" in rule.labels.get(name, "") for name in target)]:
        return Answer.UNKNOWN, f"{templated[0]} makes a target label by a template: it cannot be compared"
    if why := blind(up, target, job):
        return Answer.UNKNOWN, f"{' or '.join(names)} has no sample at {server.url}, but {why}"
    return Answer.NO, f"{' or '.join(names)} is not true at {server.url}"


async def _causes(
    server: Prometheus, rules: Sequence[Rule], names: Sequence[str]
) -> tuple[tuple[str, ...] | None, str]:
    """Which of these alerts are pending, firing, or true now; for which none there is a rule, nothing is known."""
    known = {rule.name for rule in rules}
    ours = [rule for rule in rules if rule.name in names]
    results = await asyncio.gather(*(server.query(rule.expression) for rule in ours))
    found = {rule.name for rule, samples in zip(ours, results, strict=True) if samples or rule.states}
    if not found and (missing := [name for name in names if name not in known]):
        return None, f"no rule {' or '.join(missing)} at {server.url}"
    return tuple(sorted(found)), ""


def blind(up: Sequence[Sample], target: Mapping[str, str], job: str | None) -> str:
    """Why an empty answer proves nothing, as words; "" when the server sees what the rule looks at.

    Of the alert's job, the scrape targets that carry the target's own labels count, or all of the job when
    none does. Without a job, one target that is up must do.
    """
    ours = [sample for sample in up if job is None or sample.labels.get("job") == job]
    named = [sample for sample in ours if sample.labels.items() >= target.items()] if target else []
    counted = named or ours
    what = f"job {job}" if job is not None else "every job"
    if not counted:
        return f"{what} is not scraped there"
    states = [sample.value == 1.0 for sample in counted]
    if all(states) or (job is None and not named and any(states)):
        return ""
    return f"{what} cannot be scraped ({states.count(False)} of {len(states)} targets are down)"


def labels_of(rule: Rule, sample: Sample) -> dict[str, str]:
    """The alert's labels as the rule makes them: the sample's, without its metric name, and the rule's own."""
    labels: Iterable[tuple[str, str]] = sample.labels.items()
    return {name: value for name, value in labels if name != "__name__"} | dict(rule.labels)
