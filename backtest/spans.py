"""Points on a grid as spans of time, and spans as questions: was it so then, and when does it change? Pure.

A point at `t` stands for the time from `t` up to the next point of the grid: what the server found at one evaluation
holds until the next one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` up to, and without, `end`: UNIX seconds. `value` is that of the first point."""

    start: float
    end: float
    value: float = 1.0


@dataclass(slots=True)
class Series:
    """One label set and when it had a sample; the spans are in order and do not touch."""

    labels: Mapping[str, str]
    spans: list[Span] = field(default_factory=list)

    def at(self, moment: float) -> Span | None:
        """The span that holds at this moment."""
        index = bisect_right(self.spans, moment, key=lambda span: span.start) - 1
        if index >= 0 and moment < self.spans[index].end:
            return self.spans[index]
        return None

    def change(self, moment: float) -> float | None:
        """The next moment, later than this one, at which it begins or ends."""
        index = bisect_right(self.spans, moment, key=lambda span: span.end)
        if index == len(self.spans):
            return None
        span = self.spans[index]
        return span.start if moment < span.start else span.end

    def add(self, spans: Iterable[Span], *, by_value: bool = False) -> None:
        """Later spans; one that begins where the last one ends goes on with it, unless values differ `by_value`."""
        for span in spans:
            last = self.spans[-1] if self.spans else None
            if last is not None and span.start <= last.end and (not by_value or span.value == last.value):
                self.spans[-1] = Span(last.start, span.end, last.value)
            else:
                self.spans.append(span)


def of_points(points: Sequence[Sequence[object]], step: float, *, by_value: bool = False) -> list[Span]:
    """A series' values as the API gives them, [UNIX seconds, "number"] each, on a grid of `step` seconds."""
    made = Series({})
    for at, value in points:
        start = float(str(at))
        made.add([Span(start, start + step, float(str(value)))], by_value=by_value)
    return made.spans


def gaps(spans: Sequence[Span], since: float, until: float) -> list[Span]:
    """What the spans leave out between two moments."""
    found, at = [], since
    for span in spans:
        if span.start > at:
            found.append(Span(at, span.start))
        at = max(at, span.end)
    return [*found, Span(at, until)] if at < until else found
