"""python-compliance on real PostgreSQL and Redis: its work, its manners under pressure, and its one real fault."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from demo.orders import SAMPLE_ORDER
from tests.integration.demo_platform import GOOD_ORDER, Platform
from tests.support.servers import PostgresServer, RedisServer, Reply, Run, Service, fetch, post_json, wait_until
from tests.support.waiting import NotInTime


@pytest.fixture(scope="module")
def platform(run: Run) -> Iterator[Platform]:
    """Servers of this module's own: some tests freeze them."""
    platform = Platform(run, PostgresServer(run).start(), RedisServer(run).start())
    yield platform
    platform.postgres.stop()
    platform.redis.stop()


@pytest.fixture
def service(platform: Platform) -> Iterator[Service]:
    """python-compliance with four sessions, on an empty table and an empty cache."""
    platform.redis.flush()
    platform.sql("truncate compliance_checks")
    service = platform.service("compliance", PREP_ENGINE_MOST_WAITING="4").start()
    yield service
    service.stop()


def pending(platform: Platform) -> int:
    return int(platform.sql("select count(*) from compliance_checks where finished_at is null")[0][0])


def busy(platform: Platform) -> float:
    return platform.metric("compliance", "prep_compliance_engine_sessions", state="busy")


def leak(platform: Platform, count: int) -> None:
    """Lose `count` sessions, as clients that hang up do."""
    assert platform.fault("leak-sessions", "--count", str(count))[-1]["sessions_lost"] == count


@contextlib.contextmanager
def waiting_checks(platform: Platform, count: int) -> Iterator[list[Future[Reply]]]:
    """Clients that have sent a check and wait for its answer."""
    with ThreadPoolExecutor(count) as pool:
        yield [pool.submit(platform.check, timeout=20.0) for _ in range(count)]


def test_a_check_is_answered_and_its_row_ends(platform: Platform, service: Service) -> None:
    """Pass and fail with the rules that were broken; the row has the same result and a plausible time."""
    good = platform.check()
    assert (good.status, good.json()["result"], good.json()["violations"]) == (201, "pass", [])
    bad = platform.check({**GOOD_ORDER, "delivery": {"minutes": 240}})
    assert (bad.json()["result"], bad.json()["violations"]) == ("fail", ["delivered-in-time"])
    rows = platform.sql(
        "select result, finished_at - created_at between '50 ms' and '2 s' from compliance_checks order by id"
    )
    assert rows == [["pass", "t"], ["fail", "t"]]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"order_ref": "a"}, 400, "rule_set: Field required"),
        ({"order_ref": "a b", "rule_set": "food-safety", "order": {}}, 400, "order_ref"),
        ({"order_ref": "a", "rule_set": "food-safety", "order": {}, "more": 1}, 400, "more"),
        ({"order_ref": "a", "rule_set": "tax", "order": {}}, 422, "there is no rule set tax"),
        ([], 400, "no JSON object"),
    ],
)
def test_what_is_no_check_is_refused_and_leaves_no_row(
    platform: Platform, service: Service, body: object, status: int, words: str
) -> None:
    """A clear answer, and nothing that waits for an end."""
    reply = post_json(f"{platform.url('compliance')}/v1/checks", body)
    assert reply.status == status
    assert words in reply.json()["error"]
    assert platform.sql("select count(*) from compliance_checks") == [["0"]]


def test_regulations_are_cached_and_the_cache_may_be_away(platform: Platform, service: Service) -> None:
    """The first look-up misses, the next hits; without Redis checks go on, and each look-up is a miss."""

    def requests(result: str) -> float:
        return platform.metric("compliance", "prep_compliance_cache_requests_total", result=result)

    platform.check()
    assert (requests("miss"), requests("hit")) == (3, 0)
    platform.check()
    assert (requests("miss"), requests("hit")) == (3, 3)
    for backend, most in ("postgres", 5), ("redis", 6):  # what the service publishes of its pools
        assert platform.metric("compliance", "prep_pool_connections_max", backend=backend) == most
        assert 1 <= platform.metric("compliance", "prep_pool_connections", backend=backend) <= most
    with platform.redis.frozen():
        assert platform.check().json()["result"] == "pass"
    assert requests("miss") == 6
    platform.redis.stop()
    try:
        assert platform.check().json()["result"] == "pass"
    finally:
        platform.redis.start()
    assert platform.check().json()["result"] == "pass"
    assert "RegEngine cache is away" in service.log_text()


def test_without_the_database_checks_are_refused_and_come_back(platform: Platform, service: Service) -> None:
    """503 at once, no crash, and the next check after PostgreSQL's restart is answered."""
    platform.postgres.stop()
    try:
        began = time.monotonic()
        assert platform.check().status == 503
        assert time.monotonic() - began < 6
        assert fetch(f"{platform.url('compliance')}/health").status == 200
    finally:
        platform.postgres.start()
    wait_until(lambda: platform.check().status == 201, "checks to be answered again")


def test_deep_health_is_a_real_check_without_a_row(platform: Platform, service: Service) -> None:
    """As slow as a check, through a session, and nothing is written."""
    answer = fetch(f"{platform.url('compliance')}/health/deep")
    assert (answer.status, answer.json()["status"], answer.json()["result"]) == (200, "ok", "pass")
    assert 0.1 < answer.json()["seconds"] < 2
    assert platform.sql("select count(*) from compliance_checks") == [["0"]]


def test_a_client_that_hangs_up_takes_a_session_with_it(platform: Platform, service: Service) -> None:
    """The fault of the demo: each lost client costs a session, the row stays open, and only a restart mends it."""
    leak(platform, 3)
    assert pending(platform) == 3
    assert platform.check().json()["result"] == "pass"  # one session is left
    sessions = fetch(f"{platform.url('compliance')}/v1/engine").json()["sessions"]
    assert sum(s["order_ref"] is not None for s in sessions) == 3
    assert service.terminate(deadline=5) == 0
    service.start()
    assert busy(platform) == 0
    assert platform.check().json()["seconds"] < 2


def test_with_all_sessions_lost_nothing_ends_and_the_queue_stays_bounded(platform: Platform, service: Service) -> None:
    """Checks wait, more than the queue holds are refused, probes are told to stay away, the process lives and stops."""
    leak(platform, 4)
    with waiting_checks(platform, 4) as waiting:
        wait_until(lambda: pending(platform) == 8, "four checks to wait")
        refused = platform.check()
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        assert platform.sql("select result from compliance_checks where finished_at is not null") == [["error"]]
        assert fetch(f"{platform.url('compliance')}/health/deep").status == 503
        assert fetch(f"{platform.url('compliance')}/health").status == 200
        assert not any(future.done() for future in waiting)
        began = time.monotonic()
        assert service.terminate(deadline=5) == 0
        assert time.monotonic() - began < 3
        assert {future.result().status for future in waiting} == {503}
    assert pending(platform) == 4  # those of the lost sessions; the waiting ones were withdrawn


def test_who_gives_up_waiting_loses_nothing(platform: Platform, service: Service) -> None:
    """A check or a probe that is given up in the queue leaves it, and its row goes: it never had a result."""
    leak(platform, 4)
    for path, body in (
        ("/v1/checks", {"order_ref": "x", "rule_set": "food-safety", "order": {}}),
        ("/health/deep", None),
    ):
        for _ in range(6):  # more than the queue has places
            with pytest.raises(TimeoutError):
                url = platform.url("compliance") + path
                fetch(url, timeout=0.3) if body is None else post_json(url, body, timeout=0.3)
    wait_until(lambda: fetch(f"{platform.url('compliance')}/v1/engine").json()["waiting"] == 0, "the queue to empty")
    wait_until(lambda: pending(platform) == 4, "the rows to be withdrawn")
    assert platform.sql("select count(*) from compliance_checks") == [["4"]]


def test_a_probe_given_up_in_its_evaluation_gives_its_session_back(platform: Platform, service: Service) -> None:
    """Looking at the service does it no harm, however impatient."""
    caught = 0
    for _ in range(8):
        with socket.create_connection(("127.0.0.1", platform.ports["compliance"])) as probe:
            probe.sendall(b"GET /health/deep HTTP/1.1\r\nHost: x\r\n\r\n")
            # On a slow machine it may begin and end between two looks.
            with contextlib.suppress(NotInTime):
                caught += wait_until(lambda: busy(platform) == 1, "the probe to be evaluated", 3, every=0.01)
    assert caught, "no probe was given up in its evaluation"
    wait_until(lambda: busy(platform) == 0, "the sessions to be free")


def test_rows_of_an_earlier_run_are_withdrawn(platform: Platform, service: Service) -> None:
    """What a killed service left open goes when it is older than any check; younger rows and results stay."""
    service.stop()
    platform.sql(
        "insert into compliance_checks (order_ref, rule_set, created_at, finished_at, result) values"
        " ('old', 's', now() - interval '10 min', null, null), ('young', 's', now(), null, null),"
        " ('done', 's', now() - interval '10 min', now(), 'pass')"
    )
    service.start()
    service.wait_log("withdrew checks")
    assert platform.sql("select order_ref from compliance_checks order by 1") == [["done"], ["young"]]


@pytest.mark.parametrize("fault", ["rule", "regulation", "no rules"])
def test_rules_that_cannot_be_understood_end_the_start(platform: Platform, fault: str) -> None:
    """Exit code 1 and one line that names the rule; the service never runs with a part of its rules."""
    service = platform.service("compliance")
    if fault == "rule":
        platform.fault("poison-rule")
        undo, words = "delete from compliance_rules where name = 'drill-poisoned-rule'", "drill-poisoned-rule"
    elif fault == "regulation":
        platform.sql("update regulations set code = 'gone' where code = 'cold-chain'")
        undo, words = "update regulations set code = 'cold-chain' where code = 'gone'", "no regulation cold-chain"
    else:
        platform.sql("update compliance_rules set enabled = false where rule_set = 'food-safety'")
        undo, words = "update compliance_rules set enabled = true", "no enabled rule of rule set food-safety"
    try:
        assert service.run_to_end() == 1
        complaints = [line for line in service.words.splitlines() if "cannot start" in line]
        assert len(complaints) == 1
        assert words in complaints[0]
        assert "Traceback" not in service.words
    finally:
        platform.sql(undo)


def test_the_sample_order_is_a_good_one(platform: Platform, service: Service) -> None:
    """What the deep probe checks passes its rules, so that a probe only fails for the engine's sake."""
    assert platform.check(SAMPLE_ORDER).json()["violations"] == []
