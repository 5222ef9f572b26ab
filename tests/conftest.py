"""Fixtures that every test may ask for, and the rules of a run.

The costly servers live for the whole run, their contents for one test. A missing server is a failure, in CI a skipped
test is one too; a test that leaves a task behind fails; what the servers have said during a failed test stands in its
report.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import time
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support.servers import (
    Database,
    DockerEngine,
    PostgresServer,
    RedisServer,
    Run,
    StubMetrics,
    WebhookRecorder,
)

TIERS = ("unit", "property", "simulation", "integration", "faults", "e2e")
_RUN = pytest.StashKey[Run]()
_BEGUN = pytest.StashKey[float]()


# The rules of a run

# No deadline an example: on a machine that is shared, time says nothing of a rule. The blob replays a failure.
hypothesis.settings.register_profile("prep", deadline=None, print_blob=True)
hypothesis.settings.load_profile("prep")


def pytest_configure() -> None:
    """A terminated run (a cancelled job of CI) cleans up as an interrupted one does."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt(f"signal {number}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The quick tiers first; `-m "not docker"` and `-m "not e2e"` choose by what a test needs.

    In several processes the slow tiers come first: begun last, a slow file would keep one process busy alone.
    """
    items.sort(key=_tier, reverse="PYTEST_XDIST_WORKER" in os.environ)
    for item in items:
        if "docker_engine" in getattr(item, "fixturenames", ()):
            item.add_marker("docker")
        if TIERS[_tier(item)] == "e2e":
            item.add_marker("e2e")


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> str | None:
    """Before a campaign: how long it may take, by what each of its tests allows itself."""
    budgets = [mark.kwargs["seconds"] for item in items for mark in item.iter_markers("campaign")]
    if config.option.markexpr != "campaign" or not budgets:
        return None
    return f"campaign: {len(budgets)} tests, time budget {sum(budgets) / 60:.0f} min"


def _tier(item: pytest.Item) -> int:
    here = Path(__file__).parent
    folder = item.path.relative_to(here).parts[0] if item.path.is_relative_to(here) else ""
    return TIERS.index(folder) if folder in TIERS else 0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skip is a failure; a failure tells what the servers have said since the test began."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which counts as failed in CI: {call.excinfo and call.excinfo.value}"
    run = item.session.stash.get(_RUN, None)
    if report.failed and run is not None:
        for log in sorted(run.path.glob("*.log")):
            if log.stat().st_mtime >= item.stash.get(_BEGUN, 0.0):
                said = log.read_text(errors="replace").splitlines()[-30:]
                report.sections.append((f"{log.name}, last lines", "\n".join(said)))
    return report


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note the time, to know which logs have grown since."""
    item.stash[_BEGUN] = time.time()


@pytest.fixture(autouse=True)
def no_stray_tasks(request: pytest.FixtureRequest) -> None:
    """An asynchronous test fails when it, or a fixture of its own, leaves a task behind."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("stray_tasks")


@pytest.fixture
async def stray_tasks() -> AsyncIterator[None]:
    """What `no_stray_tasks` asks for: begun before all other fixtures, so ended after them."""
    before = asyncio.all_tasks()
    yield
    for _ in range(10):  # tasks that have been cancelled, or whose connection was closed, need a turn to end
        left = {task for task in asyncio.all_tasks() - before - {asyncio.current_task()} if not task.done()}
        if not left:
            return
        await asyncio.sleep(0.01)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    pytest.fail("left behind: " + "; ".join(sorted(repr(task) for task in left)))


# Servers


@pytest.fixture(scope="session")
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """The folder and the processes of this run; what a killed run has left behind is cleared away first."""
    run = Run.open()
    request.session.stash[_RUN] = run
    try:
        yield run
    finally:
        del request.session.stash[_RUN]
        run.close()


@pytest.fixture(scope="session")
def postgres_server(run: Run) -> PostgresServer:
    """A primary for the whole run; a test that freezes, stops or configures one starts its own."""
    return PostgresServer(run).start()


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[Database]:
    """An empty database of this test's own."""
    database = postgres_server.fresh_database()
    yield database
    database.drop()


@pytest.fixture(scope="session")
def redis_server(run: Run) -> RedisServer:
    """A Redis for the whole run; `redis` is the same one, emptied."""
    return RedisServer(run).start()


@pytest.fixture
def redis(redis_server: RedisServer) -> RedisServer:
    """The run's Redis, empty."""
    redis_server.flush()
    return redis_server


@pytest.fixture(scope="session")
def docker_engine(run: Run) -> Iterator[DockerEngine]:
    """A Docker Engine for the whole run. A test that freezes or kills one takes `DockerEngine.own(run)`."""
    engine = DockerEngine.connect(run)
    yield engine
    engine.close()


@pytest.fixture
def project(docker_engine: DockerEngine) -> Iterator[str]:
    """The name of a Compose project of this test's own; its containers are removed afterwards."""
    name = docker_engine.project()
    yield name
    docker_engine.remove_all(name)


@pytest.fixture
def metrics() -> Iterator[StubMetrics]:
    """A target whose metrics the test sets."""
    with StubMetrics() as stub:
        yield stub


@pytest.fixture
def inbox() -> Iterator[WebhookRecorder]:
    """People's inbox."""
    with WebhookRecorder() as recorder:
        yield recorder
