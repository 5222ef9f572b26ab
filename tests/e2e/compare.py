"""The backtest of what a drill's Prometheus recorded decides as the remediator did that lived through the drill.

In: a stack that is still up. Each decision of the journal since the stack began (refusals, intents, verdicts, ends), episode
by episode and in its order, stands beside the one of `prepctl backtest`, told by the stack's own Prometheus alone. What no
history holds (the target's own word, the direct probe, a person's answer) ends the comparison of that episode: from there on
the two live in different worlds. It must be among what the report calls assumed, and is told as unknown, never as equal.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

import yaml

from alerting.matching import Inhibition, inhibitions
from backtest import command
from backtest.outcome import is_echo
from backtest.pretended import UNSEEN
from backtest.report import what
from demo.drills.base import Drill, Story
from demo.stack import Stack
from remediator import narrative
from remediator.durations import seconds
from remediator.events import Event, Kind
from remediator.reasons import Reason

LATE = 2.0
"""Seconds beside one evaluation interval by which a decision may come later there: delivery, a busy machine."""
LOOK = 15.0
"""Seconds more by which a refusal or a question may: a target that hangs uses up all the time of the look before it."""
KINDS = frozenset(
    {Kind.REFUSED, Kind.INTENT, Kind.NEEDS_APPROVAL, Kind.WOULD_ACT, Kind.VERDICT, Kind.HANDED_OVER, Kind.CLOSED}
)
PROPOSALS = frozenset({"intent", "needs_approval", "would_act"})
WAITING = "refused settling"
"""It says when, not why; whether it is written depends on how long the evidence took."""


@dataclass(frozen=True, slots=True)
class Step:
    """One decision: UNIX seconds, `refused cooldown` or the like, and the sentence."""

    at: float
    what: str
    sentence: str = ""

    @property
    def kind(self) -> str:
        return self.what.partition(" ")[0]

    @property
    def word(self) -> str:
        return self.what.partition(" ")[2]


@dataclass(frozen=True, slots=True)
class One:
    """One episode, there or here: what fired, on what, when, for which runbook, and what was decided.

    inhibited  another alert of the history muted it by Alertmanager's own rules: it was never delivered
    """

    alert: str
    target: str
    runbook: str
    fired_at: float
    steps: tuple[Step, ...]
    sentence: str = ""
    inhibited: bool = False

    @property
    def name(self) -> str:
        return f"{self.alert} {self.target} ({self.runbook})"


@dataclass
class Compared:
    """What came of it.

    equal    decisions that are the same, in order
    unknown  episodes by what is assumed where the comparison ended
    wrong    what is not so, in words
    """

    equal: list[str] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        unknown = ", ".join(f"{name}: {key}" for name, key in self.unknown.items())
        return f"{len(self.equal)} decisions equal ({', '.join(self.equal)}); unknown: {unknown or 'nothing'}"


def held(drill: Drill, stack: Stack, story: Story) -> Compared:
    """Everything since the stack began. Raises AssertionError with both stories where a decision differs."""
    interval = _interval(stack)
    time.sleep(2 * interval + LATE)  # the last of what the drill has waited for lies within the history by now
    there, report = lived(stack), backtest(stack)
    here = told(report, _inhibitions(stack))
    found = compared(there, here, interval + LATE, report["until"])
    print(f"{drill.name}: backtest: {found}", flush=True)
    both = f"the backtest:\n{_lines(here)}\nthe remediator:\n{_lines(there)}"
    assert not found.wrong, f"{drill.name}: {found.wrong}\n{both}"
    assert set(found.unknown.values()) <= report["assumed"].keys(), f"not told: {found.unknown}"
    wanted = demanded(story)
    assert not wanted or wanted & {*found.equal, *found.unknown.values()}, f"{drill.name}: no {wanted}\n{both}"
    return found


def demanded(story: Story) -> set[str]:
    """What the comparison must have come to, any of these, so that it cannot hold by having nothing to compare; empty: the
    drill has opened no episode.

    The followed episode's first refusal or proposal: the same here, or told as what is assumed instead.
    """
    for event in story.events:
        data = event["data"]
        match event["kind"]:
            case "refused" if f"refused {data['reason']}" != WAITING:
                seen = UNSEEN.get(Reason(data["reason"]))
                if seen is None:
                    return {f"refused {data['reason']}"}
                following = (each for each in story.events if each["kind"] in PROPOSALS)
                return {seen, *(f"{each['kind']} {each['data']['rung']}" for each in following)}
            case "would_act":
                return {"mode"}
            case "intent" | "needs_approval" as kind:
                return {f"{kind} {data['rung']}"}
    return set()


# -- both sides ---------------------------------------------------------------------------------------------


def lived(stack: Stack) -> list[One]:
    """The journal's episodes that have a runbook and are nobody's command, oldest first."""
    made = []
    for row in stack.api("/api/v1/episodes?limit=500")["episodes"]:
        events = [
            Event(f"{each['seq']:032x}", row["id"], each["seq"], Kind(each["kind"]), each["at"], each["data"])
            for each in stack.api(f"/api/v1/episodes/{row['id']}")["events"]
        ]
        data = events[0].data
        if not data.get("runbook") or data.get("command") or is_echo(events):
            continue
        target = ", ".join(f"{name}={value}" for name, value in data["target"].items())
        steps = tuple(Step(each.at, what(each), narrative.line(each)) for each in events if each.kind in KINDS)
        alert = data["alert"]
        made.append(One(alert["labels"]["alertname"], target, data["runbook"], alert["starts_at"], steps))
    return sorted(made, key=lambda one: one.fired_at)


def backtest(stack: Stack) -> dict[str, Any]:
    """`prepctl backtest --json` of all that this stack's Prometheus holds, with the drill's own settings and runbooks."""
    began = datetime.fromisoformat(stack.inspect("prometheus")["Created"]).timestamp()
    since, until = (datetime.fromtimestamp(math.floor(at), UTC).isoformat() for at in (began, time.time()))
    out = io.StringIO()
    asked = ["--since", since, "--until", until, "--prometheus", stack.url("prometheus"), "--json"]
    asked += ["--config", str(stack.config / "remediator.yml"), "--runbooks", str(stack.config / "runbooks")]
    with contextlib.redirect_stdout(out):
        assert command.main(asked) == 0
    report: dict[str, Any] = json.loads(out.getvalue())
    return report


def told(report: Mapping[str, Any], rules: Sequence[Inhibition] = ()) -> list[One]:
    """The report's episodes that have a runbook, oldest first. `rules`: what one alert mutes while it fires."""
    episodes = report["shipped"]["episodes"]

    def inhibited(one: Mapping[str, Any]) -> bool:
        return any(
            rule.mutes(other["labels"], one["labels"])
            for other in episodes
            if other["fired_at"] <= one["fired_at"] and one["fired_at"] < (other["ended_at"] or math.inf)
            for rule in rules
        )

    return [
        One(
            each["alertname"],
            each["target"],
            each["runbook"],
            each["fired_at"],
            tuple(
                Step(step["at"], step["what"], step["sentence"])
                for step in each["story"]
                if step["what"].partition(" ")[0] in KINDS
            ),
            each["sentence"],
            inhibited(each),
        )
        for each in episodes
        if each["runbook"]
    ]


def _inhibitions(stack: Stack) -> list[Inhibition]:
    """Of the Alertmanager that this stack runs."""
    config = yaml.safe_load((stack.config / "alertmanager" / "alertmanager.yml").read_text())
    return inhibitions(config.get("inhibit_rules"))


def _interval(stack: Stack) -> float:
    """Seconds between two evaluations."""
    config = yaml.safe_load((stack.config / "prometheus" / "prometheus.yml").read_text())
    return seconds(config["global"]["evaluation_interval"])


def _lines(found: Iterable[One]) -> str:
    return "\n".join(
        line
        for one in found
        for line in (
            f"{one.fired_at:.1f} {one.name}: {one.sentence}",
            *(f"    {step.at:.1f} {step.what}: {step.sentence}" for step in one.steps),
        )
    )


# -- beside each other, pure ----------------------------------------------------------------------------------


def compared(there: Sequence[One], here: Sequence[One], apart: float, end: float = math.inf) -> Compared:
    """The episodes of both, each with its own: the same alert on the same target, `apart` seconds between at most.
    `end`: of the history, UNIX seconds; what only one side has is not missed shortly before it.

    Once one episode rests on what is not known, later ones of its runbook or its target may have limits, holds and ends there
    that they do not have here: they are told as unknown as well, also where only one side has them. So is one that fired
    together with it and differs: which of the two comes first is chance, and the other one then finds its target taken.
    """
    found = Compared()
    left = list(here)
    parted: list[tuple[One, str]] = []

    def known(one: One) -> bool:
        """Told as unknown where it comes after such a one."""
        why = next((said for other, said in parted if _touched(one, other)), "")
        if why:
            found.unknown[one.name] = why
        return not why

    differ: list[tuple[One, list[str]]] = []
    pairs: list[tuple[One, One | None]] = []
    for one in there:
        mine = next((each for each in left if _same(one, each, apart)), None)
        if mine is not None:
            left.remove(mine)
        pairs.append((one, mine))
    for one, mine in _in_either_order(pairs, apart, end):
        if not known(one):
            continue
        if mine is None:
            if one.fired_at < end - apart:
                found.wrong.append(f"{one.name} at {one.fired_at:.1f} is not in the backtest")
            continue
        equal, why, wrong = beside(one.steps, mine.steps, apart, end)
        found.equal += equal
        if wrong:
            differ.append((one, wrong))
        if why:
            found.unknown[one.name] = why
            parted.append((one, why))
    for one, wrong in differ:
        rests = next((why for other, why in parted if _side_by_side(one, other, apart)), "")
        if rests:
            found.unknown[one.name] = rests
        else:
            found.wrong += [f"{one.name}: {each}" for each in wrong]
    found.unknown |= {each.name: "silences" for each in left if each.inhibited}
    missed = [each for each in left if each.fired_at < end - apart and not each.inhibited and known(each)]
    found.wrong += [f"{each.name} at {each.fired_at:.1f} is in the backtest only" for each in missed]
    return found


def _in_either_order(pairs: Sequence[tuple[One, One | None]], apart: float, end: float) -> list[tuple[One, One | None]]:
    """The same; of two alerts of one target that fired together the other's part, where that is nearer: the same was done
    for the one as there was for the other.
    """
    found = list(pairs)
    for i, j in combinations(range(len(found)), 2):
        (one, mine), (other, its) = found[i], found[j]
        alike = (one.runbook, one.target) == (other.runbook, other.target)
        if mine is None or its is None or not alike or abs(one.fired_at - other.fired_at) > apart:
            continue
        if _nearness(((one, its), (other, mine)), apart, end) > _nearness(((one, mine), (other, its)), apart, end):
            found[i], found[j] = (one, its), (other, mine)
    return found


def _nearness(pairs: Sequence[tuple[One, One]], apart: float, end: float) -> tuple[int, int]:
    """The more the nearer: how few decisions are wrong, then how many are equal."""
    told = [beside(one.steps, mine.steps, apart, end) for one, mine in pairs]
    return -sum(len(wrong) for _, _, wrong in told), sum(len(equal) for equal, _, _ in told)


def _touched(one: One, other: One) -> bool:
    return one.fired_at > other.fired_at and _shares_limits(one, other)


def _side_by_side(one: One, other: One, apart: float) -> bool:
    return abs(one.fired_at - other.fired_at) <= apart and _shares_limits(one, other)


def _shares_limits(one: One, other: One) -> bool:
    return one.runbook == other.runbook or one.target == other.target


def _same(one: One, other: One, apart: float) -> bool:
    alike = (one.alert, one.target, one.runbook) == (other.alert, other.target, other.runbook)
    return alike and abs(one.fired_at - other.fired_at) <= apart


def beside(
    there: Sequence[Step], here: Sequence[Step], apart: float, end: float = math.inf
) -> tuple[list[str], str, list[str]]:
    """One episode's decisions beside each other: what is equal, what is assumed where that ends ("": it does not), and
    what is wrong. `apart`: seconds between the same refusal or proposal in both at most. `end`: as in `compared`.
    """
    mine = [step for step in here if step.what != WAITING]
    equal: list[str] = []
    hidden = ""
    for step in (each for each in there if each.what != WAITING):
        if assumed := _unseen(step):
            hidden = assumed
            continue
        if not mine:
            rests = hidden or _after_the_effect(step, equal)
            fresh = rests or step.at > end - apart - LOOK
            return equal, rests, [] if fresh else [f"{step.what} at {step.at:.1f} is in the journal only"]
        other = mine.pop(0)
        why = _otherwise(step, other, equal, apart)
        if why is None:
            equal.append(step.what)
            hidden = ""
            continue
        said = f"{step.what} at {step.at:.1f} in the journal, {other.what} at {other.at:.1f} in the backtest"
        return equal, hidden or why, [] if hidden or why else [said]
    if not mine:
        return equal, "", []
    rests = hidden or _after_the_effect(mine[0], equal)
    fresh = rests or mine[0].at > end - apart - LOOK
    return equal, rests, [] if fresh else [f"{mine[0].what} at {mine[0].at:.1f} is in the backtest only"]


def _after_the_effect(step: Step, equal: Sequence[str]) -> str:
    """What is assumed where only one side has said yet how the effect ended; "" where nothing was done before."""
    if not equal or not equal[-1].startswith("intent"):
        return ""
    return "proof" if step.kind == "verdict" else "effect"


def _unseen(step: Step) -> str:
    """What is assumed in the place of this refusal; "" where a history shows its reason."""
    return UNSEEN.get(Reason(step.word), "") if step.kind == "refused" else ""


def _in_time(step: Step, other: Step, apart: float) -> bool:
    """When it is proven or closed depends on the proof's own rounds, and decides nothing by itself."""
    if step.kind in ("refused", "needs_approval"):
        return -apart <= step.at - other.at <= apart + LOOK
    return step.kind not in PROPOSALS or abs(step.at - other.at) <= apart


def _otherwise(step: Step, other: Step, equal: Sequence[str], apart: float) -> str | None:
    """None: the same decision. Else what is assumed where they part; "" where nothing excuses it."""
    if step.what == other.what and _in_time(step, other, apart):
        return None
    if (
        step.word == other.word
        and other.kind == "intent"
        and step.kind in PROPOSALS
        and abs(step.at - other.at) <= apart
    ):
        return "mode"  # asked for or only watched there, done here
    if step.kind == "intent" and equal and equal[-1].startswith("needs_approval"):
        return "people"  # a person said yes
    if step.what == "closed cleared" and other.kind in PROPOSALS and 0 <= step.at - other.at <= apart + LOOK:
        return "looks"  # at the very moment at which nothing forbade it any more; there the next look found it over
    if {step.kind, other.kind} == {"refused", "closed"} and abs(step.at - other.at) <= apart + LOOK:
        return "looks"  # the one looked while it lasted, the other a moment later or sooner, when it did not
    if "verdict" in (step.kind, other.kind):
        return "proof" if step.kind == other.kind else "effect"
    return ""
