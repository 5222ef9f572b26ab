"""Was it fixed? The verdict from one round of proof after another. Pure.

A proof is a set of queries that must *return samples*: empty, NaN or stale is unknown and never good, since a
dead service has no slow requests. All of them, and the direct probe, must be good without a break for the hold
time.
"""

from __future__ import annotations

from dataclasses import dataclass

from remediator.durations import human
from remediator.events import Verdict
from remediator.ledger import Attempt
from remediator.runbooks import Proof
from remediator.world import Health, ProofLook

SLACK = 10.0  # seconds that a round of proof may take itself
MOST_GAPS = 5  # in one proof: whoever looks is ill, and people must look instead


@dataclass(frozen=True, slots=True)
class Judged:
    """verdict None = go on looking; `good_since` is what the next round starts from."""

    verdict: Verdict | None
    good_since: float | None
    sentence: str


def state(look: ProofLook, proof: Proof) -> bool | None:
    """One round: True all good, False something is bad for certain, None nothing bad but not all known."""
    answers = [check.good for check in look.checks]
    if proof.probe:
        answers.append({Health.HEALTHY: True, Health.UNKNOWN: None}.get(look.probe, False))
    if False in answers:
        return False
    return None if None in answers else True


def judge(attempt: Attempt, proof: Proof, look: ProofLook, last_round: float | None) -> Judged:
    """The verdict after this round, if there is one yet. `last_round` is when the round before was asked.

    - good for `hold` seconds without a break: fixed;
    - bad after it had been good: the fault returned within the hold time: not_fixed;
    - at `timeout` after the effect: worse when the target is down and was not before, not_fixed when
      something is bad, unknown otherwise. A good stretch under way at the timeout may run to its end.

    A stretch in which nobody looked proves nothing: after a gap it begins anew. Which replica looked does not matter.
    At the sixth gap it is unknown.
    """
    good = state(look, proof)
    if good:
        watched = last_round is not None and abs(look.at - last_round) <= 2 * proof.every + SLACK
        since = attempt.good_since if attempt.good_since is not None and watched else look.at
        if look.at - since >= proof.hold:
            return Judged(Verdict.FIXED, since, f"All checks good for {human(look.at - since)}: {describe(look)}.")
        if attempt.good_since not in (None, since) and attempt.gaps >= MOST_GAPS:
            sentence = f"Good now, and {attempt.gaps + 1} times not watched for the whole {human(proof.hold)}."
            return Judged(Verdict.UNKNOWN, None, sentence)
        return Judged(None, since, f"Good for {human(look.at - since)} of {human(proof.hold)}.")
    if good is False and attempt.good_since is not None:
        after = human(look.at - attempt.good_since)
        return Judged(
            Verdict.NOT_FIXED, None, f"Good for {after}, then bad again within the hold time: {describe(look)}."
        )
    if look.at < attempt.effect_at + proof.timeout:
        return Judged(None, None, f"Not proven yet: {describe(look)}.")
    waited = human(look.at - attempt.effect_at)
    if look.probe is Health.DOWN and attempt.probe is not Health.DOWN:
        return Judged(
            Verdict.WORSE,
            None,
            f"The target was not down before and is down {waited} after the action: {describe(look)}.",
        )
    if good is False:
        return Judged(Verdict.NOT_FIXED, None, f"Still bad {waited} after the action: {describe(look)}.")
    return Judged(Verdict.UNKNOWN, None, f"No proof within {waited}: {describe(look)}.")


def describe(look: ProofLook) -> str:
    """The round in a few words: every check that is not good, or all of them when all are."""
    open_checks = [check for check in look.checks if not check.good] or list(look.checks)
    words = [f"{check.name}: {check.detail}" for check in open_checks]
    why = f" ({look.probe_detail})" if look.probe is not Health.HEALTHY and look.probe_detail else ""
    return "; ".join([*words, f"direct probe {look.probe}{why}"])
