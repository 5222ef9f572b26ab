"""The verdict: good samples for the whole hold time, or it is not fixed."""

from __future__ import annotations

from dataclasses import replace

from remediator.events import Kind, Verdict
from remediator.ledger import Attempt
from remediator.runbooks import Proof
from remediator.verification import MOST_GAPS, Judged, judge
from remediator.world import Health, ProofLook
from tests.unit.cases import NOW, History, book, proof_look

PROOF = book().proof  # hold 2 minutes, timeout 5 minutes


def attempt(good_since: float | None = None) -> Attempt:
    """Done at NOW, target found sick before."""
    last = History().intent(NOW - 5).outcome(NOW).ledger.last
    assert last is not None
    return replace(last, good_since=good_since)


def judged(attempt: Attempt, proof: Proof, look: ProofLook) -> Judged:
    """With the round before it ten seconds ago."""
    return judge(attempt, proof, look, look.at - 10)


def test_a_stretch_in_which_nobody_looked_proves_nothing() -> None:
    """After a gap, or in a process that has not looked yet, the hold time begins anew."""
    look = proof_look(True, NOW + 200)
    for last_round in (None, NOW + 100, NOW + 1000):
        after = judge(attempt(NOW), PROOF, look, last_round)
        assert (after.verdict, after.good_since) == (None, NOW + 200)


def test_watched_with_gaps_again_and_again_is_unknown() -> None:
    """Else a proof of a remediator that is ill goes on for ever, and nobody is told."""
    broken = replace(attempt(NOW), gaps=MOST_GAPS)
    assert judge(broken, PROOF, proof_look(True, NOW + 60), NOW + 50).verdict is None, "no gap"
    after = judge(broken, PROOF, proof_look(True, NOW + 200), NOW + 50)
    assert (after.verdict, after.sentence) == (Verdict.UNKNOWN, "Good now, and 6 times not watched for the whole 2m.")
    assert judge(replace(broken, gaps=4), PROOF, proof_look(True, NOW + 200), NOW + 50).verdict is None


def test_gaps_are_counted_where_a_good_stretch_begins_anew() -> None:
    """Not where it was no more good, or not known, in between: that has an end of its own."""
    found = History().intent(NOW - 5).outcome(NOW)
    for since in (NOW, NOW + 100, NOW + 100, None, NOW + 200, NOW + 300):
        found = found.add(
            Kind.PROVING, NOW, attempt=found.ledger.attempts[-1].id, good_since=since, checks=[], probe="healthy"
        )
    assert found.ledger.attempts[-1].gaps == 2


def test_good_for_the_whole_hold_time_is_fixed() -> None:
    """Not a second earlier."""
    assert judged(attempt(NOW), PROOF, proof_look(True, NOW + 119.9)).verdict is None
    assert judged(attempt(NOW), PROOF, proof_look(True, NOW + 120)).verdict is Verdict.FIXED


def test_an_empty_answer_is_never_good() -> None:
    """No sample breaks the stretch, and at the timeout the verdict is unknown."""
    after = judged(attempt(NOW), PROOF, proof_look(None, NOW + 110))
    assert (after.verdict, after.good_since) == (None, None)
    assert judged(attempt(), PROOF, proof_look(None, NOW + 300)).verdict is Verdict.UNKNOWN


def test_the_fault_returning_within_the_hold_time_is_not_fixed() -> None:
    """Good, then bad: no need to wait for the timeout."""
    assert judged(attempt(NOW + 10), PROOF, proof_look(False, NOW + 40)).verdict is Verdict.NOT_FIXED


def test_bad_from_the_start_is_given_until_the_timeout() -> None:
    """A service needs time to come up; afterwards it is not fixed."""
    assert judged(attempt(), PROOF, proof_look(False, NOW + 299)).verdict is None
    assert judged(attempt(), PROOF, proof_look(False, NOW + 300)).verdict is Verdict.NOT_FIXED


def test_down_where_it_was_only_sick_is_worse() -> None:
    """Died instead of recovering."""
    dead = proof_look(None, NOW + 300, probe=Health.DOWN)
    assert judged(attempt(), PROOF, dead).verdict is Verdict.WORSE
    was_down = replace(attempt(), probe=Health.DOWN)
    assert judged(was_down, PROOF, dead).verdict is Verdict.NOT_FIXED


def test_good_samples_with_a_sick_direct_probe_are_bad() -> None:
    """The probe has a say of its own: samples may come from somewhere else."""
    assert judged(attempt(NOW), PROOF, proof_look(True, NOW + 120, probe=Health.SICK)).verdict is Verdict.NOT_FIXED


def test_a_good_stretch_under_way_may_run_past_the_timeout() -> None:
    """Good since just before the timeout: the hold time is still owed."""
    assert judged(attempt(NOW + 250), PROOF, proof_look(True, NOW + 310)).verdict is None
    assert judged(attempt(NOW + 250), PROOF, proof_look(True, NOW + 370)).verdict is Verdict.FIXED
