"""Why the remediator did not act: the closed set of reasons, and the refusal that carries one.

The same word is the metric label, the journal entry and the sentence in the console.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Every named reason for which nothing was done. Each has a line in docs/runbook-format.md."""

    # the alert
    NO_RUNBOOK = "no_runbook"
    NO_TARGET = "no_target"
    FOREIGN_ALERT = "foreign_alert"
    STALE_ALERT = "stale_alert"
    SETTLING = "settling"
    # the operator
    PAUSED = "paused"
    SHADOW = "shadow"
    NEEDS_APPROVAL = "needs_approval"
    DECLINED = "declined"
    # what is true now
    RULE_UNKNOWN = "rule_unknown"
    RULE_CLEARED = "rule_cleared"
    BLOCKED_BY_CAUSE = "blocked_by_cause"
    MUTED = "muted"
    ALERTMANAGER_UNREACHABLE = "alertmanager_unreachable"
    CLOCK = "clock"
    VANTAGE_DISAGREES = "vantage_disagrees"
    VANTAGE_UNKNOWN = "vantage_unknown"
    NO_EVIDENCE = "no_evidence"
    LOOK_STALE = "look_stale"
    # the target
    TARGET_UNREACHABLE = "target_unreachable"
    TARGET_NOT_ALLOWED = "target_not_allowed"
    TARGET_NOT_LABELLED = "target_not_labelled"
    TARGET_ONE_OFF = "target_one_off"
    TARGET_COUNT = "target_count"
    TARGET_GROUP = "target_group"
    TARGET_EXEC_RUNNING = "target_exec_running"
    TARGET_YOUNG = "target_young"
    TARGET_RESTARTING = "target_restarting"
    TARGET_NOT_RUNNING = "target_not_running"
    TARGET_STOPPED = "target_stopped"
    TARGET_NOT_FULL = "target_not_full"
    QUERY_HAS_WRITTEN = "query_has_written"
    QUERY_PROTECTED = "query_protected"
    REPLICA_PROMOTED = "replica_promoted"
    REPLICA_UNPROVEN = "replica_unproven"
    REPLICA_SYNCHRONOUS = "replica_synchronous"
    REPLICA_LAST = "replica_last"
    REPLICA_SLOT = "replica_slot"
    REPLICA_BUSY = "replica_busy"
    PROVIDER_FAILING = "provider_failing"
    REDIS_LOADING = "redis_loading"
    REDIS_CANNOT_SAVE = "redis_cannot_save"
    REDIS_ROLE = "redis_role"
    REDIS_AT_CAP = "redis_at_cap"
    NOTHING_TO_DO = "nothing_to_do"
    NEVER_LIST = "never_list"
    # the limits
    COOLDOWN = "cooldown"
    RATE_LIMIT = "rate_limit"
    TARGET_BUSY = "target_busy"
    TARGET_IN_DOUBT = "target_in_doubt"
    STORM = "storm"
    RELEASING = "releasing"
    RECURRENCE = "recurrence"
    # the remediator's own footing
    RECOVERING = "recovering"
    JOURNAL_REGRESSED = "journal_regressed"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A decision not to act.

    `sentence` tells a person why, with the value that decided; `earliest` is the UNIX second at which it is
    worth deciding again, None when that is not known (then at most 60 s later).
    """

    reason: Reason
    sentence: str
    earliest: float | None = None
