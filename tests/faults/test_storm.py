"""Promises with numbers: what a storm of alerts costs and starts, and how long one alert takes when there is none.

The process as it ships, its journal on SQLite on the disk; effects are counted, and timed, at the target. The tests run
alone on the machine, and allow FACTOR of what `bench/` holds: with 1.5 the answers of one run here were too late.
"""

from __future__ import annotations

import statistics
from collections import Counter

import pytest

from tests.support.crowded_world import CrowdedWorld, one_by_one
from tests.support.load import fire
from tests.support.processes import peak_memory
from tests.support.remediation import TOKEN
from tests.support.servers import Run, wait_until

pytestmark = pytest.mark.e2e

FACTOR = 3.0
POSTS, ALERTS, TARGETS, AT_ONCE = 1000, 10, 200, 64
STORM, STARTS = 10, 10  # guards.storm_episodes and guards.all_per_hour as they ship
PER_SECOND, P99, MEGABYTES = 1000, 0.150, 150
EFFECTS, MEDIAN, SLOW = 100, 0.050, 0.200  # seconds


def test_a_storm_is_acknowledged_and_starts_next_to_nothing(run: Run) -> None:
    """1,000 deliveries of 10 alerts over 200 targets, 64 at once: all durable and quick; the targets hardly notice."""
    with CrowdedWorld(run, TARGETS) as world:
        ours = world.remediator(settle="1s", storm_episodes=STORM, all_per_hour=STARTS)
        with ours:
            header = {"Authorization": f"Bearer {TOKEN}"}
            loaded = fire(f"{ours.url}/alertmanager", world.bodies(POSTS, ALERTS), AT_ONCE, header)
            assert loaded.statuses == {200: POSTS}
            wait_until(lambda: world.decided(ours) >= TARGETS, "a decision about every target", 60, 0.2)
            assert len(world.restarts()) <= STARTS
            wait_until(lambda: world.inbox.alerts("/people"), "the page", 30, 0.2)
            told = {str(sorted(each["labels"].items())) for each in world.inbox.alerts("/people")}
            assert len(told) == 1, "one page, whatever the number of episodes"
            assert "RemediationStorm" in told.pop()
            fates = Counter(world.accounted(ours).values())
            assert set(fates) <= {"acted", "storm"}
            assert fates.total() == TARGETS
            assert peak_memory(ours.process.pid) < MEGABYTES * 1e6
    assert loaded.per_second > PER_SECOND / FACTOR
    assert loaded.percentile(99) < P99 * FACTOR


def test_from_post_to_effect(run: Run) -> None:
    """Settle time 0, all else on, the second look too: one effect a target, soon."""
    with CrowdedWorld(run, EFFECTS) as world:
        ours = world.remediator(settle="0s", storm_episodes=10 * EFFECTS, all_per_hour=10 * EFFECTS)
        with ours:
            sent = {service: at for service, (at, _) in one_by_one(world, ours)}
            took = [restart.at - sent[restart.service] for restart in world.restarts()]
            assert Counter(restart.service for restart in world.restarts()) == Counter(world.names)
    assert statistics.median(took) < MEDIAN * FACTOR
    assert statistics.quantiles(took, n=100)[98] < SLOW * FACTOR
