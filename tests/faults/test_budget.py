"""A fix that always works, and one that never does, on real parts: a ticket, and a runbook that only asks from then on.

Containers that count their own lives, Prometheus with the shipped rules, Alertmanager, people's inbox.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.docker_engine import DockerEngine
from tests.support.prometheus import PrometheusServer
from tests.support.remediation import ENVIRONMENT, ROOT, Remediator, World, restart_book, service_entries
from tests.support.run import Run
from tests.support.waiting import post_json, wait_until

OFTEN, HOPELESS, NEXT = "often", tuple(f"h{number}" for number in range(3)), "next"
LONGER = 2.0  # seconds for which nothing more may happen
UNLIMITED = {"cooldown": "1s", "per_hour": 1000, "per_day": 1000}


@pytest.fixture(scope="module")
def world(run: Run, docker_engine: DockerEngine) -> Iterator[World]:
    with World(run, docker_engine, [OFTEN, *HOPELESS, NEXT]) as world:
        yield world


def test_the_same_fix_again_and_again_becomes_a_ticket(world: World) -> None:
    """Restarted and proven three times; the fourth time it is left alone, and its owner gets a ticket, once."""
    service = world.service(OFTEN)
    book = restart_book([OFTEN], limits={**UNLIMITED, "recurrence": 3})
    with Remediator(world, [book], services=service_entries([service])) as ours:
        for fixes in (1, 2, 3):
            since = time.time()
            service.sicken()
            assert ours.post(OFTEN)
            ours.wait_rest(since)
            assert service.effects == fixes, ours.story()
            wait_until(lambda: all(row["closed_at"] for row in ours.episodes()), "it to be closed", 20, 0.2)
        since = time.time()
        service.sicken()
        assert ours.post(OFTEN)
        said = ours.wait_event("handed_over", since)
        assert (said["data"]["reason"], said["data"]["alertname"]) == ("recurrence", "RemediationRecurs")
        [episode] = [row["id"] for row in ours.episodes(since)]
        wait_until(lambda: world.people(episode), "people to be told", 20, 0.2, ours.story)
        assert ours.post(OFTEN)
        end = time.monotonic() + LONGER
        wait_until(lambda: time.monotonic() > end, "a while to pass", LONGER + 10, 0.2)
        assert service.effects == 3
        [ticket] = world.inbox.alerts("/people", episode=episode)
        assert (ticket["labels"]["alertname"], ticket["labels"]["severity"]) == ("RemediationRecurs", "P3")
        service.heal()


def watcher(world: World, ours: Remediator) -> PrometheusServer:
    """A Prometheus with the shipped rules that scrapes the remediator, as ours does."""
    config = {
        "global": {
            "scrape_interval": "1s",
            "scrape_timeout": "1s",
            "evaluation_interval": "1s",
            "external_labels": {"environment": ENVIRONMENT},
        },
        "scrape_configs": [
            {"job_name": "prep-remediator", "static_configs": [{"targets": [f"127.0.0.1:{ours.port}"]}]},
        ],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{world.alertmanager.port}"]}]}]},
    }
    return PrometheusServer(
        world.run, config, {"meta.rules.yml": ROOT / "alert-rules" / "meta.rules.yml"}, name="watcher"
    )


@pytest.mark.campaign(seconds=240)
@pytest.mark.timeout(240)
def test_a_runbook_that_does_not_help_only_asks(world: World) -> None:
    """Three services that a restart does not help: demoted. The next one is asked for, until a person restores it.

    Told by the shipped rule, which waits a minute, through a real Alertmanager.
    """
    hopeless, last = [world.service(name) for name in HOPELESS], world.service(NEXT)
    names = [*HOPELESS, NEXT]
    book = restart_book(names, patience=3.0)
    book["proof"] |= {
        "every": "1s",
        "checks": [{"name": "well", "query": "prep_service_sick", "by": ["service"], "below": 1}],
    }
    ours = Remediator(world, [book], services=service_entries([*hopeless, last]), guards={"budget_failures": 3})
    with ours, watcher(world, ours):
        for service in hopeless:
            since = time.time()
            service.incurable = True
            service.sicken()
            assert ours.post(service.name)
            ours.wait_event("handed_over", since)
            assert service.effects == 1
        [demoted] = [event for event in ours.ask("journal?limit=1000")["events"] if event["kind"] == "demoted"]
        assert (demoted["episode"], demoted["data"]["runbook"]) == ("remediator", "restart")
        since = time.time()
        last.sicken()
        assert ours.post(NEXT)
        ours.wait_event("needs_approval", since)
        told = wait_until(
            lambda: world.inbox.alerts("/people", alertname="RunbookDemoted"), "the shipped alert", 120, 0.5, ours.story
        )
        assert {alert["labels"]["book"] for alert in told} == {"restart"}
        assert last.effects == 0
        body = {"reason": "mended", "who": "test"}
        assert post_json(f"{ours.url}/api/v1/runbooks/restart/restore", body, ours.operator, 10).status == 200
        assert ours.post(NEXT)
        wait_until(lambda: last.effects == 1, "the next one to be restarted", 90, 0.2, ours.story)
        for service in hopeless:
            service.incurable = False
            service.heal()
