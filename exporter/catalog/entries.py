"""What an entry of the catalog is, and how the file of a subject makes its entries.

In: entries. Out: a `Subject`. It must never know a particular family.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["gauge", "counter", "histogram"]
Runs = Literal["at scrape time", "in the background", "inside each service"]

DURATION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0)
"""Upper bounds in seconds; 5 is the handbook's limit for a compliance check, so a bucket ends exactly there."""


@dataclass(frozen=True, slots=True)
class Label:
    """One label. `values` is its closed set; None means "a name out of the configuration", told in `source`."""

    name: str
    source: str
    values: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """One family. `unit` is the base unit in the name ("" for a plain number or a state).

    `name` is as PromQL writes it: counters with `_total`, histograms without `_bucket`.
    """

    name: str
    kind: Kind
    unit: str
    help: str
    collector: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def label_names(self) -> tuple[str, ...]:
        """Label names in the order in which samples give their values."""
        return tuple(label.name for label in self.labels)


@dataclass(frozen=True, slots=True)
class CollectorDoc:
    """What an operator must know of a collector."""

    name: str
    runs: Runs
    summary: str
    needs: str


class Subject:
    """The collectors and families of one file of the catalog, in the order in which they are entered."""

    def __init__(self) -> None:
        self.collectors: dict[str, CollectorDoc] = {}
        self.metrics: dict[str, Metric] = {}

    def collector(self, name: str, runs: Runs, summary: str, needs: str) -> str:
        """Enter a collector; its name, for its families."""
        self.collectors[name] = CollectorDoc(name, runs, summary, needs)
        return name

    def metric(
        self, name: str, kind: Kind, unit: str, help_: str, owner: str, *labels: Label, buckets: tuple[float, ...] = ()
    ) -> Metric:
        """Enter a family that the collector `owner` makes. Raises ValueError when the name is there already."""
        if name in self.metrics:
            raise ValueError(f"{name} is twice in the catalog")
        self.metrics[name] = made = Metric(name, kind, unit, help_, owner, labels, buckets)
        return made
