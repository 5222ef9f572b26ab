"""Real PostgreSQL servers for tests: a primary with template databases, and streaming replicas of it.

Durability against a crash of the *machine* is switched off (fsync), against a crash of the *server* it is kept: kill -9
loses nothing that was committed. Passwords are asked on 127.0.0.1 (scram), and there is no Unix socket.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote

from tests.support.daemon import Daemon, write_config
from tests.support.run import MissingProgram, Run, program
from tests.support.waiting import free_port, wait_until

SUPERUSER = "postgres"
PASSWORD = "superuser-of-the-tests"

# Small and quick to start; each may be overridden. Names: PostgreSQL 15 manual, chapter 20.
_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "60",
    "shared_buffers": "16MB",
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "replica",
    "wal_keep_size": "64MB",
    "max_wal_senders": "6",
    "max_wal_size": "256MB",
    "log_line_prefix": "%m [%p] %q%u@%d %a ",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "lc_messages": "C",
}


class SqlFailed(AssertionError):
    """psql ended with an error; the message is PostgreSQL's own."""


@dataclass(frozen=True, slots=True)
class Database:
    """A database of its own for one test."""

    server: PostgresServer
    name: str

    def dsn(self, user: str = SUPERUSER, password: str = PASSWORD, scheme: str = "postgresql") -> str:
        """Its address; `scheme="postgresql+asyncpg"` for SQLAlchemy."""
        return self.server.dsn(self.name, user, password, scheme)

    def sql(self, text: str, user: str = SUPERUSER, password: str = PASSWORD) -> list[list[str]]:
        """Run SQL; the rows as text (NULL is the empty text)."""
        return self.server.sql(text, self.name, user, password)

    def value(self, text: str) -> str:
        """The one value that a query answers."""
        return self.server.value(text, self.name)

    def drop(self) -> None:
        """Drop it, its sessions ended."""
        self.server.sql(f'drop database if exists "{self.name}" with (force)')


class PostgresServer(Daemon):
    """A primary (or, made by `replica()`, a standby) on 127.0.0.1.

    settings   entries of postgresql.conf beside our own
    log        what PostgreSQL itself says of cancels, terminations and lost connections
    """

    stop_signal = signal.SIGINT  # fast shutdown: sessions are ended, everything is written (manual, 19.5)

    def __init__(
        self,
        run: Run,
        settings: Mapping[str, str] | None = None,
        *,
        name: str = "postgres",
        primary: PostgresServer | None = None,
    ) -> None:
        # PostgreSQL refuses to run as root; Debian's package has made this user.
        self._user = "postgres" if os.geteuid() == 0 else None
        super().__init__(run, name, self._user)
        self.port = free_port()
        self.data = self.folder / "data"
        self.primary = primary
        self._settings = {**_SETTINGS, **(settings or {})}
        self._templates: dict[str, str] = {}
        self._databases = 0

    # Life

    def start(self) -> Self:
        """Make the data folder at the first start (a replica copies its primary's), then start."""
        if not (self.data / "PG_VERSION").exists():
            self._copy_primary() if self.primary is not None else self._initialize()
        self._configure()
        super().start()
        return self

    def argv(self) -> list[str]:
        return [*self._as_user(), server_program("postgres"), "-D", str(self.data)]

    def ready(self) -> bool:
        done = subprocess.run(
            [server_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port), "-t", "2"],
            timeout=5,
            check=False,
        )
        return done.returncode == 0

    def configure(self, **settings: str) -> None:
        """Change settings and have them read again; those that need a restart wait for one."""
        self._settings.update(settings)
        self._configure()
        if self.alive:
            self.signal(signal.SIGHUP)

    def _configure(self) -> None:
        settings = {**self._settings, "port": str(self.port)}
        text = "".join(f"{key} = '{value.replace(chr(39), chr(39) * 2)}'\n" for key, value in settings.items())
        path = write_config(self.data / "prep-tests.conf", text)
        if self._user:
            shutil.chown(path, self._user)

    def _initialize(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        if self._user:
            shutil.chown(secret, self._user)
        options = [
            "--username",
            SUPERUSER,
            "--pwfile",
            str(secret),
            "--auth",
            "scram-sha-256",
            "--encoding",
            "UTF8",
        ]
        self._call([server_program("initdb"), "-D", str(self.data), "--no-sync", "--locale", "C.UTF-8", *options])
        with (self.data / "postgresql.conf").open("a") as file:
            file.write("include_if_exists 'prep-tests.conf'\n")

    # Replication

    def replica(self, settings: Mapping[str, str] | None = None, *, name: str = "replica") -> PostgresServer:
        """A started streaming standby; pg_stat_replication knows it by its folder's name (`replica-1`)."""
        return PostgresServer(self.run, settings, name=name, primary=self).start()

    def _copy_primary(self) -> None:
        assert self.primary is not None
        dsn = f"{self.primary.dsn(None)}?application_name={self.folder.name}"
        options = ["--write-recovery-conf", "--checkpoint=fast", "--wal-method=stream", "--no-sync"]
        self._call([server_program("pg_basebackup"), "-D", str(self.data), "-d", dsn, *options])

    def promote(self, deadline: float = 15.0) -> None:
        """Make a standby a primary, and wait until it says so."""
        self._call([server_program("pg_ctl"), "promote", "-D", str(self.data), "-w", "-t", str(int(deadline))])

    def wait_caught_up(self, deadline: float = 15.0) -> None:
        """Wait until this standby has replayed everything that its primary has written by now."""
        if self.primary is None:
            raise AssertionError(f"{self.name} is not a replica")
        written = self.primary.value("select pg_current_wal_flush_lsn()")
        query = f"select coalesce(pg_last_wal_replay_lsn() >= '{written}'::pg_lsn, false)"
        wait_until(lambda: self.value(query) == "t", f"{self.name} to replay {written}", deadline, seen=self.tail)

    @property
    def is_standby(self) -> bool:
        return self.value("select pg_is_in_recovery()") == "t"

    @property
    def system_identifier(self) -> str:
        """The id that primary and replicas share, and no other server has."""
        return self.value("select system_identifier from pg_control_system()")

    # Databases and SQL

    def dsn(
        self,
        database: str | None = "postgres",
        user: str = SUPERUSER,
        password: str = PASSWORD,
        scheme: str = "postgresql",
    ) -> str:
        """`postgresql://user:password@127.0.0.1:port/database`; no database for replication."""
        credentials = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"{scheme}://{credentials}@127.0.0.1:{self.port}/{database or ''}"

    def template(self, name: str, build: str | Path | Callable[[str], None]) -> None:
        """Build the template database `name` once: by SQL, a file of SQL, or a call that gets its DSN (a migration)."""
        if name in self._templates:
            return
        database = f"template_{name}"
        self.sql(f'drop database if exists "{database}"')
        self.sql(f'create database "{database}"')
        if isinstance(build, Path):
            build = build.read_text()
        if isinstance(build, str):
            self.sql(build, database)
        else:
            build(self.dsn(database))
        self._templates[name] = database

    def fresh_database(self, template: str | None = None) -> Database:
        """A new database, a copy of the template (about 50 ms) or empty."""
        self._databases += 1
        name = f"test_{self._databases}"
        source = "template0" if template is None else self._templates[template]
        self.sql(f'create database "{name}" template "{source}"')
        return Database(self, name)

    def role(self, name: str, password: str, *grants: str) -> None:
        """A role that may log in and is given each of `grants` (`pg_monitor`, …); one that is there is changed."""
        found = self.value(f"select count(*) from pg_roles where rolname = '{name}'")
        verb = "alter" if found == "1" else "create"
        self.sql(f"""{verb} role "{name}" login password '{password.replace("'", "''")}'""")
        for grant in grants:
            self.sql(f'grant {grant} to "{name}"')

    def sql(
        self,
        text: str,
        database: str = "postgres",
        user: str = SUPERUSER,
        password: str = PASSWORD,
        timeout: float = 30.0,
    ) -> list[list[str]]:
        """Run SQL by psql (not by a driver that is under test); rows as text. Raises SqlFailed."""
        done = subprocess.run(
            [
                server_program("psql"),
                "-Xq",
                "--csv",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                self.dsn(database, user, password),
            ],
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode != 0:
            raise SqlFailed(f"{done.stderr.strip()}\nin: {text[:500]}")
        return [row for row in csv.reader(io.StringIO(done.stdout)) if row]

    def value(self, text: str, database: str = "postgres") -> str:
        """The one value that a query answers."""
        rows = self.sql(text, database)
        if len(rows) != 1 or len(rows[0]) != 1:
            raise AssertionError(f"not one value but {rows[:5]} from: {text[:500]}")
        return rows[0][0]

    @contextlib.contextmanager
    def session(
        self,
        text: str,
        database: str = "postgres",
        user: str = SUPERUSER,
        password: str = PASSWORD,
        application: str = "session",
    ) -> Iterator[Session]:
        """A psql of its own that runs `text` in the background: a runaway query, a lock held, an idle transaction.

        It stays connected, idle or in its transaction, after `text`; ended with the block. `application` names it in
        pg_stat_activity.
        """
        client = Session(self, text, database, user, password, application)
        try:
            yield client
        finally:
            client.close()

    def backends(self, where: str = "true") -> list[int]:
        """Process ids of client backends for which a condition on pg_stat_activity holds."""
        rows = self.sql(f"select pid from pg_stat_activity where backend_type = 'client backend' and ({where})")
        return [int(row[0]) for row in rows]

    def _as_user(self) -> list[str]:
        if not self._user:
            return []
        return [program("setpriv"), "--reuid", self._user, "--regid", self._user, "--init-groups", "--"]

    def _call(self, argv: list[str]) -> None:
        code = self.run.spawn([*self._as_user(), *argv], self.log, cwd=self.folder).wait(60)
        if code != 0:
            raise AssertionError(f"{argv[0]} ended with {code}\n{self.tail()}")


class Session:
    """A psql that works in the background; `pid` is its backend's process id."""

    def __init__(
        self, server: PostgresServer, text: str, database: str, user: str, password: str, application: str
    ) -> None:
        self._server = server
        dsn = f"{server.dsn(database, user, password)}?application_name={quote(application, safe='')}"
        self._process = subprocess.Popen(
            [server_program("psql"), "-Xqt", "-v", "ON_ERROR_STOP=1", dsn],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._say("select pg_backend_pid();")
        self.pid = self._read_pid()
        self._say(f"{text.rstrip().rstrip(';')};")

    def run(self, text: str) -> None:
        """Queue more SQL in the same session."""
        self._say(text)

    @property
    def connected(self) -> bool:
        """Does PostgreSQL itself still list it?"""
        return bool(self._server.backends(f"pid = {self.pid}"))

    def wait_active(self, deadline: float = 10.0) -> None:
        """Wait until PostgreSQL says that its query runs."""
        wait_until(
            lambda: self._server.backends(f"pid = {self.pid} and state = 'active'"),
            f"session {self.pid} to run",
            deadline,
        )

    def close(self) -> str:
        """End the client; what psql has printed (a cancel's or a termination's message, say)."""
        if self._process.stdin is not None and self._process.stdin.closed:
            return self.output
        self._process.kill()
        self.output, _ = self._process.communicate(timeout=10)
        return self.output

    output = ""

    def finish(self, deadline: float = 10.0) -> str:
        """Let it run to its end; what psql has printed."""
        self.output, _ = self._process.communicate(timeout=deadline)
        return self.output

    def _say(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()

    def _read_pid(self) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line.isdigit():
            raise SqlFailed(f"psql did not connect: {line} {self.close()}")
        self._process.stdout.readline()  # the empty line after the one row
        return int(line)


def server_program(name: str) -> str:
    """A program of PostgreSQL's server: the newest of Debian's folders (at least 15), else the one in PATH."""
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True
    )
    for folder in folders:
        if (folder / name).exists():
            return str(folder / name)
    try:
        return program(name)
    except MissingProgram:
        raise MissingProgram(f"PostgreSQL's {name} is not installed: run `make setup` first") from None
