"""Many stories side by side, one process each.

A story is a value and playing it is a pure function, so processes share nothing; a worker that fails ends the
campaign with its own error.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import cache

import structlog

from simulation.invariants import violations
from simulation.measures import Result, measure
from simulation.run import play
from simulation.story import Story, draw

CRITICAL = 50  # the remediator's log of a simulated year would be long


@dataclass(frozen=True, slots=True)
class Task:
    """A story by what it is drawn from."""

    seed: int
    incidents: int
    seconds: float

    def story(self) -> Story:
        return draw(self.seed, self.incidents, self.seconds)


@cache
def quiet() -> None:
    """Once in a process: the remediator's log says nothing, and cycles of garbage are looked for seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(CRITICAL))


def judge(task: Task) -> Result:
    """Play one story and judge it."""
    quiet()
    began = time.process_time()
    played = play(task.story())
    result = measure(played, violations(played))
    result.seconds = time.process_time() - began
    return result


def broken(story: Story) -> frozenset[str]:
    """Names of the promises that a story breaks."""
    return frozenset(said.partition(":")[0] for said in violations(play(story)))


def run(tasks: Sequence[Task], processes: int) -> Iterator[Result]:
    """The results in the order in which they come."""
    if processes <= 1 or len(tasks) == 1:
        yield from map(judge, tasks)
        return
    with ProcessPoolExecutor(processes) as pool:
        waiting = {pool.submit(judge, task) for task in tasks}
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
