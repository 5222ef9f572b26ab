"""The commands for a person's own hand, when the remediator does not answer: printed, never run.

They are what the actions do, without the remediator's looks, limits and journal; so each begins with what to look at.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from prepctl.errors import Exit, Failure

_LONG = (
    "select pid, now() - query_start as age, usename, application_name, backend_xid is not null as has_written, "
    "left(query, 80) as query from pg_stat_activity where state = 'active' and backend_type = 'client backend' "
    "and pid <> pg_backend_pid() order by query_start limit 10"
)
_END = {"cancel_query": "pg_cancel_backend", "terminate_query": "pg_terminate_backend"}


def command(action: str, service: str) -> str:
    """What to run by hand instead, with what to look at before; in words where no one command would be safe."""
    name = shlex.quote(service)
    if action == "restart_service":
        return (
            "By hand, on the Docker host. The remediator checks nothing of this; look first, then restart:\n"
            f"  docker ps --all --filter label=com.docker.compose.service={name}\n"
            f"  docker ps --quiet --filter label=com.docker.compose.service={name} "
            "--filter label=com.docker.compose.oneoff=False | head -n 1 | xargs -r docker restart"
        )
    if action in _END:
        psql = f"docker compose exec {name} psql --username=postgres"
        return (
            "By hand, on the Docker host. Look first; leave alone what has written (has_written = t):\n"
            f"  {psql} --command={shlex.quote(_LONG)}\n"
            f"  {psql} --command='select {_END[action]}(PID)'"
        )
    return f"By hand there is no one command for {action} that is safe: docs/actions.md says what it looks at and does."


def params(given: Sequence[str]) -> dict[str, str | int | float | bool]:
    """NAME=VALUE pairs; true and false are truth values, what reads as a number is one. Raises Failure."""
    found: dict[str, str | int | float | bool] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not name or not equals:
            raise Failure(Exit.USAGE, f"{each!r} is no parameter.", "Give NAME=VALUE.")
        found[name] = _value(value)
    return found


def _value(text: str) -> str | int | float | bool:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
