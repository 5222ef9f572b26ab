"""python-compliance: checks orders against the rules, before they are accepted.

    POST /v1/checks       {"order_ref", "rule_set", "order": {...}} -> {"id", "result", "violations", "seconds"}
    GET  /v1/engine       what each engine session works on, and how many checks wait
    GET  /health          the process answers
    GET  /health/deep     one sample check through the engine, not persisted: as slow as a real one, 503 when it fails
    GET  /metrics

A check's row is written when it arrives, before it waits for a session of the engine, and ended when its result is
known. A check that nobody waits for any more before it got a session is withdrawn: its row goes, since it has no result
and never will. Rows that an earlier run of the service left without a result are withdrawn too, once they are older
than any check can become.

**The fault, which is real and stays in on purpose.** `Checks.check` gives its engine session back when the evaluation
ends and when it fails in a way that the author thought of, but not when it is *cancelled*, which is what happens when
the client goes away in the middle of it (CancelledError is no Exception since Python 3.8). Each such client takes one
of the sessions with it for good. With three of four gone, the demo's load queues up and checks take more than five
seconds; with all four gone none ends. Only a restart brings the sessions back. `demo/faults.py leak-sessions` is that
client. /health/deep does it right, so that looking does no harm.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from demo.engine import EngineBusy, EngineClosed, EnginePool, Verdict
from demo.environment import Environment, Postgres, number, text, whole
from demo.orders import SAMPLE_ORDER, SAMPLE_RULE_SET
from demo.regengine import RegulationCache, UnknownRegulation, publish_connections
from demo.rules import Rule, RuleError, compile_rule
from demo.service import (
    DATABASE_ERRORS,
    Log,
    Pool,
    StartError,
    beside,
    close_pool,
    faults_of,
    json_error,
    json_object,
    main,
    open_pool,
    publish_pool,
)
from exporter.catalog.services import ENGINE_SESSIONS
from exporter.pools import PoolMetrics

PORT = 8080
ABANDONED_SECONDS = 60.0
"""A row without a result that is older belongs to no check: the longest wait and evaluation take half of it."""
TIDY_SECONDS = 15.0
"""How often such rows are looked for, and how often a queue is told in the log."""
DEEP_PROBES = 2
"""Deep probes at a time; more are refused, so that impatient probing cannot fill the queue."""
DEEP_PATIENCE_SECONDS = 15.0
BODY_BYTES = 64 * 1024


class CheckRequest(BaseModel):
    """Body of POST /v1/checks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    order_ref: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    rule_set: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,64}$")]
    order: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes and times of the engine; seconds. The variables are told in demo/README.md."""

    sessions: int
    most_waiting: int
    patience: float
    pace: float
    cache_ttl: float
    redis_url: str

    @classmethod
    def read(cls, environment: Environment) -> Settings:
        return cls(
            sessions=whole(environment, "PREP_ENGINE_SESSIONS", 4, 1, 64),
            most_waiting=whole(environment, "PREP_ENGINE_MOST_WAITING", 64, 1, 1000),
            patience=number(environment, "PREP_ENGINE_PATIENCE_SECONDS", 25.0, 0.1, 30.0),
            pace=number(environment, "PREP_ENGINE_PACE_SECONDS", 0.25, 0.0, 5.0),
            cache_ttl=number(environment, "PREP_REGENGINE_TTL_SECONDS", 60.0, 1.0, 86400.0),
            redis_url=text(environment, "PREP_REDIS_URL", "redis://redis:6379/0"),
        )


class Checks:
    """The service: its handlers, the rows that it has open, and the tasks that end rows."""

    def __init__(
        self,
        settings: Settings,
        pool: Pool,
        engine: EnginePool,
        cache: RegulationCache,
        rules: Mapping[str, Sequence[Rule]],
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._engine = engine
        self._cache = cache
        self._rules = rules
        self._open: set[int] = set()
        self._endings: set[asyncio.Task[None]] = set()
        self._probes = 0
        self._log: Log = structlog.get_logger("demo")

    async def create(self, request: web.Request) -> web.Response:
        """POST /v1/checks."""
        try:
            wanted = CheckRequest.model_validate(await json_object(request))
        except ValidationError as error:
            return json_error(400, faults_of(error))
        if wanted.rule_set not in self._rules:
            known = ", ".join(sorted(self._rules))
            return json_error(422, f"there is no rule set {wanted.rule_set}; there are {known}")
        began = time.perf_counter()
        try:
            number = await self._pool.fetchval(
                "INSERT INTO compliance_checks (order_ref, rule_set) VALUES ($1, $2) RETURNING id",
                wanted.order_ref, wanted.rule_set,
            )  # fmt: skip
        except DATABASE_ERRORS as error:
            self._log.warning("cannot take a check", reason=str(error) or type(error).__name__)
            return json_error(503, "the database does not answer")
        self._open.add(number)
        try:
            verdict = await self.check(number, wanted)
        except EngineBusy as error:
            await self._end(number, "error")
            return web.json_response({"error": str(error)}, status=503, headers={"Retry-After": "5"})
        except EngineClosed as error:
            await self._withdraw(number)
            return json_error(503, str(error))
        except (UnknownRegulation, *DATABASE_ERRORS) as error:
            self._log.warning("check failed", order_ref=wanted.order_ref, reason=str(error) or type(error).__name__)
            await self._end(number, "error")
            return json_error(503, "the check could not be carried out")
        await self._end(number, verdict.result)
        seconds = round(time.perf_counter() - began, 4)
        answer = {"id": number, "result": verdict.result, "violations": verdict.violations, "seconds": seconds}
        return web.json_response(answer, status=201)

    async def check(self, number: int, wanted: CheckRequest) -> Verdict:
        """Wait for a session, evaluate, give it back: the place of the fault that the module's docstring tells of."""
        try:
            session = await self._engine.acquire(self._settings.patience)
        except asyncio.CancelledError:
            self._soon(self._withdrawn(number))
            raise
        try:
            verdict = await session.evaluate(
                self._rules[wanted.rule_set], wanted.order_ref, wanted.order, self._cache.documents, self._settings.pace
            )
        except (UnknownRegulation, *DATABASE_ERRORS):
            self._engine.release(session)
            raise
        self._engine.release(session)
        return verdict

    async def deep(self, _: web.Request) -> web.Response:
        """GET /health/deep. A probe that is given up leaves the queue, or gives its session back."""
        if self._probes >= DEEP_PROBES:
            return json_error(503, f"{self._probes} deep probes are under way already")
        began = time.perf_counter()
        self._probes += 1
        try:
            session = await self._engine.acquire(DEEP_PATIENCE_SECONDS)
            try:
                rules, documents = self._rules[SAMPLE_RULE_SET], self._cache.documents
                verdict = await session.evaluate(rules, "health-deep", SAMPLE_ORDER, documents, self._settings.pace)
            finally:
                self._engine.release(session)
        except (EngineBusy, EngineClosed, UnknownRegulation, *DATABASE_ERRORS) as error:
            return json_error(503, str(error) or type(error).__name__)
        finally:
            self._probes -= 1
        seconds = round(time.perf_counter() - began, 4)
        return web.json_response({"status": "ok", "result": verdict.result, "seconds": seconds})

    async def sessions(self, _: web.Request) -> web.Response:
        """GET /v1/engine: what `leak-sessions` and an operator look at. Times in seconds."""
        now = time.time()
        listed = [
            {
                "session": session.number,
                "order_ref": session.order_ref,
                "busy_seconds": None if session.since is None else round(now - session.since, 3),
            }
            for session in self._engine.sessions
        ]
        return web.json_response({"busy": self._engine.busy, "waiting": self._engine.waiting, "sessions": listed})

    async def tidy(self) -> None:
        """Withdraw rows that belong to no check, and tell of a queue; forever."""
        while True:
            try:
                rows = await self._pool.fetch(
                    "DELETE FROM compliance_checks WHERE finished_at IS NULL AND NOT id = ANY($1::bigint[])"
                    " AND created_at < clock_timestamp() - make_interval(secs => $2) RETURNING id",
                    list(self._open), ABANDONED_SECONDS,
                )  # fmt: skip
                if rows:
                    self._log.info("withdrew checks that an earlier run left without a result", checks=len(rows))
            except DATABASE_ERRORS as error:
                self._log.warning("cannot look for abandoned checks", reason=str(error) or type(error).__name__)
            if self._engine.waiting:
                since = [session.since for session in self._engine.sessions if session.since is not None]
                self._log.warning(
                    "checks wait for an engine session",
                    waiting=self._engine.waiting, sessions_busy=self._engine.busy, sessions=len(self._engine.sessions),
                    longest_evaluation_seconds=round(time.time() - min(since), 1) if since else 0.0,
                )  # fmt: skip
            await asyncio.sleep(TIDY_SECONDS)

    async def settle(self) -> None:
        """Wait for the rows that are being ended."""
        await asyncio.gather(*self._endings)

    async def _end(self, number: int, result: str) -> None:
        await asyncio.shield(self._soon(self._ended(number, result)))

    async def _withdraw(self, number: int) -> None:
        await asyncio.shield(self._soon(self._withdrawn(number)))

    def _soon(self, ending: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """End a row in a task of its own: a client that goes away now must not keep it open."""
        task = asyncio.create_task(ending)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
        return task

    async def _ended(self, number: int, result: str) -> None:
        await self._execute(
            number,
            "UPDATE compliance_checks SET finished_at = clock_timestamp(), result = $2"
            " WHERE id = $1 AND finished_at IS NULL",
            result,
        )

    async def _withdrawn(self, number: int) -> None:
        await self._execute(number, "DELETE FROM compliance_checks WHERE id = $1 AND finished_at IS NULL")

    async def _execute(self, number: int, statement: str, *values: str) -> None:
        """Run it; a row that cannot be ended now is withdrawn later by tidy()."""
        try:
            await self._pool.execute(statement, number, *values)
        except DATABASE_ERRORS as error:
            self._log.warning("cannot end a check", check=number, reason=str(error) or type(error).__name__)
        self._open.discard(number)


CHECKS = web.AppKey("checks", Checks)


async def load_rules(pool: Pool) -> dict[str, list[Rule]]:
    """All enabled rules by rule set. Raises StartError for the first one that cannot be understood."""
    rows = await pool.fetch("SELECT rule_set, name, expression FROM compliance_rules WHERE enabled ORDER BY id")
    rules: dict[str, list[Rule]] = {}
    for row in rows:
        try:
            rule = compile_rule(row["rule_set"], row["name"], json.loads(row["expression"]))
        except RuleError as error:
            raise StartError(f"{error}; mend or disable it in table compliance_rules") from error
        rules.setdefault(rule.rule_set, []).append(rule)
    known = {row["code"] for row in await pool.fetch("SELECT code FROM regulations")}
    if unknown := sorted({code for every in rules.values() for rule in every for code in rule.regulations} - known):
        raise StartError(f"rules refer to no regulation {', '.join(unknown)} of table regulations")
    if SAMPLE_RULE_SET not in rules:
        raise StartError(f"table compliance_rules has no enabled rule of rule set {SAMPLE_RULE_SET}")
    return rules


async def build(environment: Environment, registry: CollectorRegistry) -> web.Application:
    """The application; connections are opened when it starts. Raises SettingsError."""
    settings, postgres = Settings.read(environment), Postgres.read(environment)
    application = web.Application(client_max_size=BODY_BYTES)
    engine = EnginePool(settings.sessions, settings.most_waiting)
    sessions = Gauge(ENGINE_SESSIONS.name, ENGINE_SESSIONS.help, ENGINE_SESSIONS.label_names, registry=registry)
    sessions.labels("busy").set_function(lambda: engine.busy)
    sessions.labels("free").set_function(lambda: len(engine.sessions) - engine.busy)
    pools = PoolMetrics(registry)
    application.router.add_post("/v1/checks", lambda request: request.app[CHECKS].create(request))
    application.router.add_get("/v1/engine", lambda request: request.app[CHECKS].sessions(request))
    application.router.add_get("/health/deep", lambda request: request.app[CHECKS].deep(request))

    async def running(_: web.Application) -> AsyncIterator[None]:
        pool = await open_pool(postgres, "python-compliance", 5)
        redis = Redis.from_url(
            settings.redis_url, socket_timeout=0.5, socket_connect_timeout=0.5, decode_responses=True,
            retry=Retry(NoBackoff(), 0), max_connections=settings.sessions + DEEP_PROBES,
        )  # fmt: skip
        publish_pool(pools, pool)
        publish_connections(pools, redis)
        try:
            rules = await load_rules(pool)
            checks = Checks(settings, pool, engine, RegulationCache(pool, redis, registry, settings.cache_ttl), rules)
            application[CHECKS] = checks
            async with beside(application, checks.tidy()):
                yield
            await checks.settle()
        finally:
            await redis.aclose()
            await close_pool(pool)

    async def turn_away(_: web.Application) -> None:
        engine.close()

    application.cleanup_ctx.append(running)
    application.on_shutdown.append(turn_away)
    return application


if __name__ == "__main__":
    main("python-compliance", PORT, build, handler_cancellation=True)
