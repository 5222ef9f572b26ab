"""Puts the switch together and owns its lifetime: the webhook, the watch, the probe, the pages, the state on disk.

The turn is the only place where something is decided: look, keep, say. A disk that fails or hangs never stops it: the
state in memory counts, the metric says that it is not saved. Nor does a destination that hangs: each delivery is a
task of its own.
"""

from __future__ import annotations

import asyncio
import signal
from importlib.metadata import version

import aiohttp
import structlog
from aiohttp import web

from switch import intake, watch
from switch.clock import Clock
from switch.intake import Worth
from switch.messages import say
from switch.metrics import Metrics, View
from switch.paging import Pager
from switch.probing import Look, probe
from switch.settings import Settings
from switch.statefile import StateFile
from switch.watch import Delivery, Rules, State

log = structlog.get_logger("switch")

TURN = 0.5
"""Seconds from one look to the next."""
FROZEN = 10.0
"""Seconds between two looks after which the process was frozen or starved, and deliveries may lie unread."""
ALIVE_WITHIN = 15.0
SAVE_WITHIN = 3.0
"""Seconds that anything waits for the disk."""


class Switch:
    """The running switch. `run` serves until it is told to stop."""

    def __init__(self, settings: Settings, file: StateFile, session: aiohttp.ClientSession, clock: Clock) -> None:
        self._settings = settings
        self._file = file
        self._clock = clock
        self._pager = Pager(settings.pages, session)
        self._rules = rules(settings, self._pager.names)
        self._state = State(waiting_since=clock.now())
        self._metrics = Metrics(version("prep-ops"), self._pager.names, self._view)
        self._look: Look | None = None
        """The last probe since the start or a freeze; None before the first has ended."""
        self._looked = 0.0
        self._saving: asyncio.Task[None] | None = None
        self._saved: State | None = None
        self._save_failed = False
        self._turned = clock.now()
        self._under_way: set[tuple[str, str, bool]] = set()
        self._not_before: dict[tuple[str, str, bool], float] = {}
        self.stop = asyncio.Event()

    async def run(self) -> None:
        """Load, serve, watch. Raises StateError and OSError before anything is served."""
        before = self._file.load()
        if self._file.put_aside:
            log.error("the state was unreadable and is put aside; waiting anew", file=str(self._file.path))
        self._state = watch.begin(before, self._clock.now(), self._rules)
        await self._keep()
        runner = await self._listen()
        try:
            async with asyncio.TaskGroup() as group:
                probing = group.create_task(self._probe_for_ever()) if self._settings.probe else None
                while not self.stop.is_set():
                    await self._turn(group)
                if probing is not None:
                    probing.cancel()
        finally:
            await runner.cleanup()
            await self._keep()
            self._file.close()

    # -- the turn -------------------------------------------------------------------------------------

    async def _turn(self, group: asyncio.TaskGroup) -> None:
        now = self._clock.now()
        if now - self._turned > FROZEN:
            log.warning("was frozen; what came meanwhile is read first", seconds=round(now - self._turned, 1))
            self._state = watch.begin(self._state, now, self._rules)
            self._look = None
        self._turned = now
        telling = {incident for incident, _, _ in self._under_way}
        self._change(watch.look(self._state, now, self._rules, probed=self._look is not None, under_way=telling))
        # On the disk before it is said: a crash in between says it twice, never not at all.
        await self._keep()
        for delivery in watch.deliveries(self._state, now, self._rules):
            if delivery.key not in self._under_way and self._not_before.get(delivery.key, 0.0) <= now:
                self._under_way.add(delivery.key)
                group.create_task(self._deliver(delivery))
        try:
            await asyncio.wait_for(self.stop.wait(), TURN)
        except TimeoutError:
            return

    def _change(self, state: State) -> None:
        """Take the new state over, and log each incident's beginning and end."""
        known = {incident.id: incident.ended for incident in self._state.incidents}
        for incident in state.incidents:
            if incident.id not in known:
                log.error(
                    "incident", kind=incident.kind, id=incident.id, seconds=round(incident.began - incident.since)
                )
            elif incident.ended is not None and known[incident.id] is None:
                log.info("incident is over", kind=incident.kind, id=incident.id)
        alive = {incident.id for incident in state.incidents}
        self._not_before = {key: at for key, at in self._not_before.items() if key[0] in alive}
        self._state = state

    async def _deliver(self, delivery: Delivery) -> None:
        settings = self._settings
        message = say(
            delivery.incident,
            settings.watched,
            self._clock.now(),
            ending=delivery.ending,
            heard=self._state.heard is not None,
            probe=settings.probe.url if settings.probe else "",
        )
        try:
            why = await self._pager.send(delivery.destination, message)
        except Exception as error:  # noqa: BLE001 - whatever it is, the others must be told and this one tried again
            why = f"failed ({type(error).__name__})"
        finally:
            self._under_way.discard(delivery.key)
        outcome = "delivered" if why is None else "failed"
        self._metrics.pages.labels(delivery.destination, outcome).inc()
        if why is None:
            log.info("told", destination=delivery.destination, id=delivery.incident.id, ending=delivery.ending)
            self._state = watch.delivered(self._state, delivery, self._clock.now())
        else:
            log.error("could not be told, tried again", destination=delivery.destination, why=why)
            self._not_before[delivery.key] = self._clock.now() + settings.pages.retry

    # -- memory ---------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Save what has changed; wait for it, but not longer than SAVE_WITHIN."""
        for _ in range(2):  # one may be under way, with an older state
            if self._saving is None and self._saved is not self._state:
                self._saving = asyncio.create_task(self._save(self._state))
            if self._saving is not None:
                await asyncio.wait({self._saving}, timeout=SAVE_WITHIN)

    async def _save(self, state: State) -> None:
        try:
            await asyncio.to_thread(self._file.save, state)
            self._saved, self._save_failed = state, False
        except OSError as error:
            if not self._save_failed:
                log.error("the state cannot be saved; a restart would forget", why=error.strerror)
            self._save_failed = True
        finally:
            self._saving = None

    # -- probe ----------------------------------------------------------------------------------------

    async def _probe_for_ever(self) -> None:
        settings = self._settings.probe
        if settings is None:
            return
        while True:
            begun = self._clock.now()
            look = await probe(settings)
            self._looked = self._clock.now()
            if self._look is None or look.up != self._look.up:
                log.info("probe", up=look.up, why=look.why, seconds=round(look.took, 3))
            self._look = look
            self._state = watch.probed(self._state, self._looked, up=look.up)
            await asyncio.sleep(max(settings.interval - (self._clock.now() - begun), 0.0))

    # -- HTTP -----------------------------------------------------------------------------------------

    async def _listen(self) -> web.AppRunner:
        app = web.Application(client_max_size=intake.MAX_BYTES)
        app.add_routes(
            [
                web.post(self._settings.watchdog.path, self._take),
                web.get("/metrics", self._show),
                web.get("/-/healthy", self._healthy),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
        await runner.setup()
        host, _, port = self._settings.listen_address.rpartition(":")
        try:
            await web.TCPSite(runner, host.strip("[]") or None, int(port)).start()
        except OSError:
            await runner.cleanup()
            raise
        log.info("listening", address=self._settings.listen_address, watched=self._settings.watched)
        return runner

    async def _take(self, request: web.Request) -> web.Response:
        """POST of Alertmanager. 200 for everything that can be read, also what does not count."""
        settings = self._settings.watchdog
        if not intake.authorized(request.headers.get("Authorization"), settings.token_files):
            self._metrics.received.labels(Worth.UNAUTHORIZED.value).inc()
            return web.json_response({"error": "no token that is known here"}, status=401)
        worth, age = intake.read(await request.read(), settings, self._clock.wall())
        self._metrics.received.labels(worth.value).inc()
        if worth is Worth.UNREADABLE:
            return web.json_response({"error": "not a notification of Alertmanager"}, status=400)
        if worth in (Worth.HEARD, Worth.STALE):
            self._state = watch.hear(self._state, self._clock.now(), age, self._rules)
            await self._keep()
        if worth is not Worth.HEARD:
            log.warning("does not count", worth=worth.value, age_seconds=round(age))
        return web.json_response({"worth": worth.value})

    async def _show(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.page(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _healthy(self, _: web.Request) -> web.Response:
        age = self._clock.now() - self._turned
        return web.Response(text=f"last looked {age:.1f} s ago\n", status=200 if age < ALIVE_WITHIN else 503)

    def _view(self) -> View:
        return View(
            self._state,
            watch.due(self._state, self._rules),
            self._look,
            self._looked,
            saved=self._saved is self._state,
        )


def rules(settings: Settings, destinations: tuple[str, ...]) -> Rules:
    """The times of the settings."""
    return Rules(
        accept=settings.watchdog.accept,
        grace=settings.watchdog.grace,
        repeat=settings.pages.repeat,
        page_after=settings.probe.page_after if settings.probe and settings.probe.page else None,
        destinations=destinations,
    )


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. Raises StateError and OSError when it cannot begin."""
    async with aiohttp.ClientSession() as session:
        switch = Switch(settings, StateFile(settings.state_file), session, Clock())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, switch.stop.set)
        await switch.run()
