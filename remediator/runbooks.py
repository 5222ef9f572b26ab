"""Runbooks: from alerts to a ladder of actions, with the numbers that bound it. Format 1.

In: YAML files of one folder. Out: frozen models, all of them or none. First every file is checked for its
shape, then references between files and to the actions are checked; all faults are reported at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from remediator.durations import WRITTEN, Duration, human, longest_range
from remediator.errors import ConfigError, Fault
from remediator.yaml_file import mapping

FLOOR_COOLDOWN = 1.0  # seconds; the Docker gate has a floor of its own, see gate.py
Mode = Literal["shadow", "approve", "auto"]
MODES: tuple[Mode, ...] = ("shadow", "approve", "auto")  # from the strictest to the freest
NonEmpty = Annotated[str, Field(min_length=1)]


class Strict(BaseModel):
    """Unknown keys are mistakes, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Match(Strict):
    """Which alerts are this runbook's. Everything named must agree; nothing is a pattern."""

    alertnames: tuple[NonEmpty, ...] = Field(min_length=1)
    """Rules; each belongs to one runbook only."""
    jobs: tuple[NonEmpty, ...] = Field(min_length=1)
    """Values of the alert's `job`."""
    labels: Mapping[str, str] = {}
    """Further labels that the alert must have with exactly these values."""


class FromLabel(Strict):
    """A parameter taken from a target label of the alert; the action's model still validates it."""

    label: NonEmpty
    """One of `target_labels`."""


class Rung(Strict):
    """One step of the ladder. `wait` seconds pass between the verdict before it and its own look."""

    name: NonEmpty
    """Told apart by it, in this runbook and in open episodes."""
    action: NonEmpty
    """What is done."""
    params: Mapping[str, FromLabel | str | int | float | bool] = {}
    """Of the action: fixed, or taken from a target label."""
    wait: Duration = 0.0
    """After the verdict before it, before its own look."""
    attempts: int = Field(default=1, ge=1, le=3)
    """Attempts whose effect did not begin (refused at the target); one that began is never repeated."""
    deadline: Duration | None = None
    """For the whole execution; afterwards its end is in doubt. None is the action's own."""
    approval: bool = False
    """A person must say yes, also in mode auto."""
    diagnose_first: bool = True
    """Capture the evidence of `diagnosis` before it."""
    same_target: bool = False
    """Touch only what the attempt before was about: the query that was cancelled, not the next one in line."""


class Check(Strict):
    """One proof query. It must return exactly one sample; empty or NaN is `unknown`, never good.

    A runbook for several targets names in `by` the target labels that pick its own sample out of the answer.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["below"], "properties": {"below": {"type": "number"}}},
                {"required": ["at_least"], "properties": {"at_least": {"type": "number"}}},
            ]
        }
    )

    name: NonEmpty
    """For people."""
    query: NonEmpty
    """PromQL with one sample as its answer."""
    by: tuple[Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")], ...] = ()
    """Target labels that pick the sample, where the query answers with one for each target."""
    below: float | None = None
    """Good while the sample is smaller."""
    at_least: float | None = None
    """Good while the sample is not smaller."""

    @model_validator(mode="after")
    def _one_bound(self) -> Check:
        if (self.below is None) == (self.at_least is None):
            raise ValueError("give exactly one of `below` and `at_least`")
        return self

    def good(self, value: float) -> bool:
        """Is a sample's value as it must be?"""
        return value < self.below if self.below is not None else value >= (self.at_least or 0.0)


class Proof(Strict):
    """How the runbook proves that the fault is gone.

    All checks and the direct probe must be good without a break for `hold`; `timeout` is counted from the
    end of the action; a round is asked every `every`.
    """

    checks: tuple[Check, ...] = Field(min_length=1)
    """All must be good at once."""
    hold: Duration
    """Good for so long without a break. Its floor: the longest range of the queries plus two scrapes."""
    timeout: Duration
    """Given up so long after the effect; at least `hold`."""
    every: Duration = 5.0
    """From one round to the next."""
    probe: bool = True
    """The direct probe must be healthy too."""


class Limits(Strict):
    """Numbers that outlive a restart: counted in the journal, charged with the intent."""

    cooldown: Duration = Field(default=1800.0, ge=FLOOR_COOLDOWN)
    """Between two remediations of one target."""
    per_hour: int = Field(default=3, ge=1)
    """Attempts in any hour, by target and by runbook."""
    per_day: int = Field(default=7, ge=1)
    """Attempts in any day, by target and by runbook."""
    recurrence: int = Field(default=5, ge=2)
    """So many proven fixes of one target within 7 days hide a cause: no more of them, and a ticket for its owner."""


class Vantage(Strict):
    """The remediator's own second look at the target, past every exporter.

    `probe`: the direct probe that settings name for the target service must find it sick or down.
    `preview`: the action's preview must find something to do.
    """

    kind: Literal["probe", "preview"]
    """Which one has the say."""


class HandOver(Strict):
    """What people get when the runbook cannot help."""

    severity: Literal["P0", "P1", "P2", "P3"] = "P2"
    """Level of the alert that people get."""
    first_steps: str = ""
    """What to look at first."""


class Runbook(Strict):
    """One symptom, from alert to proof."""

    format: Literal[1]
    """The version of this format."""
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,62}$")]
    """The value of the alert's label `runbook`."""
    title: NonEmpty
    """A line for people."""
    match: Match
    """Which alerts are this runbook's."""
    target_labels: tuple[NonEmpty, ...] = Field(min_length=1)
    """What makes two alerts one episode; an alert that lacks one is not acted upon."""
    blocked_by: tuple[NonEmpty, ...] = ()
    """Alerts that are the cause: while one is pending or firing, or cannot be known, nothing is done."""
    mode: Mode = "auto"
    """The freest mode this runbook may ever run in; the remediator's own mode may be stricter."""
    settle: Duration = 30.0
    """Time to heal by itself, from the first delivery."""
    stale_after: Duration = 3600.0
    """An alert older than this, by `startsAt`, is a person's."""
    vantage: Vantage
    """The second look, past every exporter."""
    diagnosis: tuple[NonEmpty, ...] = ()
    """Evidence to capture; without all of it nothing disruptive is done."""
    ladder: tuple[Rung, ...] = Field(min_length=1)
    """What to do, the mildest first."""
    proof: Proof
    """How it is known that the fault is gone."""
    limits: Limits = Limits()
    """How often at most."""
    approve_within: Duration = Field(default=1800.0, ge=60.0, le=4 * 3600.0)
    """For so long an approval can be given and used; then people are told that nobody answered."""
    hand_over: HandOver = HandOver()
    """What people get when it cannot help."""
    not_automated: tuple[NonEmpty, ...] = ()
    """Handbook steps left to people, each with the reason; shown with the runbook."""

    @model_validator(mode="after")
    def _consistent(self) -> Runbook:
        names = [rung.name for rung in self.ladder]
        if len(set(names)) != len(names):
            raise ValueError("two rungs have the same name; rungs are told apart by name")
        labels = {value.label for rung in self.ladder for value in rung.params.values() if isinstance(value, FromLabel)}
        if missing := labels - set(self.target_labels):
            raise ValueError(f"params use labels that are not in target_labels: {', '.join(sorted(missing))}")
        picked = {name for check in self.proof.checks for name in check.by}
        if missing := picked - set(self.target_labels):
            raise ValueError(f"proof.checks pick by labels that are not in target_labels: {', '.join(sorted(missing))}")
        if self.proof.timeout < self.proof.hold:
            raise ValueError("proof.timeout is shorter than proof.hold: nothing could ever be proven")
        return self

    def rung(self, name: str) -> Rung | None:
        """The rung of that name, or None (a journal written by another version of the runbook)."""
        return next((rung for rung in self.ladder if rung.name == name), None)

    def body(self) -> str:
        """Canonical JSON: what the journal keeps, so that an episode keeps the version it was decided on."""
        return self.model_dump_json()

    def digest(self) -> str:
        """sha256 of `body()`, hex."""
        return hashlib.sha256(self.body().encode()).hexdigest()


def parse(text: str, where: str) -> Runbook:
    """One YAML document to a runbook. Raises ConfigError with every fault, `where` as the file's name."""
    data = mapping(text, where, "a runbook", "see docs/runbook-format.md")
    try:
        return Runbook.model_validate(data, context=WRITTEN)
    except ValidationError as error:
        raise ConfigError(faults(error, where)) from error


def text_of(path: Path, where: str) -> str:
    """A configuration file's text. Raises ConfigError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([Fault(where, "is not UTF-8", "save it as UTF-8")]) from error
    except OSError as error:
        raise ConfigError([Fault(where, f"cannot be read: {error.strerror}")]) from error


def faults(error: ValidationError, where: str) -> list[Fault]:
    """Every fault of a pydantic error with its path inside the file."""
    return [
        Fault(f"{where}: {'.'.join(str(part) for part in item['loc']) or '(top level)'}", item["msg"])
        for item in error.errors()
    ]


def load(
    folder: Path, actions: Mapping[str, type[BaseModel]], diagnoses: Collection[str], scrape_interval: float
) -> tuple[Runbook, ...]:
    """Read every `*.yml` of a folder: all of them, or ConfigError with every fault of all files."""
    files = sorted(folder.glob("*.yml"))
    problems: list[Fault] = []
    books: list[tuple[str, Runbook]] = []
    if not files:
        problems.append(Fault(str(folder), "no runbook here", "an empty folder would remediate nothing, silently"))
    for path in files:
        try:
            books.append((path.name, parse(text_of(path, path.name), path.name)))
        except ConfigError as error:
            problems += error.faults
    problems += _references(books, actions, diagnoses, scrape_interval)
    if problems:
        raise ConfigError(problems)
    return tuple(book for _, book in books)


def _references(
    books: Iterable[tuple[str, Runbook]],
    actions: Mapping[str, type[BaseModel]],
    diagnoses: Collection[str],
    scrape_interval: float,
) -> Iterable[Fault]:
    """What one file alone cannot show: unknown actions, overlap, a hold time under its floor."""
    names: dict[str, str] = {}
    claimed: dict[str, str] = {}
    for file, book in books:
        if book.name in names:
            yield Fault(f"{file}: name", f"{book.name!r} is also the name in {names[book.name]}")
        names[book.name] = file
        for alertname in book.match.alertnames:
            if alertname in claimed:
                yield Fault(f"{file}: match.alertnames", f"{alertname} is already matched by {claimed[alertname]}")
            claimed[alertname] = file
        for index, rung in enumerate(book.ladder):
            if rung.action not in actions:
                yield Fault(
                    f"{file}: ladder.{index}.action",
                    f"no action {rung.action!r}",
                    f"one of {', '.join(sorted(actions))}",
                )
            else:
                yield from _params(rung, actions[rung.action], f"{file}: ladder.{index}.params")
        for index, name in enumerate(book.diagnosis):
            if name not in diagnoses:
                yield Fault(
                    f"{file}: diagnosis.{index}", f"no diagnosis {name!r}", f"one of {', '.join(sorted(diagnoses))}"
                )
        yield from _hold(book.proof, scrape_interval, f"{file}: proof")


def _hold(proof: Proof, scrape_interval: float, where: str) -> Iterable[Fault]:
    """A hold time under its floor: with less, samples from before the action count as proof."""
    ranges: list[float] = []
    for index, check in enumerate(proof.checks):
        try:
            ranges.append(longest_range(check.query))
        except ValueError as error:
            yield Fault(f"{where}.checks.{index}.query", str(error), "write its ranges as 90s, 15m or 1h30m")
    floor = max(ranges, default=0.0) + 2 * scrape_interval
    if proof.hold < floor:
        said = f"{human(proof.hold)} is under its floor of {human(floor)}"
        yield Fault(f"{where}.hold", said, "the longest range of its queries plus two scrapes")


def _params(rung: Rung, model: type[BaseModel], where: str) -> Iterable[Fault]:
    """A rung's fixed parameters must fit its action now, not at 3 am; what a label gives is checked when it comes."""
    labels = {name for name, value in rung.params.items() if isinstance(value, FromLabel)}
    try:
        given = {name: "x" if name in labels else value for name, value in rung.params.items()}
        model.model_validate(given, context=WRITTEN)
    except ValidationError as error:
        for fault in error.errors():
            if not fault["loc"] or fault["loc"][0] not in labels:
                yield Fault(f"{where}.{'.'.join(map(str, fault['loc']))}", fault["msg"])


def from_body(text: str) -> Runbook:
    """A runbook's body from the journal, as stored by `Runbook.body()`."""
    return Runbook.model_validate_json(text)
