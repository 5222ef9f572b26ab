"""`runbook:test`: what would be done, by the real matching, guardrails and planner, in a world that a file describes.

In: test files. Out: a line for each failure. No server, no clock: every time is a number of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from prepctl import rehearsal_file as shape
from remediator import guardrails
from remediator.actions import registry
from remediator.actions.base import Preview
from remediator.alerts import Alert, label_hash
from remediator.durations import human
from remediator.errors import ConfigError, Fault
from remediator.events import Event, Kind
from remediator.facts import Facts, calm
from remediator.ledger import fold
from remediator.matching import Matched, match, params_of
from remediator.planner import next_step
from remediator.reasons import Refusal
from remediator.runbooks import Runbook, Rung, faults, parse, text_of
from remediator.settings import Settings
from remediator.settings import parse as parse_settings
from remediator.steps import Intend, Look, LookAtProof, LookAtRule, Refuse, Step, View
from remediator.world import CheckSample, ProofLook, World
from remediator.yaml_file import mapping

BEGAN = 1_800_000_000.0  # UNIX seconds of the first delivery, whatever day that is
TOOK = 1.0  # seconds from an attempt to its outcome
QUESTIONS = 5  # that the planner may ask before it decides
RISKS = {action.name: action.risk for action in registry.CLASSES}
DEADLINES = {action.name: action.deadline for action in registry.CLASSES}
BASE: Mapping[str, Any] = {
    "environment": "production",
    "mode": "auto",
    "pause_file": "/nonexistent",
    "webhook": {"token_files": ["/dev/null"]},
    "prometheus": {"urls": ["http://prometheus:9090"]},
    "alertmanager": {"urls": ["http://alertmanager:9093"]},
}


def read(file: Path) -> Rehearsal:
    """A test file with its runbooks. Raises ConfigError with every fault."""
    data = mapping(text_of(file, str(file)), str(file), "a file of tests")
    if "ladder" in data and "tests" not in data:
        remedy = "its tests are files of their own: runbooks/tests/*.test.yml"
        raise ConfigError([Fault(str(file), "is a runbook and no file of tests", remedy)])
    try:
        found = shape.TestFile.model_validate(data)
    except ValidationError as error:
        raise ConfigError(faults(error, str(file))) from error
    paths = [(file.parent / name, name) for name in found.runbook_files]
    books = tuple(parse(text_of(path, name), name) for path, name in paths)
    laid = {**BASE, **{key: _over(BASE.get(key), value) for key, value in found.settings.items()}}
    settings = parse_settings(yaml.safe_dump(laid), f"{file}: settings")
    return Rehearsal(file, found, books, settings)


def _over(base: Any, value: Any) -> Any:
    """A section keeps the keys that the file does not name."""
    return {**base, **value} if isinstance(base, dict) and isinstance(value, Mapping) else value


class Rehearsal:
    """One file, ready to be run."""

    def __init__(self, file: Path, found: shape.TestFile, books: Sequence[Runbook], settings: Settings) -> None:
        self.file = file
        self.found = found
        self.books = books
        self._settings = settings

    def failures(self) -> Iterator[str]:
        """A sentence for each step that is not the expected one: where, what was expected, what came."""
        for test in self.found.tests:
            for asked in test.step_test:
                try:
                    came = describe(self.step(test, asked))
                except (ValueError, KeyError, TypeError) as error:
                    came = {"step": "nothing", "sentence": f"the test cannot be played: {error}"}
                wanted = asked.exp_step.model_dump(exclude_none=True)
                if any(came.get(name) != value for name, value in wanted.items()):
                    where = f"{self.file.name}: {test.name!r} at {_moment(asked.eval_time)}"
                    yield f"{where}: expected {_words(wanted)}; got {_words(came)}"

    def step(self, test: shape.Test, asked: shape.StepTest) -> Step:
        """What the planner decides, once it has seen what it wanted to see."""
        now = BEGAN + asked.eval_time
        alert = Alert("firing", test.alert, {}, BEGAN + test.starts_at, label_hash(test.alert))
        matched = match(alert, self.books, self._settings.environment)
        if isinstance(matched, Refusal):
            return Refuse(matched, None, now)
        ledger = fold(_events(test, asked, alert, matched))
        told = test.facts if asked.facts is None else asked.facts
        known = _facts(told, now, self._settings.mode)
        last_round = asked.eval_time - matched.runbook.proof.every if asked.last_round is None else asked.last_round
        view = View(now, ledger, matched.runbook, self._settings, known, RISKS, last_round=BEGAN + last_round)
        seen = asked.world or test.world
        for _ in range(QUESTIONS):
            step = next_step(view)
            match step:
                case Look(rung):
                    view = replace(view, world=_world(seen, rung, now, matched.target))
                case LookAtRule():
                    view = replace(view, rule=seen.rule)
                case LookAtProof():
                    view = replace(view, proof=_proof(asked.proof, matched.runbook, now))
                case Intend():
                    refusal = guardrails.locked(replace(step.case, facts=known))
                    return step if refusal is None else Refuse(refusal, step.rung.name, now)
                case _:
                    return step
        raise ValueError("the planner asks and asks, and decides nothing")


# -- from the file's words to the planner's values -----------------------------------------------------


def _events(test: shape.Test, asked: shape.StepTest, alert: Alert, matched: Matched) -> list[Event]:
    """The episode as the journal would hold it at `eval_time`."""
    book = matched.runbook
    opened = {"alert": alert.as_json(), "received_at": BEGAN, "target": dict(matched.target)}
    opened |= {"runbook": book.name, "digest": book.digest()}
    told: list[tuple[float, Kind, Mapping[str, Any]]] = [(0.0, Kind.OPENED, opened)]
    attempt = 0
    for past in test.history:
        attempt += past.attempt is not None
        told += _told(past, f"{attempt:032x}", alert, matched)
    due = [each for each in told if each[0] <= asked.eval_time]
    return [
        Event(f"{seq:032x}", "test", seq, kind, BEGAN + at, data) for seq, (at, kind, data) in enumerate(due, start=1)
    ]


def _told(
    past: shape.Past, attempt: str, alert: Alert, matched: Matched
) -> Iterator[tuple[float, Kind, Mapping[str, Any]]]:
    """One line of the history as (time, kind, data) of its events."""
    at = past.time
    proof = {"attempt": attempt, "checks": [], "probe": "unknown", "sentence": "by the test"}
    said: dict[str, Any]
    if past.event is not None:
        yield at, Kind(past.event), past.data
    elif past.diagnosed is not None:
        yield at, Kind.DIAGNOSED, {"rung": past.diagnosed, "digest": "", "path": "", "complete": True, "summary": {}}
    elif past.would_act is not None:
        rung = _rung(matched.runbook, past.would_act)
        yield at, Kind.WOULD_ACT, {"rung": rung.name, "action": rung.action, "items": [], "summary": rung.name}
    elif past.attempt is not None:
        yield at, Kind.INTENT, _intent(_rung(matched.runbook, past.attempt), attempt, at)
        if past.outcome is not None:
            said = {"attempt": attempt, "result": past.outcome, "detail": "by the test", "touched": []}
            yield at + TOOK, Kind.OUTCOME, said
    elif past.settled is not None:
        said = {"attempt": attempt, "settlement": past.settled, "detail": "by the test", "evidence": {}, "by": "test"}
        yield at, Kind.SETTLED, said
    elif past.proving is not None:
        yield at, Kind.PROVING, proof | {"good_since": BEGAN + at if past.proving == "good" else None}
    elif past.verdict is not None:
        yield at, Kind.VERDICT, proof | {"verdict": past.verdict}
    elif past.handed_over is not None:
        said = {"reason": past.handed_over, "sentence": "by the test", "alertname": "", "severity": "P2"}
        yield at, Kind.HANDED_OVER, said
    else:
        yield at, Kind.OBSERVED, {"alert": {**alert.as_json(), "status": "resolved"}}


def _intent(rung: Rung, attempt: str, at: float) -> dict[str, Any]:
    default = shape.Preview()
    return {
        "attempt": attempt,
        "rung": rung.name,
        "action": rung.action,
        "params": {},
        "summary": f"Rung {rung.name}.",
        "resource": default.resource,
        "items": [dict(item) for item in default.items],
        "looked_at": BEGAN + at,
        "start_by": BEGAN + at + 10.0,
        "deadline": rung.deadline or DEADLINES[rung.action],
        "probe": "sick",
    }


def _rung(book: Runbook, name: str) -> Rung:
    rung = book.rung(name)
    if rung is None:
        raise ValueError(f"{book.name} has no rung {name!r}")
    return rung


def _facts(told: Mapping[str, Any], now: float, mode: str) -> Facts:
    """Calm but for what the test says; moments become UNIX seconds."""
    known = {each.name for each in fields(Facts)}
    if unknown := sorted(set(told) - known):
        raise ValueError(f"no such facts: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    moment = TypeAdapter(shape.Moment)
    changed = {
        name: BEGAN + moment.validate_python(value) if name.endswith(("_at", "_until")) and value is not None else value
        for name, value in told.items()
    }
    base = {each.name: getattr(calm(now, mode), each.name) for each in fields(Facts)}
    return TypeAdapter(Facts).validate_python({**base, **changed})


def _world(seen: shape.World, rung: Rung, now: float, target: Mapping[str, str]) -> World:
    preview, error = _preview(seen.preview, rung, now, target)
    return World(
        looked_at=now if seen.looked is None else BEGAN + seen.looked,
        rule=seen.rule,
        rule_detail="as the test says",
        skew=None if seen.skew == "unknown" else float(seen.skew),
        causes=None if seen.causes == "unknown" else tuple(seen.causes),
        muted=seen.muted,
        muted_by="as the test says",
        probe=seen.probe,
        probe_detail="as the test says",
        preview=preview,
        preview_error=error,
        pause_file=seen.pause_file,
    )


def _preview(
    seen: shape.Preview | None, rung: Rung, now: float, target: Mapping[str, str]
) -> tuple[Preview | None, str]:
    """What the action would touch, if the target's labels are parameters for it at all."""
    try:
        registry.PARAMS[rung.action].model_validate(params_of(rung, target))
    except ValidationError as error:
        return None, f"the alert's labels do not fit {rung.action}: {error.errors()[0]['msg']}"
    if seen is None:
        return None, "as the test says"
    refusals = tuple(Refusal(reason, "By the target's own word, in the test.") for reason in seen.refusals)
    return Preview(seen.resource, f"Rung {rung.name}.", tuple(seen.items), now, refusals, asks=seen.asks), ""


def _proof(told: shape.Proof | None, book: Runbook, now: float) -> ProofLook:
    if told is None:
        raise ValueError("it asks for a round of proof, and the test has no `proof` for it")
    known = {check.name: check for check in book.proof.checks}
    if known.keys() != told.values.keys():
        raise ValueError(f"`proof.values` must have exactly the checks {', '.join(known)}")
    samples = tuple(
        CheckSample(name, value, None if value is None else known[name].good(value), str(value))
        for name, value in told.values.items()
    )
    return ProofLook(now, samples, told.probe, "as the test says")


# -- words for people ----------------------------------------------------------------------------------


def describe(step: Step) -> dict[str, Any]:
    """A step as the keys of `exp_step`, with the sentence that goes with it."""
    came: dict[str, Any] = {"step": re.sub(r"(?<!^)(?=[A-Z])", "_", type(step).__name__).lower()}
    refusal, judged, rung = (getattr(step, name, None) for name in ("refusal", "judged", "rung"))
    said = refusal or judged or step
    for name in ("reason", "verdict", "sentence"):
        if getattr(said, name, None) is not None:
            came[name] = str(getattr(said, name))
    if rung is not None:
        came["rung"] = getattr(rung, "name", rung)
    if (alertname := getattr(step, "alertname", None)) is not None:
        came["alertname"] = alertname
    if (until := getattr(step, "until", None)) is not None:
        came["until"] = round(until - BEGAN, 3)
    return came


def _words(came: Mapping[str, Any]) -> str:
    """`refuse (reason cooldown, rung restart, until 30m): This target was acted on …`"""
    shown = [
        f"{name} {_moment(value) if name == 'until' else value}"
        for name, value in came.items()
        if name not in ("step", "sentence")
    ]
    details = f" ({', '.join(shown)})" if shown else ""
    sentence = f": {came['sentence']}" if came.get("sentence") else ""
    return f"{came['step']}{details}{sentence}"


def _moment(value: float) -> str:
    if not value:
        return "0s"
    return f"-{human(-value)}" if value < 0 else human(value)
