"""What every service of the demo platform has: logs, /health, /metrics, a start that may fail clearly, a quick end.

In: a function that builds an aiohttp application from the environment and a registry. Out: a process that serves it
until SIGTERM or SIGINT, and its exit code: 0 after a signal, 1 when it could not start (one log line says why) or when
a part of it that should never end has failed.

A stop takes at most about two seconds, also while the service is ill: the listening socket closes first, running
requests get `SHUTDOWN_SECONDS`, then they are cancelled. `docker restart` therefore never needs its SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeAlias, cast

import asyncpg
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector
from pydantic import ValidationError

from demo.environment import Environment, Listen, Postgres, SettingsError
from exporter.instrument import instrument
from exporter.pools import PoolMetrics

SHUTDOWN_SECONDS = 0.6
"""What running requests get to end by themselves: twice what an evaluation or a payment needs. aiohttp waits for it
twice, once before it cancels and once after."""
POSTGRES_WAIT_SECONDS = 30.0
"""How long a starting service waits for PostgreSQL: it may be starting too."""
STATEMENT_SECONDS = 5.0
"""Longest that a service waits for one statement, and for a connection of its pool."""

Log: TypeAlias = Any
"""structlog's bound logger, whose methods take any keyword."""
Build: TypeAlias = Callable[[Environment, CollectorRegistry], Awaitable[web.Application]]
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


_STOPPED: web.AppKey[asyncio.Future[None]] = web.AppKey("stopped", asyncio.Future)
"""Done when the service is to end: with an exception when a part of it has failed."""


class StartError(Exception):
    """The service cannot start and starting it again will not help before somebody changes something."""


def main(name: str, port: int, build: Build, *, handler_cancellation: bool = False) -> None:
    """Run service `name` until a signal; does not return. `port` is the default of PREP_LISTEN_PORT.

    With `handler_cancellation` a request whose client goes away is cancelled where it stands (aiohttp's option of the
    same name).
    """
    configure_logs(name)
    log: Log = structlog.get_logger()
    try:
        asyncio.run(_serve(name, port, build, handler_cancellation))
    except (StartError, SettingsError) as error:
        log.critical("cannot start", reason=str(error))
        sys.exit(1)
    except Exception:  # the shell of the process: whatever fails in it ends it, and is told
        log.critical("failed", exc_info=True)
        sys.exit(1)
    sys.exit(0)


def configure_logs(name: str) -> None:
    """One JSON object a line on standard output, also for what libraries log from WARNING on."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("demo").setLevel(logging.INFO)
    structlog.contextvars.bind_contextvars(service=name)


async def _serve(name: str, port: int, build: Build, handler_cancellation: bool) -> None:
    log: Log = structlog.get_logger("demo")
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[None] = loop.create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: None if stopped.done() else stopped.set_result(None))
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    listen = Listen.read(os.environ, port)
    application = await build(os.environ, registry)
    application[_STOPPED] = stopped
    add_health(application, name)
    instrument(application, registry)
    runner = web.AppRunner(
        application, access_log=None, handler_cancellation=handler_cancellation, shutdown_timeout=SHUTDOWN_SECONDS
    )
    try:
        await runner.setup()
        await web.TCPSite(runner, listen.host, listen.port).start()
        log.info("listening", address=listen.host, port=runner.addresses[0][1])
        await stopped
        log.info("stopping")
    except OSError as error:
        raise StartError(f"cannot listen on {listen.host}:{listen.port}: {error.strerror}") from error
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def beside(application: web.Application, work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run `work`, which never ends by itself, for as long as the block is open.

    When it fails all the same, the service ends with code 1 and says why: half a service that looks healthy is worse
    than none.
    """
    task = asyncio.create_task(work)

    def ended(task: asyncio.Task[None]) -> None:
        stopped = application[_STOPPED]
        if not task.cancelled() and (error := task.exception()) is not None and not stopped.done():
            stopped.set_exception(error)

    task.add_done_callback(ended)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=SHUTDOWN_SECONDS)


def add_health(application: web.Application, name: str) -> None:
    """GET /health: the process answers; it asks nobody else. `started` is in UNIX seconds and changes at a restart."""
    started = time.time()

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "service": name, "started": started})

    application.router.add_get("/health", health)


async def open_pool(settings: Postgres, application_name: str, size: int) -> Pool:
    """A pool of at most `size` connections; waits up to POSTGRES_WAIT_SECONDS for a server that is starting.

    Raises StartError when PostgreSQL refuses the login or is not there in that time.
    """
    deadline = asyncio.get_running_loop().time() + POSTGRES_WAIT_SECONDS
    log: Log = structlog.get_logger("demo")
    while True:
        try:
            return await asyncpg.create_pool(
                host=settings.host, port=settings.port, database=settings.database,
                user=settings.user, password=settings.password,
                min_size=1, max_size=size, timeout=3.0, command_timeout=STATEMENT_SECONDS,
                max_inactive_connection_lifetime=60.0,
                server_settings={"application_name": application_name},
            )  # fmt: skip
        except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as error:
            raise StartError(f"PostgreSQL at {settings.host}:{settings.port} refuses the login: {error}") from error
        except (OSError, TimeoutError, asyncpg.PostgresError) as error:
            if asyncio.get_running_loop().time() > deadline:
                where, waited = f"{settings.host}:{settings.port}", f"{POSTGRES_WAIT_SECONDS:g} s"
                raise StartError(f"PostgreSQL at {where} is not there after {waited}: {error}") from error
            log.warning("waiting for PostgreSQL", reason=str(error) or type(error).__name__)
            await asyncio.sleep(1.0)


def publish_pool(metrics: PoolMetrics, pool: Pool) -> None:
    """Publish how much of the pool is in use."""
    metrics.watch(
        "postgres",
        in_use=lambda: pool.get_size() - pool.get_idle_size(),
        idle=pool.get_idle_size,
        most=pool.get_max_size(),
    )


async def close_pool(pool: Pool) -> None:
    """Close in order within half a second, else at once: a frozen server must not hold up the stop."""
    try:
        async with asyncio.timeout(0.5):
            await pool.close()
    except TimeoutError:
        pool.terminate()


DATABASE_ERRORS = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What a statement raises when PostgreSQL is away, slow, restarting or says no; the last one when the server's goodbye
and our next statement cross."""


def faults_of(error: ValidationError) -> str:
    """What is wrong with a request's body, field by field, without the values that were sent."""
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())


def json_error(status: int, error: str) -> web.Response:
    """An answer {"error": ...}."""
    return web.json_response({"error": error}, status=status)


async def json_object(request: web.Request) -> dict[str, Any]:
    """The request's body as a JSON object. Raises HTTPBadRequest (HTTPRequestEntityTooLarge above the size limit)."""
    try:
        body = await request.json()
    except ValueError as error:  # also UnicodeDecodeError and JSONDecodeError
        raise web.HTTPBadRequest(text='{"error": "the body is not JSON"}', content_type="application/json") from error
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text='{"error": "the body is no JSON object"}', content_type="application/json")
    return cast(dict[str, Any], body)
