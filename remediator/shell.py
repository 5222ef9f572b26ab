"""What every part of the shell stands on: the ports, the clock, and the little that all of it does with an episode.

The shell is one object (`engine.py::Engine`) in four files: this one, what people are told (`telling.py`), intent,
effect and outcome (`acting.py`), and the steps of an episode (`engine.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from pydantic import BaseModel

from remediator.actions.base import Action
from remediator.clock import Clock, StepDetector
from remediator.episodes import Episodes, Run
from remediator.journal import Journal
from remediator.ports import Diagnoses, People, Sight
from remediator.runbooks import Runbook
from remediator.settings import Settings

log = structlog.get_logger(__name__)


@dataclass
class Shell:
    """The ports; replaced all at once by a reload, so nothing keeps one of them."""

    journal: Journal
    sight: Sight
    actions: Mapping[str, Action]
    people: People
    diagnoses: Diagnoses
    settings: Settings
    episodes: Episodes
    clock: Clock
    _steps_of_clock: StepDetector = field(init=False)

    def __post_init__(self) -> None:
        self._steps_of_clock = StepDetector(self.clock, self.settings.guards.clock_step)

    def clock_stepped(self) -> float | None:
        """Seconds by which the wall clock was stepped since it was last asked, None when it was not."""
        return self._steps_of_clock.tick()

    async def hold_off_after_step(self) -> None:
        """Limits counted on a stepped clock mean nothing: start nothing for the longest cooldown, by boot time."""
        hold = max((book.limits.cooldown for book in self.episodes.books), default=0.0)
        log.error("the clock was stepped; starting nothing for a full cooldown", hold=hold)
        await self.journal.hold_off(hold, "the clock was stepped")

    def _params(self, action: str, values: Mapping[str, Any]) -> BaseModel:
        return self.actions[action].params_model.model_validate(dict(values))

    def _book(self, run: Run) -> Runbook:
        if run.book is None:
            raise ValueError(f"episode {run.episode}: a step that needs a runbook, and there is none")
        return run.book

    async def _release(self, episode: str, due: float, proof_at: float | None = None) -> float:
        await self.journal.release(episode, due, proof_at=proof_at)
        return due
