"""One replica of the journal: how it comes up, says that it lives, distrusts what it finds, and leaves.

In: settings and a clock. Out: a store that holds this program's tables, and this replica enlisted in it. It
must never take a journal that is in use, not durable, or written by a newer version, and it starts no effect
while it does not know how the last run ended or whether the database has lost something.
"""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Self

import structlog
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from remediator import settings
from remediator.clock import Clock
from remediator.errors import JournalError
from remediator.events import Event
from remediator.journal import index, limits, seals, work
from remediator.journal.migrate import migrate
from remediator.journal.postgres import PostgresStore
from remediator.journal.sqlite import SQLiteStore
from remediator.journal.store import Store
from remediator.journal.transaction import Tx
from remediator.journal.witness import SeenSeal, Witness
from remediator.runbooks import MODES

log = structlog.get_logger(__name__)

DAY = 86400.0
LIVE_LEASES = 3  # a replica that was not seen for this many leases binds nobody by its mode
STANDBY_HOLD = 150.0  # seconds without an intent after a look that found one; looked for each minute
SEALS_APART = 0.05  # seconds between two seals of one round: others write in between
DEAD_LETTERS = 1000  # kept until `dead_letter` is told another number
CLEAN, BOOT, HOLD_OFF = "clean_shutdown", "boot_id", "hold_off_until"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # random(4): another value after each boot


class Replica:
    """One replica's way to the journal. Made by `open` or `over`; every method may raise JournalError.

    owner  this process' name in the journal, unique for each start
    wake   set when something may be due now; whoever waits for it clears it
    sealed the newest seal that this replica has seen, None before the first one
    told   the same, None also before the first look: after a power loss the file's one may be older than the journal's
    """

    def __init__(self, store: Store, owner: str, clock: Clock, mode: str, config_digest: str, lease: float) -> None:
        self.owner = f"{owner}#{uuid.uuid4().hex[:8]}"
        self.wake = asyncio.Event()
        self.hold_off_why = ""
        self.sealed: seals.Seal | None = None
        self.told: seals.Seal | None = None
        self._store = store
        self._clock = clock
        self._mode = mode
        self._untold = False  # is mode or digest another one than what the other replicas were told?
        self._config_digest = config_digest
        self._lease = lease
        self._held: dict[str, float] = {}  # episode: boot time up to which the lease is ours for certain
        self._hold_until = 0.0  # boot time
        self._witness: Witness | None = None
        self._seen: SeenSeal | None = None
        self._regressed_hold = 0.0
        self._refuse_standby = False
        self._standbys = ""  # told last
        self._quota = DEAD_LETTERS

    # -- lifetime -----------------------------------------------------------------------------------------

    @classmethod
    async def open(
        cls,
        settings: settings.Journal,
        *,
        owner: str,
        clock: Clock,
        mode: str,
        config_digest: str,
        hold_off: float,
    ) -> Self:
        """Open, create or upgrade the journal and enlist this replica in it.

        owner     this replica's name for people, such as host name and process id
        hold_off  seconds without an intent after a start that does not know how the last run ended: the
                  longest deadline of all runbooks, so that what was begun then is over
        Raises JournalError: not reachable, in use by another process, not durable, changed by a newer version.
        """
        try:
            url = make_url(settings.url)
        except ArgumentError as error:
            raise JournalError(f"journal.url is not a database URL: {error}") from error
        store: SQLiteStore | PostgresStore
        if url.get_backend_name() == "sqlite":
            store = SQLiteStore(Path(url.database) if url.database not in (None, "", ":memory:") else None, clock.now)
        elif url.get_backend_name() == "postgresql":
            store = PostgresStore(url.set(drivername="postgresql+asyncpg"), settings.password_file, owner)
        else:
            raise JournalError(f"journal.url: {url.get_backend_name()} is not supported; sqlite or postgresql is")
        try:
            await store.open()
            refuse = settings.async_standby == "refuse"
            names = await store.unwaited() if isinstance(store, PostgresStore) else ""
            if names and refuse:
                remedy = "set synchronous_standby_names, or journal.async_standby to tell"
                raise JournalError(f"{_unwaited(names)}: {remedy}")
            self = await cls.over(
                store,
                owner=owner,
                clock=clock,
                mode=mode,
                config_digest=config_digest,
                hold_off=hold_off,
                lease=settings.lease,
                witness=settings.evidence_dir.parent / "journal.witness" if store.shared else None,
            )
            self._seen = SeenSeal(settings.evidence_dir.parent / "journal.seal")
            self.sealed = self._seen.load()
            self._refuse_standby = refuse
            self._tell_standbys(names)
            return self
        except BaseException:
            await store.close()
            raise

    @classmethod
    async def over(
        cls,
        store: Store,
        *,
        owner: str,
        clock: Clock,
        mode: str,
        config_digest: str,
        hold_off: float,
        lease: float,
        witness: Path | None = None,
    ) -> Self:
        """A journal over a store that is open already: several replicas of a simulation share one in memory."""
        self = cls(store, owner, clock, mode, config_digest, lease)
        await store.write(migrate, patient=True)
        self._regressed_hold = hold_off
        if isinstance(store, PostgresStore) and witness is not None:
            self._witness = Witness(witness)
            store.on_connect = self._witness.look
        if isinstance(store, SQLiteStore):
            store.keep_ballast()
        if not store.shared:
            await store.write(lambda tx: self._recover(tx, hold_off))
        await store.write(lambda tx: limits.enlist(tx, self.owner, mode, config_digest))
        return self

    def _recover(self, tx: Tx, hold_off: float) -> None:
        """SQLite, at start: the owners of the last run are gone; was it ended, and is the machine still up?

        After a power loss the last effect may be done and its intent lost, or an effect may still be under way.
        """
        boot, now = BOOT_ID.read_text().strip(), tx.now()
        before, left = index.mark(tx, BOOT), float(index.mark(tx, HOLD_OFF) or 0.0) - now
        why = ""
        if before is not None and index.mark(tx, CLEAN) != "yes":
            why = "the last run did not end cleanly"
        elif before not in (None, boot):
            why = "the machine was started anew"
        if why:
            left = max(left, hold_off)
            work.forget_proofs(tx)
        if left > 0:
            self.hold_off_why = why or "it was held off before the restart"
            self._hold_until = self._clock.boottime() + min(left, DAY)
            index.set_mark(tx, HOLD_OFF, str(now + min(left, DAY)))
        index.set_mark(tx, BOOT, boot)
        index.set_mark(tx, CLEAN, "no")
        work.lapse(tx)

    async def close(self, clean: bool = True) -> None:
        """Leave. `clean` says that nothing is under way any more.

        Then what was claimed is free at once, and the next start on SQLite need not hold off.
        """
        try:
            if clean and self._store.broken is None:
                made = await self._store.write(self._left)
                if made is not None:
                    self._saw(made, "journal sealed")
        finally:
            await self._store.close()
            if self._witness is not None:
                self._witness.close()

    def _left(self, tx: Tx) -> seals.Seal | None:
        limits.leave(tx, self.owner)
        work.give_up(tx, self.owner)
        if not self._store.shared:
            index.set_mark(tx, CLEAN, "yes")
        return seals.close(tx, self.owner) if self._seen is not None else None

    @property
    def broken(self) -> str | None:
        """Why nothing may be written any more (an I/O error): end the process, its next start recovers."""
        return self._store.broken

    def room(self) -> float | None:
        """Share of the journal's file system that is free, 0 to 1; None: no file of ours, or it cannot be asked."""
        try:
            return self._store.room() if isinstance(self._store, SQLiteStore) else None
        except OSError as error:
            log.warning("the journal's file system cannot be asked for its room", why=str(error))
            return None

    async def now(self) -> float:
        """UNIX seconds by the journal's clock: the database's on PostgreSQL, the machine's on SQLite."""
        return await self._store.now()

    async def relieve(self) -> None:
        """Free what a frozen replica has locked; before a renewal and a heartbeat, which may have to wait for it."""
        if isinstance(self._store, PostgresStore) and (ended := await self._store.relieve()):
            log.warning("sessions of a silent replica were ended", count=ended)

    async def look_for_standbys(self) -> None:
        """A standby for which no COMMIT waits lacks the last events when it is promoted, also one that was added later.

        Told whenever their names change. With `journal.async_standby: refuse` nothing is begun while there is one.
        """
        if not isinstance(self._store, PostgresStore):
            return
        names = await self._store.unwaited()
        self._tell_standbys(names)
        if names and self._refuse_standby:
            await self.hold_off(STANDBY_HOLD, _unwaited(names))

    def _tell_standbys(self, names: str) -> None:
        if names and names != self._standbys:
            do = "set synchronous_standby_names"
            log.warning("the journal's standby may lack the last events", why=_unwaited(names), do=do)
        self._standbys = names

    async def heartbeat(self, mode: str) -> None:
        """This replica lives, in this mode. A changed mode is written under the intent's lock."""
        if self._witness is not None and self._witness.regressed:
            await self._stop(self._witness.regressed)
            await self._store.read(self._witness.accept)
            self._forget_seal()
        if isinstance(self._store, SQLiteStore):
            self._store.keep_ballast()
        known = mode == self._mode and not self._untold
        if not known or not await self._store.write(lambda tx: limits.seen(tx, self.owner)):
            await self._enlist(mode)

    async def reconfigured(self, mode: str, config_digest: str, hold_off: float) -> None:
        """This replica lives by another configuration. Returns once its mode holds for every replica.

        hold_off  as for `open`

        A stricter mode holds for our own intents at once. When it cannot be written, each heartbeat tries again.
        """
        self._regressed_hold = hold_off
        self._config_digest, self._untold = config_digest, True
        self._mode = min(self._mode, mode, key=MODES.index)
        await self._enlist(mode)

    async def _enlist(self, mode: str) -> None:
        await self._store.write(lambda tx: limits.enlist(tx, self.owner, mode, self._config_digest))
        self._mode, self._untold = mode, False

    async def seal(self) -> None:
        """Close the events that no seal holds yet, and tell of each seal in the log.

        A seal that was seen and is not there as it was stops everything until people have looked, as lost events do.
        """
        if self._witness is not None and self._witness.regressed:
            return  # the heartbeat stops everything, and knows more
        try:
            newest, pending = await self._store.read(lambda tx: seals.look(tx, self.sealed))
        except seals.Cut as cut:
            await self._stop(str(cut))
            self._forget_seal()
            return
        self.told = self.sealed
        if newest is not None and newest != self.sealed:
            self._saw(newest, "the journal's newest seal")
        while pending and (made := await self._store.write(lambda tx: seals.close(tx, self.owner))) is not None:
            self._saw(made, "journal sealed")
            pending = made.count == seals.MOST
            await self._clock.sleep(SEALS_APART)

    def _saw(self, seal: seals.Seal, what: str) -> None:
        self.sealed = self.told = seal
        log.info(what, seal=seal.number, digest=seal.digest, events=seal.count)
        if self._seen is not None:
            self._seen.keep(seal)

    def _forget_seal(self) -> None:
        self.sealed = self.told = None
        if self._seen is not None:
            self._seen.keep(None)

    async def _stop(self, lost: str) -> None:
        """Lost events stop everything until people have looked; then this replica goes on from what there is."""
        reason = f"the journal has lost events: {lost}"
        token = uuid.uuid4().hex
        await self.hold_off(self._regressed_hold, reason)
        await self._store.write(lambda tx: limits.pause(tx, token, "all", limits.JOURNAL, reason, None, once=True))

    async def hold_off(self, seconds: float, why: str) -> None:
        """No intent of this replica for so long, by boot time (after a step of its clock).

        On SQLite, where the same clock tells all times, it is kept for the next start, too.
        """
        self._hold_until = max(self._hold_until, self._clock.boottime() + seconds)
        self.hold_off_why = why
        if not self._store.shared:
            left = self._hold_until - self._clock.boottime()
            await self._store.write(lambda tx: index.set_mark(tx, HOLD_OFF, str(tx.now() + left)))

    def _asked(self, episode: str, runbook: str, resource: str | None, service: str = "") -> limits.Asked:
        return limits.Asked(
            episode=episode,
            runbook=runbook,
            resource=resource,
            mode=self._mode,
            live=LIVE_LEASES * self._lease,
            hold_left=self._hold_until - self._clock.boottime(),
            hold_why=self.hold_off_why,
            stopped=f"the journal has lost events: {self._witness.regressed}"
            if self._witness is not None and self._witness.regressed
            else "",
            service=service,
        )

    def _acknowledged(self, event: Event) -> None:
        if self._witness is not None:
            self._witness.acknowledged(event.id)


def _unwaited(names: str) -> str:
    return f"no COMMIT of the journal waits for its PostgreSQL's standby ({names}); a failover to it would lose events"
