"""Stories that broke a promise once, as `prepctl simulate` printed them; each is played in every run.

A story is the fault and the way to it: `why` says what was wrong, in the remediator or in the simulation.
"""

from __future__ import annotations

from simulation.story import Story

FOUND: dict[str, Story] = {}
"""Why -> story."""
