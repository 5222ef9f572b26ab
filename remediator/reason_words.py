"""Each reason in plain words, for somebody who has never read a runbook: it completes "nothing was done, since ...".

The sentence of a refusal has the value that decided; this has what it means. A test holds the table complete.
"""

from __future__ import annotations

from collections.abc import Mapping

from remediator.reasons import Reason

WORDS: Mapping[Reason, str] = {
    Reason.NO_RUNBOOK: "nobody has written a runbook for this alert",
    Reason.NO_TARGET: "the alert does not say which target it is about",
    Reason.FOREIGN_ALERT: "the alert belongs to another environment, job or team",
    Reason.STALE_ALERT: "the alert is too old, or its clock is wrong: by now it is a person's",
    Reason.SETTLING: "it still had time to heal by itself",
    Reason.PAUSED: "a person has paused the automation here",
    Reason.SHADOW: "it may only watch here, not act",
    Reason.NEEDS_APPROVAL: "a person must approve it first",
    Reason.DECLINED: "a person has declined it",
    Reason.RULE_UNKNOWN: "it could not be known whether the alert is still true, or what caused it",
    Reason.RULE_CLEARED: "the alert was not true any more",
    Reason.BLOCKED_BY_CAUSE: "another alert shows the cause, and treating the symptom would not help",
    Reason.MUTED: "the alert is silenced or inhibited: somebody, or another alert, has it already",
    Reason.ALERTMANAGER_UNREACHABLE: "it could not be known whether somebody has silenced the alert",
    Reason.CLOCK: "the clocks do not agree, so that nothing recent can be told from something old",
    Reason.VANTAGE_DISAGREES: "the remediator's own look at the target found it healthy",
    Reason.VANTAGE_UNKNOWN: "the remediator's own look at the target got no answer",
    Reason.NO_EVIDENCE: "what a restart would destroy could not be saved first",
    Reason.LOOK_STALE: "what was seen of the target had become too old by the moment to act",
    Reason.TARGET_UNREACHABLE: "the target, or the way to it, did not answer",
    Reason.TARGET_NOT_ALLOWED: "this target is not among those that the configuration and its rights allow",
    Reason.TARGET_NOT_LABELLED: "the container does not carry the label that allows it",
    Reason.TARGET_ONE_OFF: "a one-off container of the same service runs, a migration perhaps",
    Reason.TARGET_COUNT: "the service has another number of containers than it should",
    Reason.TARGET_GROUP: "too few of the service's other containers are healthy to do without this one",
    Reason.TARGET_EXEC_RUNNING: "somebody is working inside the container",
    Reason.TARGET_YOUNG: "the container was started a moment ago: somebody is working on it",
    Reason.TARGET_RESTARTING: "the container is being restarted, or was by somebody else",
    Reason.TARGET_NOT_RUNNING: "the container does not run, and starting it is another matter than restarting it",
    Reason.TARGET_STOPPED: "somebody may have stopped the container on purpose",
    Reason.TARGET_NOT_FULL: "the disk that would be cleaned has room: another one is full",
    Reason.QUERY_HAS_WRITTEN: "the query has changed data, and ending it would undo that work",
    Reason.QUERY_PROTECTED: "the query belongs to a backup, a replica or another program that is never disturbed",
    Reason.REPLICA_PROMOTED: "the replica takes writes: it is no replica any more",
    Reason.REPLICA_UNPROVEN: "it is not certain that this container is the replica that the settings mean",
    Reason.REPLICA_SYNCHRONOUS: "the primary's commits may be waiting for this replica",
    Reason.REPLICA_LAST: "too few other replicas would be left",
    Reason.REPLICA_SLOT: "the replica could lose its place in the primary's log and not come back",
    Reason.REPLICA_BUSY: "a backup or another reader is at work on this replica, or somebody has paused it",
    Reason.PROVIDER_FAILING: "the payment provider itself is failing, so that a retry would fail too",
    Reason.REDIS_LOADING: "Redis is reading or writing its data and will come by itself",
    Reason.REDIS_CANNOT_SAVE: "Redis cannot write to its disk: the disk is ill, and not Redis",
    Reason.REDIS_ROLE: "this Redis has replicas or is one, and a restart could empty them too",
    Reason.REDIS_AT_CAP: "Redis may not get more memory than it has, or its limit cannot be known",
    Reason.NOTHING_TO_DO: "nothing was found that could be acted on",
    Reason.NEVER_LIST: "this target is one that is never touched",
    Reason.COOLDOWN: "this target was acted on a short while ago",
    Reason.RATE_LIMIT: "it has been done as often as it may be within an hour or a day",
    Reason.TARGET_BUSY: "another episode has this target: it acts there, or people have it in hand",
    Reason.TARGET_IN_DOUBT: "it is still open whether an earlier action on this target happened",
    Reason.STORM: "too much is failing at once: that has one cause, and people must find it",
    Reason.RELEASING: "after a storm or a pause it goes one after the other, and another one is first",
    Reason.RECURRENCE: "the same fix was needed too often lately: it hides a cause",
    Reason.RECOVERING: "the remediator itself has just come back and waits until nothing of before can be under way",
    Reason.JOURNAL_REGRESSED: "the remediator's records have lost something, and a person must look first",
}


def words(reason: str) -> str:
    """What a reason means; a word of a newer or older program is its own meaning."""
    return WORDS[Reason(reason)] if reason in Reason.__members__.values() else reason.replace("_", " ")
