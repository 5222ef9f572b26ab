"""What holds over all episodes, kept up and told: storms, and the pause file as a pause of the journal.

A storm is one page, whatever the number of episodes in it, and a standing state: said again each minute until it is
over. The pause file stops the process that sees it by itself (`acting.py` looks for it right before an effect); written
into the journal it stops every replica, and whoever reads the journal sees it.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

import structlog

from remediator import pause_file
from remediator.engine import Engine
from remediator.journal import Storm
from remediator.people import OwnAlert
from remediator.telling import STANDING

log = structlog.get_logger(__name__)

STORM, SYMPTOM = "RemediationStorm", "remediation-storm"
STEPS = (
    "Many faults at once have one cause: look for it first (database, network, disk, the host, a deployment). Nothing "
    "is repaired by itself meanwhile. When the cause is gone: prepctl storm:end --reason ..., or wait until it is calm."
)


@dataclass
class Watch:
    """One replica's part; every replica does the same, and the journal's lock makes it once.

    `tick` goes each second, and after something was claimed; it asks nobody but the journal (raises JournalError), as
    the next claims wait for it. `tell` may wait for an Alertmanager that does not answer, so nothing waits for it.
    """

    engine: Engine
    _storm: Storm | None = None
    _told: Storm | None = None
    _told_at: float = field(default=float("-inf"))  # boot time
    _file_pause: int | None = None
    _looked: bool = False

    async def tick(self) -> None:
        """Look, and write what changed."""
        await self._pause_file()
        guards = self.engine.settings.guards
        self._storm = await self.engine.journal.turn_storm(guards.storm_episodes, guards.storm_calm)

    async def tell(self) -> None:
        """Tell people of a storm when it begins, each minute, and when it is over."""
        now, told = self._storm, self._told
        if now is not None and (told is None or self.engine.clock.boottime() - self._told_at >= STANDING):
            if await self._post(now, resolved=False):
                self._told, self._told_at = now, self.engine.clock.boottime()
        elif now is None and told is not None and await self._post(told, resolved=True):
            log.warning("the storm is over", most=told.most)
            self._told = None

    async def _post(self, storm: Storm, *, resolved: bool) -> bool:
        summary = f"A storm of up to {storm.most} episodes at once: the remediator begins nothing until it is over."
        # no count in the labels: it is one page, however the storm grows
        alert = OwnAlert(STORM, "P1", "remediator", SYMPTOM, "", summary, STEPS, resolved)
        taken = await self.engine.people.post([alert])
        if not taken:
            log.error("no Alertmanager takes our alert", alertname=STORM)
        return taken

    async def _pause_file(self) -> None:
        """The file's pause begins and ends with the file, also when the process was started anew in between."""
        path, journal = self.engine.settings.pause_file, self.engine.journal
        who = f"file {path} on {socket.gethostname()}"
        there = pause_file.there(path)
        if self._file_pause is None and there:
            # Two turns may be here at once, and a replica beside us that has the same file: it is one pause.
            self._file_pause = await journal.pause("all", who, "the pause file is there", None, once=True)
            log.warning("paused by the pause file", pause=self._file_pause, file=str(path))
        elif not there and (self._file_pause is not None or not self._looked):
            for pause in await journal.pauses():
                if pause.who == who:
                    await journal.resume(pause.id, who)
                    log.warning("the pause file is gone", pause=pause.id)
            self._file_pause = None
        self._looked = True
