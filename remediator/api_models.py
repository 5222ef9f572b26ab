"""What comes into the JSON API and goes out of it, as models.

Bodies and words of people are validated by them; answers are only described, and a test compares real ones with the
description. Times are UNIX seconds by the journal's clock. `remediator.openapi` makes the document of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, TypeAdapter

from remediator.events import Kind, Verdict
from remediator.journal.values import Demotion, Pause, Running, Storm
from remediator.reasons import Reason
from remediator.runbooks import Mode, Strict
from remediator.shadow import Came, Wrong

MOST_PAUSE = 30 * 86400.0  # seconds; longer is a change of configuration
# Control characters are those of 8-bit terminals too; a line that begins with a space would look empty.
_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
_SPACE = r"\x20\xa0\u1680\u2000-\u200a\u202f\u205f\u3000"
Said = Annotated[str, StringConstraints(max_length=500, pattern=f"^[^{_CONTROL}{_SPACE}][^{_CONTROL}]*$")]
"""A person's words: one line that begins with no space, without control characters."""
SAID: TypeAdapter[str] = TypeAdapter(Said)
Scope = Annotated[
    str,
    StringConstraints(
        max_length=300,
        pattern=rf"^(all|runbook:[a-z][a-z0-9-]+|service:[A-Za-z0-9._-]+|resource:[a-z]+:[^{_CONTROL}{_SPACE}]+)$",
    ),
]
"""What a pause stops: everything, one runbook, alerts of one service, or one resource as attempts name it."""
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12,64}$")]
"""The beginning of a digest, at least 12 digits: what a person compares by eye."""


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
"""Of an action, a service, a runbook or a parameter."""


# -- bodies -------------------------------------------------------------------------------------------


class NewPause(Strict):
    """Body of POST /api/v1/pauses."""

    scope: Scope = "all"
    who: Said | None = None
    reason: Said
    for_seconds: float | None = Field(default=None, gt=0, le=MOST_PAUSE, allow_inf_nan=False)


class Settle(Strict):
    """Body of POST /api/v1/doubts/{attempt}/settle: what a person saw at the target."""

    settlement: Literal["done", "not_done"]
    who: Said | None = None
    reason: Said


class Yes(Strict):
    """Body of an approval: of what, as seen, and why."""

    digest: Digest
    who: Said | None = None
    reason: Said | None = None


class Decline(Strict):
    """Body of a decline. The reason is what the next one on call will want to know."""

    digest: Digest
    who: Said | None = None
    reason: Said


class Because(Strict):
    """Body of a decision that only needs its reason. `who` counts for a shared token only."""

    who: Said | None = None
    reason: Said


class Promote(Strict):
    """Body of a promotion. `despite` says why, although the shadow report does not support it."""

    to: Literal["approve", "auto"]
    who: Said | None = None
    reason: Said
    despite: Said | None = None


class Wish(Strict):
    """Body of a preview: an action, and what it is to be done to.

    `runbook` names the one that proves it, where several have the action; `params` beside the runbook's own.
    """

    action: Name
    service: Name
    # pydantic says by a pattern which names there may be, and JSON Schema allows every other beside it.
    params: Annotated[
        Mapping[Name, str | int | float | bool], Field(json_schema_extra={"additionalProperties": False})
    ] = {}
    runbook: Name | None = None


class NewCommand(Wish):
    """Body of a command: done once, if the preview has still this digest and no limit forbids it.

    `break_glass` passes pauses, storms and limits, needs the role admin, and is told to everyone with its reason.
    """

    digest: Digest
    who: Said | None = None
    reason: Said
    break_glass: bool = False


# -- answers ------------------------------------------------------------------------------------------


class Problem(Strict):
    """Why not: `code` is a short closed word for programs, `do` the way out."""

    code: str
    message: str
    do: str


class Refused(Strict):
    """Every answer that is not a yes."""

    error: Problem


class Episode(Strict):
    """The index entry of an episode. `due_at`, `owner` and `claims` are null, null and 0 once it is closed."""

    id: str
    alert: str
    key: str
    runbook: str | None
    severity: str | None
    firing: bool
    opened_at: float
    closed_at: float | None
    due_at: float | None
    owner: str | None
    claims: int
    refused: str | None


class EpisodeSummary(Episode):
    """`why` says in a sentence where it stands."""

    why: str


class Episodes(Strict):
    """The newest last."""

    episodes: tuple[EpisodeSummary, ...]


class EventLine(Strict):
    """One line of an episode; `data` depends on `kind`, `sentence` says it to people."""

    seq: int
    at: float
    kind: Kind
    sentence: str
    data: Mapping[str, Any]


class EpisodeStory(Strict):
    """One episode with all its events in order. `not_acted` says why nothing was done; null when something was.

    `not_taken` are clicks of people about it that were refused or came second; they are no events of the episode.
    """

    episode: Episode
    why: str
    not_acted: str | None
    events: tuple[EventLine, ...]
    not_taken: tuple[EventLine, ...]


class JournalLine(EventLine):
    """An event with its episode: together with `seq` they are its name. `id` is its writer's."""

    episode: str
    id: str


class JournalPart(Strict):
    """`next` is the next `after`; null while the journal is empty."""

    events: tuple[JournalLine, ...]
    next: str | None


class Doubt(Strict):
    """An attempt that may have taken effect and is not running any more."""

    attempt: str
    episode: str
    action: str
    resource: str
    summary: str
    at: float
    detail: str


class Doubts(Strict):
    """Those that a person or the target has to settle."""

    doubts: tuple[Doubt, ...]


class Question(Strict):
    """What waits for a person: what would be done, to what, and until when an answer is good."""

    id: str
    episode: str
    alert: str
    runbook: str | None
    severity: str | None
    rung: str
    action: str
    resource: str
    summary: str
    items: tuple[Mapping[str, Any], ...]
    digest: str
    asked_at: float
    good_until: float
    persons: int
    approved_by: tuple[str, ...]


class Questions(Strict):
    """The oldest first; `now` by the journal's clock."""

    approvals: tuple[Question, ...]
    now: float


class Answering(Strict):
    """The answer is taken; the episode's owner journals it and looks at everything again."""

    status: Literal["accepted"]
    episode: str
    approval: str


class Against(Strict):
    """One of the target's own reasons not to."""

    reason: str
    sentence: str


class Previewed(Strict):
    """What a command would do now. With `refusals` it would be refused: no glass is before the target's own reasons."""

    action: str
    runbook: str
    resource: str
    summary: str
    items: tuple[Mapping[str, Any], ...]
    refusals: tuple[Against, ...]
    digest: str


class Commanded(Strict):
    """It is taken as an episode of its own, which tells what came of it."""

    status: Literal["accepted"]
    episode: str


class StormEnded(Strict):
    """What it held back is released one after the other."""

    status: Literal["ended"]


class Restored(Strict):
    """The runbook does what its mode says again."""

    status: Literal["restored"]
    runbook: str


class Seal(Strict):
    """A seal over some of the journal's events. `at` UNIX seconds."""

    number: int
    digest: str
    at: float


class Verification(Strict):
    """Each difference between the events, what was charged and what was sealed; none is what it should be.

    seal      the last one that was looked at
    next      the next `after`; null at the end
    unsealed  events that no seal holds yet; each minute they get one
    """

    problems: tuple[str, ...]
    seal: Seal | None
    next: str | None
    unsealed: int


class Settling(Strict):
    """The word is taken; the episode's owner journals it."""

    status: Literal["accepted"]
    episode: str
    attempt: str


class Pauses(Strict):
    """Those in force."""

    pauses: tuple[Pause, ...]


class Paused(Strict):
    """It holds for every replica; what runs already cannot be stopped."""

    pause: Pause
    running: tuple[Running, ...]


class Resumed(Strict):
    """The number of the pause that ended."""

    resumed: int


class RunbookLine(Strict):
    """A runbook as it is loaded."""

    name: str
    digest: str
    mode: Mode


class Status(Strict):
    """What it is, what it may do, and what needs a person."""

    version: str
    environment: str
    mode: Mode
    config_digest: str
    now: float
    runbooks: tuple[RunbookLine, ...]
    episodes_open: int
    doubts: tuple[Doubt, ...]
    pauses: tuple[Pause, ...]
    storm: Storm | None
    demoted: tuple[Demotion, ...]
    approvals_waiting: int
    running: tuple[Running, ...]
    dead_letters: Mapping[str, int]


class Held(Strict):
    """A guardrail's no, as it was given: `reason` is one of the closed set, the sentence has the value that decided."""

    at: float
    reason: str
    sentence: str


class Proposed(Strict):
    """What would have been done (`mode` shadow), was asked for (approve) or was done (auto); `step` 0: not known."""

    at: float
    mode: Mode
    rung: str
    step: int
    steps: int
    action: str
    resource: str
    summary: str


class AgainstIt(Strict):
    """What speaks against it afterwards."""

    kind: Wrong
    at: float
    detail: str


class SeenEpisode(Strict):
    """One episode, looked back at: docs/trust-by-steps.md says what each counts. `said` is all of it in sentences."""

    id: str
    alert: str
    runbook: str
    target: Mapping[str, str]
    opened_at: float
    ended_at: float | None
    answers: tuple[Held, ...]
    proposal: Proposed | None
    came: Came
    came_after: float | None
    back_after: float | None
    person: str
    verdict: Verdict | None
    approved_by: tuple[str, ...]
    limit: Reason | None
    judged: bool
    against: tuple[AgainstIt, ...]
    said: tuple[str, ...]


class TurnLine(Strict):
    """How a runbook climbed or fell."""

    at: float
    change: Literal["promoted", "demoted", "restored"]
    sentence: str


class RunbookRecord(Strict):
    """What a runbook is ready for (`shadow`: not yet), what is missing for more, and the evidence."""

    runbook: str
    mode: Mode | None
    episodes: int
    others: int
    first_at: float | None
    last_at: float | None
    proposals: int
    limited: int
    judged: int
    days: int
    wrong: int
    wrong_by: Mapping[str, int]
    may_be: float
    came: Mapping[str, int]
    came_back: int
    fixed: int
    approved: int
    refused: Mapping[str, int]
    recurrence: int
    acted: int
    failed: int
    demoted: str | None
    turns: tuple[TurnLine, ...]
    ready: Mode
    missing: Mapping[str, tuple[str, ...]]
    said: tuple[str, ...]


class ShadowReport(Strict):
    """What would have been done and what really came. `cut`: there were more episodes than are looked at."""

    now: float
    since: float
    unreadable: int
    cut: bool
    numbers: Mapping[str, float]
    meaning: tuple[str, ...]
    runbooks: tuple[RunbookRecord, ...]
    episodes: tuple[SeenEpisode, ...]


class PromotionNoted(Strict):
    """It is in the journal. It holds once the configuration says so and was reloaded."""

    status: Literal["noted"]
    runbook: str
    was: Mode
    to: Mode


class Document(Strict):
    """This document; OpenAPI 3.1."""

    openapi: str
    info: Mapping[str, Any]
    paths: Mapping[str, Any]
    components: Mapping[str, Any]
    security: tuple[Mapping[str, Any], ...]
