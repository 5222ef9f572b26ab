"""`db:*`: what a PostgreSQL server does now. Ending a query is `prepctl act cancel_query`."""

from __future__ import annotations

from pathlib import Path

import typer

from prepctl.diagnoses.asking import CONFIG, AsJson, Config, Service, chosen, load, tell

app = typer.Typer()


def _tell(config: Path, service: str, name: str, diagnosis: str, *, as_json: bool) -> None:
    """Without a service: the only database that is nobody's replica."""
    settings = load(config)
    primaries = [each for each, entry in settings.databases.items() if entry.replica_of is None]
    which = chosen(list(settings.databases) if service else primaries, service, "databases")
    tell(settings, which, name, diagnosis, as_json=as_json)


@app.command("db:connections")
def connections(service: Service = "", config: Config = CONFIG, as_json: AsJson = False) -> None:
    """How many connections of how many, and whose: by role, application and state."""
    _tell(config, service, "db:connections", "connections", as_json=as_json)


@app.command("db:queries")
def queries(service: Service = "", config: Config = CONFIG, as_json: AsJson = False) -> None:
    """The 30 oldest queries and transactions, what they wait for, and whether they have written; without literals."""
    _tell(config, service, "db:queries", "long_queries", as_json=as_json)


@app.command("db:locks")
def locks(service: Service = "", config: Config = CONFIG, as_json: AsJson = False) -> None:
    """Who waits for whose lock, the root of each chain first."""
    _tell(config, service, "db:locks", "blocking_tree", as_json=as_json)


@app.command("db:cpu")
def cpu(service: Service = "", config: Config = CONFIG, as_json: AsJson = False) -> None:
    """Which sessions are on the CPU, by ten samples in half a second."""
    _tell(config, service, "db:cpu", "cpu_by_backend", as_json=as_json)


@app.command("db:scans")
def scans(service: Service = "", config: Config = CONFIG, as_json: AsJson = False) -> None:
    """Large tables that are read from end to end: where an index may be missing."""
    _tell(config, service, "db:scans", "sequential_scans", as_json=as_json)


@app.command("db:statements")
def statements(service: Service = "", config: Config = CONFIG, as_json: AsJson = False) -> None:
    """The 20 statements that took the most time since the counters began, without literals."""
    _tell(config, service, "db:statements", "top_statements", as_json=as_json)


@app.command("db:replication")
def replication(service: Service = "", config: Config = CONFIG, as_json: AsJson = False) -> None:
    """Standbys, receivers and slots, as the server, its primary and its replicas tell them."""
    _tell(config, service, "db:replication", "replication_state", as_json=as_json)
