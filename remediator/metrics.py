"""The remediator's own metrics, `prep_remediator_*`: one registry, made by whoever starts the program.

In: calls from the intake, the engine and its loop. Out: the text of `/metrics`. Counters begin at 0 for every
label value of a closed set, so that the first event is a step a rate can see. Points in time are UNIX
seconds; ages are for PromQL. Nothing here reads the journal: the loop says what it found with `standing`.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from remediator.actions.base import Result, Settlement
from remediator.events import Event, Kind, Verdict
from remediator.journal.seals import Seal
from remediator.ledger import Ledger
from remediator.reasons import Reason
from remediator.runbooks import MODES, Runbook

DELIVERIES = (
    "stored",
    "dead_letter",
    "too_large",
    "unauthorized",
    "incomplete",
    "overloaded",
    "journal_failed",
)
"""How one POST to the webhook ended; the words of webhook.py."""
CAUSES = (
    "not_json",
    "not_an_object",
    "unknown_version",
    "bad_alerts",
    "bad_alert",
    "duplicate_keys",
    "too_large",
    "unstorable",
)
"""Why a body can never be read; the words of alerts.Unreadable, and two of intake and journal."""
INTAKE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
INTENT_BUCKETS = (
    0.01,
    0.025,
    0.05,
    0.1,
    0.2,
    0.5,
    1.0,
    2.5,
    5.0,
    15.0,
    30.0,
    60.0,
    120.0,
    300.0,
    900.0,
    3600.0,
)


@dataclass(frozen=True, slots=True)
class Standing:
    """What the journal's tables say now, read by the loop.

    oldest_due       UNIX seconds of the longest overdue work, None when nothing is overdue
    journal_room     share of the journal's file system that is free, 0 to 1; None where it is no file of ours
    sealed           the newest seal of the journal, None before the first
    oldest_unsealed  UNIX seconds at which the oldest event that no seal holds was written, None when each is in one
    """

    episodes_open: int
    doubts_open: int
    oldest_due: float | None
    pauses: int
    hold_off_until: float | None = None
    approvals_waiting: int = 0
    storm: bool = False
    demoted: frozenset[str] = frozenset()
    journal_room: float | None = None
    sealed: Seal | None = None
    oldest_unsealed: float | None = None


class _Moment(Collector):
    """A gauge that is absent while it has no value: 0 would be 1970, or full, and NaN breaks sums."""

    def __init__(self, name: str, text: str, registry: CollectorRegistry) -> None:
        self.value: float | None = None
        self._name, self._text = name, text
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        metric = Metric(self._name, self._text, "gauge")
        if self.value is not None:
            metric.add_sample(self._name, {}, self.value)
        yield metric


class _Registry(CollectorRegistry):
    """Without the `_created` series: one more per counter, and an age that PromQL knows from the counter.

    The library has a switch for that, but it is a global of the process.
    """

    def collect(self) -> Iterator[Metric]:
        for metric in super().collect():
            metric.samples = [sample for sample in metric.samples if not _is_created(metric, sample)]
            yield metric


def _is_created(metric: Metric, sample: Sample) -> bool:
    return metric.type in ("counter", "histogram") and sample.name == f"{metric.name}_created"


class Metrics:
    """All metrics of one remediator. Make one, hand it to the parts, render it."""

    def __init__(self, *, version: str, revision: str = "unknown") -> None:
        self.registry = registry = _Registry(auto_describe=True)
        self._intake(registry)
        self._work(registry)
        self._state(registry)
        self._footing(registry)
        build = Gauge(
            "prep_remediator_build_info",
            "Version of the running program, always 1.",
            ["version", "revision", "python"],
            registry=registry,
        )
        build.labels(version, revision, platform.python_version()).set(1)

    def _intake(self, registry: CollectorRegistry) -> None:
        self._deliveries = Counter(
            "prep_remediator_deliveries_total",
            "Requests to the webhook by how they ended.",
            ["result"],
            registry=registry,
        )
        self._dead_letters = Counter(
            "prep_remediator_dead_letters_total",
            "Bodies that can never be read, by cause.",
            ["cause"],
            registry=registry,
        )
        self._alerts = Counter(
            "prep_remediator_alerts_total",
            "Alerts in stored deliveries, by status.",
            ["status"],
            registry=registry,
        )
        self._truncated = Counter(
            "prep_remediator_truncated_alerts_total",
            "Alerts that Alertmanager cut off its deliveries (max_alerts).",
            registry=registry,
        )
        self._duration = Histogram(
            "prep_remediator_intake_duration_seconds",
            "From the request's head to the answer, body and durable write included.",
            buckets=INTAKE_BUCKETS,
            registry=registry,
        )
        self._batch = Histogram(
            "prep_remediator_intake_batch_deliveries",
            "Deliveries written in one transaction.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        for result in DELIVERIES:
            self._deliveries.labels(result)
        for cause in CAUSES:
            self._dead_letters.labels(cause)
        for status in ("firing", "resolved"):
            self._alerts.labels(status)

    def _work(self, registry: CollectorRegistry) -> None:
        self._refused = Counter(
            "prep_remediator_refused_total",
            "Decisions not to act, by reason (once per reason and rung).",
            ["reason"],
            registry=registry,
        )
        self._attempts = Counter(
            "prep_remediator_attempts_total",
            "Attempts by action and how they ended; in_doubt may be settled later.",
            ["action", "result"],
            registry=registry,
        )
        self._settled = Counter(
            "prep_remediator_settled_total",
            "Doubts settled by the target or a person.",
            ["settlement"],
            registry=registry,
        )
        self._verdicts = Counter(
            "prep_remediator_verdicts_total",
            "Proofs by runbook and verdict.",
            ["runbook", "verdict"],
            registry=registry,
        )
        self._would_act = Counter(
            "prep_remediator_would_act_total",
            "What a shadow would have done, by action.",
            ["action"],
            registry=registry,
        )
        self._handed_over = Counter(
            "prep_remediator_handed_over_total",
            "Episodes handed over to people, by the alert posted for them.",
            ["alert"],
            registry=registry,
        )
        self._to_intent = Histogram(
            "prep_remediator_webhook_to_intent_seconds",
            "From the first delivery of an episode to its first intent, settle time included.",
            buckets=INTENT_BUCKETS,
            registry=registry,
        )
        for reason in Reason:
            self._refused.labels(reason.value)
        for settlement in Settlement:
            self._settled.labels(settlement.value)

    def _state(self, registry: CollectorRegistry) -> None:
        """What is open, what waits, and what holds it back."""
        self._episodes = Gauge("prep_remediator_episodes_open", "Open episodes.", registry=registry)
        self._doubts = Gauge(
            "prep_remediator_doubts_open",
            "Attempts that may have taken effect, end unknown.",
            registry=registry,
        )
        self._due = _Moment(
            "prep_remediator_oldest_due_timestamp_seconds",
            "When the longest overdue work became due; absent when none is overdue.",
            registry,
        )
        self._hold_off = _Moment(
            "prep_remediator_hold_off_until_timestamp_seconds",
            "No intent before this time (unclean start, clock step); absent when there is no such reason.",
            registry,
        )
        self._approvals = Gauge(
            "prep_remediator_approvals_waiting", "Questions that wait for a person's approval.", registry=registry
        )
        self._storm = Gauge(
            "prep_remediator_storm", "1 while a storm holds and nothing is begun, else 0.", registry=registry
        )
        self._demoted = Gauge(
            "prep_remediator_runbook_demoted",
            "1 while the runbook only asks for approval because it failed too often, else 0.",
            ["runbook"],
            registry=registry,
        )
        self._books: frozenset[str] = frozenset()
        self._paused = Gauge("prep_remediator_paused", "Active pauses; 0 is not paused.", registry=registry)

    def _footing(self, registry: CollectorRegistry) -> None:
        """The journal, the loop and the configuration that it stands on."""
        self._journal_failures = Counter(
            "prep_remediator_journal_failures_total",
            "Times that the journal could not be read or written.",
            registry=registry,
        )
        self._room = _Moment(
            "prep_remediator_journal_free_ratio",
            "Share of the journal's file system that is free, 0 to 1; absent with a journal on PostgreSQL.",
            registry,
        )
        self._seals = _Moment(
            "prep_remediator_journal_seals",
            "Number of the journal's newest seal; it never goes down, or the journal was cut.",
            registry,
        )
        self._seal = _Moment(
            "prep_remediator_journal_seal_digest",
            "First 12 hex digits of the newest seal's digest, as a number: what `prepctl journal:verify --seal` takes.",
            registry,
        )
        self._unsealed = _Moment(
            "prep_remediator_journal_oldest_unsealed_timestamp_seconds",
            "When the oldest event that no seal holds was written; absent when each is in one.",
            registry,
        )
        self._mode = Gauge("prep_remediator_mode", "Mode in force, a state set.", ["mode"], registry=registry)
        self._config = Gauge(
            "prep_remediator_config_info",
            "Digest of the configuration in force, always 1.",
            ["digest"],
            registry=registry,
        )
        self._reloaded = Gauge(
            "prep_remediator_config_last_reload_successful",
            "1 when configuration and runbooks were taken over when they were last read, 0 when the former ones hold.",
            registry=registry,
        )
        self._reloaded_at = _Moment(
            "prep_remediator_config_last_reload_success_timestamp_seconds",
            "When configuration and runbooks were last taken over; the start counts.",
            registry,
        )
        self._book = Gauge(
            "prep_remediator_runbook_info",
            "Runbooks in force with their digest, always 1.",
            ["runbook", "digest"],
            registry=registry,
        )
        self._loop_at = _Moment(
            "prep_remediator_loop_last_turn_timestamp_seconds",
            "When the engine's loop last turned.",
            registry,
        )

    # -- intake -----------------------------------------------------------------------------------------

    def delivery(self, result: str, seconds: float) -> None:
        """One request to the webhook is answered; `result` is one of DELIVERIES."""
        self._deliveries.labels(result).inc()
        self._duration.observe(seconds)

    def dead_letter(self, cause: str) -> None:
        """One body can never be read. A cause that is not listed is counted as unstorable: closed labels."""
        self._dead_letters.labels(cause if cause in CAUSES else "unstorable").inc()

    def alerts(self, counts: Mapping[str, int], truncated: int) -> None:
        """Alerts of one stored delivery by status, and how many its sender cut off."""
        for status, count in counts.items():
            self._alerts.labels(status).inc(count)
        self._truncated.inc(truncated)

    def batch(self, size: int) -> None:
        """Deliveries written in one transaction."""
        self._batch.observe(size)

    def journal_failed(self) -> None:
        """The journal could not be read or written."""
        self._journal_failures.inc()

    # -- the engine -------------------------------------------------------------------------------------

    def observe(self, event: Event, ledger: Ledger) -> None:
        """An event became durable; `ledger` is the episode with it. Fits `ports.Observer`."""
        data = event.data
        match event.kind:
            case Kind.REFUSED:
                self._refused.labels(data["reason"]).inc()
            case Kind.INTENT:
                if len(ledger.attempts) == 1:
                    self._to_intent.observe(max(0.0, event.at - ledger.first_seen))
            case Kind.OUTCOME:
                action = next((a.action for a in ledger.attempts if a.id == data["attempt"]), "unknown")
                self._attempts.labels(action, data["result"]).inc()
            case Kind.SETTLED:
                self._settled.labels(data["settlement"]).inc()
            case Kind.VERDICT:
                self._verdicts.labels(ledger.runbook or "none", data["verdict"]).inc()
            case Kind.WOULD_ACT:
                self._would_act.labels(data["action"]).inc()
            case Kind.HANDED_OVER:
                self._handed_over.labels(data["alertname"]).inc()
            case _:
                pass

    # -- what stands ------------------------------------------------------------------------------------

    def configured(self, *, mode: str, digest: str, books: Iterable[Runbook], actions: Iterable[str]) -> None:
        """Configuration and runbooks were loaded: new info series replace the old, counters begin at 0."""
        for known in MODES:
            self._mode.labels(known).set(known == mode)
        self._config.clear()
        self._config.labels(digest).set(1)
        self._book.clear()
        books = tuple(books)
        self._books = frozenset(book.name for book in books)
        for book in books:
            self._demoted.labels(book.name)
            self._book.labels(book.name, book.digest()).set(1)
            for verdict in Verdict:
                self._verdicts.labels(book.name, verdict.value)
        for action in actions:
            self._would_act.labels(action)
            for result in Result:
                self._attempts.labels(action, result.value)

    def reloaded(self, at: float) -> None:
        """Configuration and runbooks were taken over, UNIX seconds."""
        self._reloaded.set(1)
        self._reloaded_at.value = at

    def reload_refused(self) -> None:
        """They had a fault; the former ones hold."""
        self._reloaded.set(0)

    def mode(self, mode: str) -> None:
        """The strictest mode among the live replicas: the one that holds."""
        for known in MODES:
            self._mode.labels(known).set(known == mode)

    def standing(self, now: Standing) -> None:
        """What the journal's tables say now."""
        self._episodes.set(now.episodes_open)
        self._doubts.set(now.doubts_open)
        self._due.value = now.oldest_due
        self._paused.set(now.pauses)
        self._approvals.set(now.approvals_waiting)
        self._storm.set(now.storm)
        for runbook in {*self._books, *now.demoted}:
            self._demoted.labels(runbook).set(runbook in now.demoted)
        self._hold_off.value = now.hold_off_until
        self._room.value = now.journal_room
        self._seals.value = None if now.sealed is None else now.sealed.number
        self._seal.value = None if now.sealed is None else now.sealed.short
        self._unsealed.value = now.oldest_unsealed

    def journal_away(self) -> None:
        """It does not answer: an age of what it holds would go on growing, whatever others have written meanwhile."""
        self._unsealed.value = None

    def turned(self, at: float) -> None:
        """The engine's loop went round, UNIX seconds."""
        self._loop_at.value = at

    def render(self, accept: str) -> tuple[bytes, str]:
        """The text of `/metrics` and its content type, by the request's `Accept` header."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type
