"""One proof query at every Prometheus: a value that is good, fresh, and the same everywhere, or unknown.

Freshness: an instant query also returns a sample of up to five minutes ago, so the timestamp of each vector
selector inside the query is asked for too. The newest sample must be younger than two scrapes (the target is
being watched) and lie after the end of the action; that the *ranges* hold no older samples is the floor of the
runbook's hold time (`runbooks.Proof.floor`). Without a fresh selector the check is unknown, never good.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence

from remediator.durations import human
from remediator.errors import RemediatorError
from remediator.prometheus import Prometheus, Sample
from remediator.promql import selectors
from remediator.runbooks import Check
from remediator.world import CheckSample

GRACE = 2.0  # seconds: a scrape takes time, and two clocks differ by up to the allowed skew


async def check(
    wanted: Check,
    servers: Sequence[Prometheus],
    since: float,
    interval: float,
    target: Mapping[str, str],
    clock: Callable[[], float] = time.time,
) -> CheckSample:
    """One check at every server. `since` UNIX seconds, `interval` seconds between scrapes, `target` the alert's labels.

    Any bad answer makes it bad, else any unknown makes it unknown, else it is good.
    """
    found = await asyncio.gather(*(_at(wanted, server, since, interval, target, clock) for server in servers))
    bad = [item for item in found if item.good is False]
    unknown = [item for item in found if item.good is None]
    return (bad or unknown or found)[0]


async def _at(
    wanted: Check,
    server: Prometheus,
    since: float,
    interval: float,
    target: Mapping[str, str],
    clock: Callable[[], float],
) -> CheckSample:
    by = f" by ({', '.join(wanted.by)})" if wanted.by else ""
    try:
        samples, *stamps = await asyncio.gather(
            server.query(wanted.query),
            *(server.query(f"max{by}(timestamp({selector}))") for selector in selectors(wanted.query)),
        )
    except RemediatorError as error:
        return _unknown(wanted, str(error))
    samples, *stamps = (tuple(one for one in found if _of(wanted, one, target)) for found in (samples, *stamps))
    if len(samples) != 1:
        return _unknown(wanted, "no sample" if not samples else f"{len(samples)} samples, one is expected")
    value = samples[0].value
    if not math.isfinite(value):
        return _unknown(wanted, f"{value:g}")
    if stale := _stale(stamps, since, interval, clock()):
        return _unknown(wanted, f"{value:g}, but {stale}")
    good = wanted.good(value)
    return CheckSample(wanted.name, value, good, f"{value:g}, {_bound(wanted)}")


def _of(wanted: Check, sample: Sample, target: Mapping[str, str]) -> bool:
    """Is it the target's? The labels are compared here: no value of an alert ever becomes part of a query."""
    return all(target.get(name) and sample.labels.get(name) == target[name] for name in wanted.by)


def _stale(stamps: Sequence[Sequence[Sample]], since: float, interval: float, now: float) -> str:
    """Why the samples prove nothing about now, as words; "" when they do. The oldest selector decides."""
    newest = [samples[0].value for samples in stamps if samples]
    if not newest:
        return "no series behind it"
    oldest = min(newest)
    age = now - oldest
    if oldest <= since:
        return f"sampled {human(since - oldest)} before the action was over"
    return f"sampled {human(age)} ago" if age > 2 * interval + GRACE else ""


def _bound(wanted: Check) -> str:
    return f"below {wanted.below:g} is good" if wanted.below is not None else f"at least {wanted.at_least:g} is good"


def _unknown(wanted: Check, why: str) -> CheckSample:
    return CheckSample(wanted.name, None, None, why)
