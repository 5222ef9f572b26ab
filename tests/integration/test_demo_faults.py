"""The drills' faults on the real platform: each is in when it says so, is bounded, and leaves nothing behind."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil
import pytest

from tests.integration.demo_platform import DATABASE, Platform, lines
from tests.support.servers import PostgresServer, RedisServer, Run, Service, fetch, wait_until

ANALYST = "usename = 'prep_analyst' and state = 'active'"


@pytest.fixture(scope="module")
def platform(run: Run, redis_server: RedisServer) -> Iterator[Platform]:
    platform = Platform(run, PostgresServer(run).start(), redis_server)
    yield platform
    platform.postgres.stop()


@pytest.fixture(autouse=True)
def _no_query_left(platform: Platform) -> Iterator[None]:
    """Whatever a test did: no session of the analyst stays."""
    yield
    platform.fault("stop-queries")
    wait_until(lambda: not platform.postgres.backends("usename = 'prep_analyst'"), "the sessions to be gone")


def session(platform: Platform, query: Service) -> list[str]:
    """(application_name, has written, same start as told) of the fault's session, once its query runs."""
    told = lines(query)[0]
    text = (
        "select application_name, backend_xid is not null, backend_start = '{}'::timestamptz"
        " from pg_stat_activity where pid = {} and {} and query ~ 'generate_series'"
    ).format(told["backend_start"], told["pid"], ANALYST)
    return wait_until(lambda: platform.sql(text), "the query to run", seen=query.tail)[0]


def signal(platform: Platform, how: str, query: Service) -> None:
    """What the remediator does, with its role."""
    session(platform, query)
    assert platform.sql(f"select pg_{how}_backend({lines(query)[0]['pid']})", "remediator") == [["t"]]


def test_the_runaway_query_burns_a_core_and_reads_only(platform: Platform) -> None:
    """A client session of the analyst's, no transaction id, no wait, no temporary files, one core; cancel ends it."""
    query = platform.start_fault("runaway-query")
    assert session(platform, query) == ["adhoc-report", "f", "t"]
    backend = psutil.Process(lines(query)[0]["pid"])
    began, before = time.monotonic(), backend.cpu_times().user
    time.sleep(2.0)  # measured, not waited for
    burnt = (backend.cpu_times().user - before) / (time.monotonic() - began)
    assert burnt > 0.2, "less than a fifth of a core, even for a busy machine"
    assert platform.sql(f"select temp_files from pg_stat_database where datname = '{DATABASE}'") == [["0"]]
    signal(platform, "cancel", query)
    assert query.wait_exit() == 0
    assert lines(query)[-1]["how"] == "cancelled"


def test_variants_look_as_they_should(platform: Platform) -> None:
    """One that has written, one that looks like a backup; each ends as it is ended."""
    writer = platform.start_fault("runaway-query", "--after-write", "--seconds", "60")
    assert session(platform, writer) == ["adhoc-report", "t", "t"]
    backup = platform.start_fault("runaway-query", "--as-backup", "--seconds", "60")
    assert session(platform, backup) == ["pg_dump", "f", "t"]
    signal(platform, "terminate", writer)
    signal(platform, "cancel", backup)
    assert (writer.wait_exit(), backup.wait_exit()) == (0, 0)
    assert (lines(writer)[-1]["how"], lines(backup)[-1]["how"]) == ("terminated", "cancelled")
    assert platform.sql("select count(*) from analyst_reports") == [["0"]]


def test_one_that_ignores_a_cancel_needs_a_terminate(platform: Platform) -> None:
    """The same session (pid and backend_start) runs it again."""
    query = platform.start_fault("runaway-query", "--ignore-cancel", "--seconds", "60")
    signal(platform, "cancel", query)
    wait_until(lambda: lines(query)[-1]["event"] == "cancelled", "the cancel to be told", seen=query.tail)
    assert session(platform, query) == ["adhoc-report", "f", "t"]
    signal(platform, "terminate", query)
    assert query.wait_exit() == 0
    assert (lines(query)[-1]["how"], lines(query)[-1]["cancels"]) == ("terminated", 1)


def test_a_query_ends_by_itself_and_with_its_process(platform: Platform) -> None:
    """After --seconds by the server's clock; and when the process that asked is killed, within a second or two."""
    short = platform.start_fault("runaway-query", "--seconds", "2")
    assert short.wait_exit() == 0
    assert lines(short)[-1]["how"] == "finished"
    killed = platform.start_fault("runaway-query")
    session(platform, killed)
    killed.kill()
    wait_until(lambda: not platform.postgres.backends(ANALYST), "the server to notice", 10)
    stopped = platform.start_fault("runaway-query")
    session(platform, stopped)
    assert stopped.terminate() == 0
    assert lines(stopped)[-1] == {"event": "stopped", "fault": "runaway-query"}
    wait_until(lambda: not platform.postgres.backends(ANALYST), "the server to notice", 10)


def test_a_fault_that_cannot_be_put_in_says_so(platform: Platform) -> None:
    """Exit code 1 and one object with the reason: a drill must not go on without its fault."""
    fault = platform.start_broken_fault("leak-sessions", "--seconds", "5")
    assert fault.wait_exit() == 1
    assert lines(fault)[-1]["event"] == "failed"
    assert "0 of 3 sessions lost" in lines(fault)[-1]["reason"]


def test_under_load_three_lost_sessions_make_checks_slow_until_the_restart(platform: Platform) -> None:
    """The drill of the demo: within half a minute checks take over five seconds; after a restart they do not."""
    platform.redis.flush()
    compliance, load = platform.service("compliance").start(), platform.service("load").start()
    try:
        wait_until(lambda: _finished(platform, 5) > 10, "traffic")
        assert platform.fault("leak-sessions", "--count", "3")[-1]["event"] == "leaked"
        wait_until(lambda: _p95(platform, 5) > 5, "checks to take more than 5 s", 40)
        assert _finished(platform, 5) > 5  # slow, not stalled
        again = platform.start_fault("slow-again", "--after", "12", "--within", "60")
        assert compliance.terminate(deadline=5) == 0
        compliance.start()
        wait_until(lambda: _finished(platform, 3) > 6 and _p95(platform, 3) < 1, "checks to be quick again", 15)
        assert again.wait_exit(60) == 0  # and the fault comes back
        assert lines(again)[-1]["event"] == "leaked"
        assert platform.metric("compliance", "prep_compliance_engine_sessions", state="busy") >= 3
        assert fetch(f"{platform.url('compliance')}/health").status == 200
    finally:
        load.stop()
        compliance.stop()


def _finished(platform: Platform, seconds: int) -> int:
    return int(
        platform.sql(f"select count(*) from compliance_checks where finished_at > now() - interval '{seconds} s'")[0][0]
    )


def _p95(platform: Platform, seconds: int) -> float:
    """95th percentile of the durations of checks that ended in the last `seconds`; 0 when none did."""
    text = (
        "select coalesce(percentile_cont(0.95) within group (order by extract(epoch from finished_at - created_at)), 0)"
        f" from compliance_checks where finished_at > now() - interval '{seconds} s'"
    )
    return float(platform.sql(text)[0][0])
