"""The file of `runbook:test`: what happened so far, what would be seen, and what must come of it. Shapes only.

Close to promtool's test files: `tests`, each with its inputs, and `step_test` with an `eval_time` and what is expected.
Every time in it is counted from the first delivery of the alert, which is 0s; `-5m` is before it. Unknown keys are
refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from remediator.durations import PATTERN, seconds
from remediator.reasons import Reason
from remediator.runbooks import Strict
from remediator.world import Answer, Health

Json = Any  # what YAML gives
MOMENT = "^-?" + PATTERN.removeprefix("^")


def _moment(value: Json) -> Json:
    if not isinstance(value, str):
        return value
    return -seconds(value[1:]) if value.startswith("-") else seconds(value)


def _answer(value: Json) -> Json:
    """YAML reads `yes` and `no` as booleans."""
    return {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value


Moment = Annotated[float, BeforeValidator(_moment), WithJsonSchema({"type": "string", "pattern": MOMENT})]
"""Seconds since the first delivery; written as a duration, with a minus where it was before."""
Said = Annotated[Answer, BeforeValidator(_answer), WithJsonSchema({"enum": [True, False, "yes", "no", "unknown"]})]


class Preview(Strict):
    """What the action would touch. `refusals` are the target's own reasons against it, `asks` why it needs a person."""

    resource: str = "test:target"
    items: tuple[Mapping[str, Json], ...] = ({"id": "target"},)
    refusals: tuple[Reason, ...] = ()
    asks: str = ""


class World(Strict):
    """What a look sees. Without a word all agree that the target is sick, and nothing forbids acting.

    preview  null: the target cannot be looked at
    looked   when the look began; at `eval_time` without a word
    """

    rule: Said = Answer.YES
    skew: Moment | Literal["unknown"] = 0.0
    causes: tuple[str, ...] | Literal["unknown"] = ()
    muted: Said = Answer.NO
    probe: Health = Health.SICK
    preview: Preview | None = Preview()
    looked: Moment | None = None
    pause_file: bool = False


class Proof(Strict):
    """One round of proof: a value for each check by its name, null where there is no sample."""

    values: Mapping[str, float | None]
    probe: Health = Health.HEALTHY


class Past(Strict):
    """One thing that has happened. Exactly one key beside `time` (and `outcome`, which goes with `attempt`).

    attempt  a rung that was begun; `outcome` null: no answer yet
    proving  good or bad: what the rounds of proof showed from then on
    event    any other event of the journal, with its `data`
    """

    time: Moment
    diagnosed: str | None = None
    would_act: str | None = None
    attempt: str | None = None
    outcome: Literal["done", "failed", "in_doubt"] | None = None
    settled: Literal["done", "not_done", "unknown"] | None = None
    proving: Literal["good", "bad"] | None = None
    verdict: Literal["fixed", "not_fixed", "worse", "unknown"] | None = None
    handed_over: str | None = None
    resolved: Literal[True] | None = None
    event: str | None = None
    data: Mapping[str, Json] = {}

    @model_validator(mode="after")
    def _one(self) -> Past:
        beside = ("time", "outcome", "data")
        given = [name for name in type(self).model_fields if name not in beside and getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"one thing happens at a time, here {', '.join(given) or 'nothing'}")
        if self.outcome is not None and self.attempt is None:
            raise ValueError("an outcome belongs to an attempt")
        return self


class Expected(Strict):
    """The step that must come; only what is given is compared.

    step    wait, refuse, diagnose, would_act, ask_approval, intend, settle_doubt, record_proof, hand_over, close, …
    reason  of a refusal, a hand-over or a close
    until   when it is decided again
    """

    step: str
    reason: str | None = None
    rung: str | None = None
    verdict: Literal["fixed", "not_fixed", "worse", "unknown"] | None = None
    alertname: str | None = None
    until: Moment | None = None


class StepTest(Strict):
    """One question: what would be done at `eval_time`? World, facts and proof replace those of the test.

    facts       fields of remediator/facts.py that are not calm; times are moments here
    last_round  when proof was last asked for; one interval before without a word
    """

    eval_time: Moment
    world: World | None = None
    facts: Mapping[str, Json] | None = None
    proof: Proof | None = None
    last_round: Moment | None = None
    exp_step: Expected


class Test(Strict):
    """One story: an alert, what has happened, and questions in the order of their times.

    starts_at  when the alert's rule became true, by its `startsAt`
    history    counts for a question when it is not later than it
    """

    name: str
    alert: Mapping[str, str]
    starts_at: Moment = 0.0
    history: tuple[Past, ...] = ()
    world: World = World()
    facts: Mapping[str, Json] = {}
    step_test: tuple[StepTest, ...] = Field(min_length=1)


class TestFile(Strict):
    """One file. `runbook_files` are relative to it; `settings` are laid over harmless ones in mode auto."""

    runbook_files: tuple[str, ...] = Field(min_length=1)
    settings: Mapping[str, Json] = {}
    tests: tuple[Test, ...] = Field(min_length=1)
