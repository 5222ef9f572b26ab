"""One short connection to a PostgreSQL server as the remediator's own role.

In: an entry of `settings.databases`. Out: a connection with every bound set at the server too, closed at the
end. Password by file, read at each use. No statement cache (a pooler may stand in between), no retry.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from remediator.errors import ConfigError, Permanent, Transient
from remediator.fetch import describe
from remediator.settings import Database, secret

# What asyncpg raises when the connection is lost, cannot be used, or the server goes away.
LOST = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
)
NAME = "prep-remediator"


@asynccontextmanager
async def connected(
    database: Database, application: str = NAME, *, within: float | None = None
) -> AsyncIterator[asyncpg.Connection]:
    """A connection for one look or one effect; `within` seconds (default: the settings' timeout) bounds each step.

    Raises Transient when the server does not take it now, Permanent when it refuses the role, its password
    or the database. Errors of the body pass through as asyncpg raised them.
    """
    limit = database.timeout if within is None else within
    connection = await _open(database, application, limit)
    try:
        yield connection
    finally:
        connection.terminate()  # at once: a clean close may wait for a server that hangs


async def _open(database: Database, application: str, limit: float) -> asyncpg.Connection:
    where = f"{database.user}@{database.host}:{database.port}/{database.database}"
    milliseconds = str(max(1, int(limit * 1000)))
    try:
        return await asyncpg.connect(
            host=database.host,
            port=database.port,
            user=database.user,
            password=secret(database.password_file),
            database=database.database,
            timeout=limit,
            command_timeout=limit,
            statement_cache_size=0,
            server_settings={
                "application_name": application,
                "statement_timeout": milliseconds,
                "lock_timeout": milliseconds,
                "idle_in_transaction_session_timeout": milliseconds,
                "search_path": "pg_catalog",
                "jit": "off",
            },
        )
    except ConfigError as error:
        raise Permanent(f"PostgreSQL {where}: {error}") from error
    except (
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InvalidCatalogNameError,
        asyncpg.InsufficientPrivilegeError,
    ) as error:
        raise Permanent(f"PostgreSQL {where} refuses the connection: {describe(error)}") from error
    except (*LOST, asyncpg.PostgresError) as error:
        raise Transient(f"PostgreSQL {where} takes no connection: {describe(error)}") from error
