"""A PostgreSQL replica in a container of its own, of a primary on this machine: the programs are this machine's.

The container has an address in a network of the test's, as Compose's have, and `postgres` is its first process. Nothing
of an image is needed but a busybox: the server's programs and libraries are mounted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docker.errors import NotFound

from tests.support.docker_engine import RUN_LABEL, DockerEngine, ServiceContainer
from tests.support.postgres import PASSWORD, SUPERUSER, PostgresServer, server_program
from tests.support.run import Run, program
from tests.support.waiting import wait_until

PORT = 5432


def primary_of_containers(run: Run, name: str) -> PostgresServer:
    """A primary that takes connections from containers too."""
    server = PostgresServer(
        run, {"listen_addresses": "*", "wal_sender_timeout": "2s", "full_page_writes": "on"}, name=name
    )
    server.start()
    with (server.data / "pg_hba.conf").open("a") as file:
        file.write("host all all all scram-sha-256\nhost replication all all scram-sha-256\n")
    server.configure()
    return server


@contextlib.contextmanager
def network(engine: DockerEngine, name: str) -> Iterator[str]:
    """A bridge of the test's own; yields this machine's address in it."""
    made = engine.client.networks.create(name, driver="bridge", labels={RUN_LABEL: engine.run.id})
    try:
        made.reload()
        yield str(made.attrs["IPAM"]["Config"][0]["Gateway"])
    finally:
        engine.remove_all(name)
        with contextlib.suppress(NotFound):
            made.remove()


class ReplicaContainer:
    """One streaming replica; `container` counts its restarts, `sql` asks it as a superuser."""

    def __init__(
        self,
        run: Run,
        engine: DockerEngine,
        project: str,
        primary: PostgresServer,
        gateway: str,
        *,
        service: str = "postgres-replica",
        settings: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self.service = service
        self.folder = run.folder(service)
        data = self.folder / "data"
        self._copy(primary, gateway, data, settings or {})
        self.container: ServiceContainer = engine.service_container(
            project,
            service,
            command=self._command(),
            network=project,
            stop_signal="SIGINT",
            **{"stop_timeout": 1, "labels": {"prep-ops.remediate": "true"}, **options},
            binds=["/usr:/usr:ro", "/usr/lib:/lib:ro", "/usr/lib64:/lib64:ro", f"{data}:/data"],
        )
        self.wait_ready()

    @property
    def address(self) -> str:
        self.container.container.reload()
        networks = self.container.container.attrs["NetworkSettings"]["Networks"]
        return str(next(iter(networks.values()))["IPAddress"])

    @property
    def started(self) -> str:
        """When its postmaster was started, by its own word."""
        return self.value("select pg_postmaster_start_time()")

    def sql(self, text: str, user: str = SUPERUSER, password: str = PASSWORD) -> str:
        """What psql prints; AssertionError when it fails."""
        done = subprocess.run(
            [server_program("psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", self.dsn(user, password)],
            input=text,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        if done.returncode != 0:
            raise AssertionError(f"{text[:200]}: {done.stderr.strip()}")
        return done.stdout.strip()

    value = sql

    def dsn(self, user: str = SUPERUSER, password: str = PASSWORD, application: str = "test") -> str:
        return f"postgresql://{user}:{password}@{self.address}:{PORT}/postgres?application_name={application}"

    def wait_ready(self) -> None:
        def answers() -> bool:
            with contextlib.suppress(AssertionError, StopIteration):
                return self.sql("select 1") == "1"
            return False

        wait_until(answers, f"{self.service} to answer", 20, 0.1, seen=self.container.logs)

    def wait_streaming(self) -> None:
        query = "select count(*) from pg_stat_wal_receiver where status = 'streaming'"
        wait_until(lambda: self.value(query) == "1", f"{self.service} to stream", 20, 0.1, seen=self.container.logs)

    def hang_receiver(self) -> None:
        """Stop the process that receives WAL: the server answers on, and nothing reaches it any more."""
        pid = self.value("select pid from pg_stat_wal_receiver")
        # By the pid inside the container, which is the one that PostgreSQL tells.
        self.container.exec("kill", "-STOP", pid)
        old = "select clock_timestamp() - last_msg_receipt_time > interval '2.2s' from pg_stat_wal_receiver"
        wait_until(lambda: self.value(old) == "t", "its receiver to be silent for longer than its timeout", 15, 0.1)

    def promote(self) -> None:
        self.sql("select pg_promote(true, 15)")

    def _copy(self, primary: PostgresServer, gateway: str, data: Path, settings: Mapping[str, str]) -> None:
        dsn = f"host={gateway} port={primary.port} user={SUPERUSER} password={PASSWORD} application_name={self.service}"
        options = ["--write-recovery-conf", "--checkpoint=fast", "--wal-method=stream", "--no-sync"]
        subprocess.run(
            [server_program("pg_basebackup"), "-D", str(data), "-d", dsn, *options],
            capture_output=True,
            timeout=60,
            check=True,
        )
        ours = {
            "listen_addresses": "*",
            "port": str(PORT),
            "wal_receiver_timeout": "2s",
            "client_connection_check_interval": "50ms",
            **settings,
        }
        with (data / "prep-tests.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in ours.items())
        if os.geteuid() == 0:
            for path in (data, *data.rglob("*")):
                shutil.chown(path, "postgres", "postgres")

    def _command(self) -> list[str]:
        server = [server_program("postgres"), "-D", "/data"]
        if os.geteuid() != 0:
            return server
        made = (self.folder / "data").stat()
        # A chain of exec: the server itself is process 1, as in the image.
        return [program("setpriv"), f"--reuid={made.st_uid}", f"--regid={made.st_gid}", "--clear-groups", "--", *server]
