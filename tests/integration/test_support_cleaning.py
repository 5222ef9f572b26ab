"""A run of the tests leaves nothing behind, killed or not, and never touches what is not its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.processes import Identity
from tests.support.run import MARKER, sweep
from tests.support.servers import DockerEngine, MissingProgram, RedisServer, Run, program, wait_until

CHECKOUT = Path(__file__).parents[2]

VICTIM = """
import sys, time
from pathlib import Path
from tests.support.servers import DockerEngine, PostgresServer, RedisServer, Run
run = Run.open(Path(sys.argv[1]))
postgres = PostgresServer(run).start()
postgres.freeze()
redis = RedisServer(run).start()
shared = DockerEngine(run, sys.argv[2], None)
shared.service_container(sys.argv[3], "payments")
own = DockerEngine.own(run)
inside = own.service_container("victim", "payments")
print(run.path, postgres.pid, redis.pid, own.daemon.pid, inside.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder for runs, short enough for the sockets below it."""
    path = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.mark.timeout(180)
def test_what_a_killed_run_leaves_is_cleared_by_the_next(base: Path, docker_engine: DockerEngine, project: str) -> None:
    """Frozen servers, an engine with a container in it, a container on a shared engine, mounts, folders: all gone."""
    victim = subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(base), docker_engine.host, project],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert victim.stdout is not None
    words = victim.stdout.readline().split()
    victim.kill()
    victim.wait(10)
    victim.stdout.close()
    path, left = Path(words[0]), [Identity.of(int(pid)) for pid in words[1:]]
    assert None not in left  # they outlive the run that was killed
    assert mounted_below(path)
    assert docker_engine.client.containers.list(filters={"label": f"com.docker.compose.project={project}"})

    Run.open(base).close()  # the next run

    assert not [process for process in left if process is not None and process.alive]
    assert not processes.carrying(f"{MARKER}={path}")
    assert not mounted_below(path)
    assert not path.exists()
    assert not docker_engine.client.containers.list(
        all=True, filters={"label": f"com.docker.compose.project={project}"}
    )


STARTING = """
import sys
from pathlib import Path
from tests.support.servers import DockerEngine, PostgresServer, RedisServer, Run
run = Run.open(Path(sys.argv[1]))
print(run.path, flush=True)
while True:
    RedisServer(run).start()
    PostgresServer(run).start().replica()
    engine = DockerEngine.own(run)
    engine.service_container("victim", "payments")
"""


@pytest.mark.parametrize("seconds", [0.05, 0.3, 0.9, 1.6, 2.6])
def test_a_run_killed_while_it_starts_its_servers_is_cleared_too(base: Path, seconds: float) -> None:
    """Whatever was half begun (initdb, a base backup, a dockerd that does not answer yet) ends, and the folder goes."""
    victim = subprocess.Popen(
        [sys.executable, "-c", STARTING, str(base)],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert victim.stdout is not None
    path = Path(victim.stdout.readline().strip())
    with pytest.raises(subprocess.TimeoutExpired):
        victim.wait(seconds)
    victim.kill()
    victim.wait(10)
    victim.stdout.close()
    begun = [Identity.parse(line.split(" ", 2)[2]) for line in (path / "record").read_text().splitlines()]

    assert sweep(base) == [path.name]

    assert not [process for process in begun if process.alive]
    assert not processes.carrying(f"{MARKER}={path}")
    assert not mounted_below(path)
    assert not path.exists()


def mounted_below(path: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {path}/" in line]


def test_a_living_run_is_let_be(base: Path) -> None:
    """Two runs at once: the second's start and end do nothing to the first."""
    first = Run.open(base)
    redis = RedisServer(first).start()
    second = Run.open(base)
    assert sweep(base) == []
    second.close()
    assert redis.command("PING")
    first.close()
    assert not redis.alive
    assert [path.name for path in base.iterdir()] == ["lock"]


def test_a_process_that_was_given_the_same_id_is_let_be(base: Path) -> None:
    """A recorded id whose process began at another time belongs to somebody else."""
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        run = Run.open(base)
        stat = Path(f"/proc/{stranger.pid}/stat").read_text().split()
        stat[21] = str(int(stat[21]) - 1)
        (run.path / "record").write_text(f"process SIGKILL {' '.join(stat)}\n")
        run.close()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_records_of_another_boot_mean_nothing(base: Path) -> None:
    """After the machine was started anew, ids and start times may name anybody: only the folder goes."""
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        run = Run.open(base)
        (run.path / "boot").write_text("another")
        stat = Path(f"/proc/{stranger.pid}/stat").read_text()
        (run.path / "record").write_text(f"process SIGKILL {stat}\n")
        run.close()
        assert stranger.poll() is None
        assert not run.path.exists()
    finally:
        stranger.kill()
        stranger.wait()


def test_a_folder_that_others_can_write_to_is_refused(base: Path) -> None:
    """Else somebody could have the next run end processes and remove folders of their choice."""
    base.chmod(0o777)
    with pytest.raises(PermissionError, match="remove it"):
        Run.open(base)
    base.chmod(0o700)


def test_a_missing_server_says_what_to_do() -> None:
    """A failure with the way out, never a skip."""
    with pytest.raises(MissingProgram, match="make setup"):
        program("prep-no-such-server")


RULES = """
import asyncio, os, pytest, time
from pathlib import Path

async def test_leaves_a_task():
    asyncio.create_task(asyncio.sleep(30), name="stray")

async def test_ends_its_tasks():
    task = asyncio.create_task(asyncio.sleep(0))
    await task

def test_warns():
    import warnings
    warnings.warn("old", DeprecationWarning)

@pytest.mark.skipif(True, reason="no such server")
def test_is_skipped():
    pass

def test_with_a_server(run):
    (run.path / "redis-1.log").write_text("out of memory, says redis")
    assert False
"""


def pytest_in(folder: Path, text: str, *options: str, **env: str) -> subprocess.Popen[str]:
    """Begin a pytest with our rules on one file of its own."""
    (folder / "conftest.py").write_text("from tests.conftest import *\n")
    (folder / "test_rules.py").write_text(text)
    clean = {key: value for key, value in os.environ.items() if key not in {"CI", "PYTEST_CURRENT_TEST"}}
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "pytest",
            "-c",
            str(CHECKOUT / "pytest.ini"),
            "-p",
            "no:cacheprovider",
            *options,
            str(folder),
        ],
        cwd=CHECKOUT,
        env={**clean, "PYTHONPATH": str(CHECKOUT), "TMPDIR": str(folder), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_stray_tasks_warnings_and_skips_fail_a_run(base: Path) -> None:
    """The rules that `tests/conftest.py` promises, as CI would see them."""
    said, _ = pytest_in(base, RULES, CI="true").communicate(timeout=60)
    assert "ERROR test_rules.py::test_leaves_a_task - Failed: left behind: <Task cancelled name='stray'" in said, said
    assert "DeprecationWarning: old" in said
    assert "skipped, which counts as failed in CI" in said
    assert "out of memory, says redis" in said
    assert "2 failed, 2 passed, 2 errors" in said, said


def test_a_skip_is_a_skip_outside_ci(base: Path) -> None:
    """A person who works on something else is not stopped."""
    said, _ = pytest_in(base, RULES, "-k", "skipped").communicate(timeout=60)
    assert "1 skipped" in said


WAITS = """
import time
from pathlib import Path
from tests.support.servers import RedisServer

def test_waits(run):
    redis = RedisServer(run).start()
    Path(__file__).with_name("pid").write_text(str(redis.pid))
    time.sleep(60)
"""


def test_a_terminated_run_cleans_up_itself(base: Path) -> None:
    """SIGTERM, as a cancelled job of CI gets it: the servers end before pytest does."""
    running = pytest_in(base, WAITS)
    note = base / "pid"
    try:
        pid = int(wait_until(lambda: note.exists() and note.read_text(), "the test's server", 30) or 0)
        server = Identity.of(pid)
        running.send_signal(signal.SIGTERM)
        said, _ = running.communicate(timeout=30)
    finally:
        running.kill()
        running.communicate()
    assert server is not None and not server.alive, said
    assert not list(base.glob("prep-ops-tests-*/r*")), said
