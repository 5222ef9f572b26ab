"""What of this project may go from the engine's disk: old images and ended one-off containers. Pure.

In: the engine's own words about images and containers, and the settings. Out: what may be deleted, each by its full
id, and what looks alike and stays, each with its reason. What is not known is kept: an image without both labels of
Compose is not ours, one without a time is young.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remediator.containers import PROJECT, SERVICE, Container, timestamp
from remediator.durations import human
from remediator.settings import Prune

NO_TIME = 1_300_000_000.0
"""UNIX seconds, March 2011: older times are those of reproducible builds (0, 1980), and tell nothing of an age."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image as `GET /images/json` and `GET /images/<id>/json` tell it.

    came   UNIX seconds: the later of when it was built and when it last got a name on this engine; None when neither
           is known
    bytes  its size with layers that other images may share: what is freed is measured, not this
    """

    id: str
    labels: Mapping[str, str]
    tags: tuple[str, ...]
    came: float | None
    bytes: int

    @property
    def service(self) -> str:
        """The service of ours that it was built for; "" without the label."""
        return self.labels.get(SERVICE, "")


@dataclass(frozen=True, slots=True)
class Kept:
    """What stays, and why."""

    id: str
    name: str
    why: str


def image_of(listed: Mapping[str, Any], inspected: Mapping[str, Any]) -> Image:
    """Raises KeyError, TypeError or ValueError when the engine's words are not of that shape."""
    tagged = str((inspected.get("Metadata") or {}).get("LastTagTime") or "")
    times = [float(listed["Created"]), timestamp(tagged) if tagged else 0.0]
    known = [time for time in times if time > NO_TIME]
    return Image(
        id=listed["Id"],
        labels=listed.get("Labels") or {},
        # Docker writes <none>:<none> for an image without a name.
        tags=tuple(tag for tag in listed.get("RepoTags") or () if not tag.startswith("<none>")),
        came=max(known, default=None),
        bytes=int(listed["Size"]),
    )


def is_ours(labels: Mapping[str, str] | None, project: str) -> bool:
    """Built by Compose for a service of this project: by both labels, never by a name that others may give too."""
    return labels is not None and labels.get(PROJECT) == project and bool(labels.get(SERVICE))


def old_images(
    images: Sequence[Image], used: frozenset[str], settings: Prune, now: float
) -> tuple[list[Image], list[Kept]]:
    """Which of our images may go, the oldest first, and why the others stay.

    `used` are the ids of the images of all containers of the engine, whoever's and in whatever state. For each service
    stay: what is used, everything at least as new as the oldest that is used (without one: as the newest), and
    `keep` before that.
    """
    by_service: dict[str, list[Image]] = defaultdict(list)
    for image in images:
        by_service[image.service].append(image)
    gone: list[Image] = []
    kept: list[Kept] = []
    for members in by_service.values():
        newest_first = sorted(members, key=lambda image: (-_rank(image), image.id))
        running = [place for place, image in enumerate(newest_first) if image.id in used]
        current = max(running, default=0)
        for place, image in enumerate(newest_first):
            why = _stays(image, place, current, used, settings, now)
            if why:
                kept.append(Kept(image.id, _name(image), why))
            else:
                gone.append(image)
    return sorted(gone, key=lambda image: (_rank(image), image.id)), kept


def _rank(image: Image) -> float:
    return image.came if image.came is not None else float("inf")


def _stays(image: Image, place: int, current: int, used: frozenset[str], settings: Prune, now: float) -> str:
    if image.id in used:
        return "a container is made of it"
    if image.came is None:
        return "when it came here is not known"
    if place <= current:
        return "it is newer than what runs"
    if place <= current + settings.keep:
        return f"one of the {settings.keep} before what runs: to roll back to"
    if now - image.came < settings.min_age:
        return f"it came {human(max(0.0, now - image.came))} ago; {human(settings.min_age)} are the least"
    if len(image.tags) > 1:
        return f"it has {len(image.tags)} names: the engine would need force"
    return ""


def _name(image: Image) -> str:
    return image.tags[0] if image.tags else image.id[:19]


def old_containers(
    containers: Iterable[Container], project: str, settings: Prune, now: float
) -> tuple[list[Container], list[Kept]]:
    """Which of our containers may go, the oldest first, and why the other one-offs stay.

    Only one-off containers that have ended. A service's own container stays, also one that its service has left
    behind: which services there are is known to the Compose file, and a stopped one is started again.
    """
    gone: list[Container] = []
    kept: list[Kept] = []
    for item in containers:
        if item.labels.get(PROJECT) != project or not item.one_off:
            continue
        if why := _container_stays(item, settings, now):
            kept.append(Kept(item.id, item.name, why))
        else:
            gone.append(item)
    return sorted(gone, key=lambda item: (ended(item), item.id)), kept


def _container_stays(item: Container, settings: Prune, now: float) -> str:
    policy = ((item.raw.get("HostConfig") or {}).get("RestartPolicy") or {}).get("Name") or "no"
    if item.status != "exited":
        return f"it is {item.status}"
    if policy != "no":
        return f"its restart policy ({policy}) may bring it back"
    if ended(item) < NO_TIME or now - ended(item) < settings.min_age:
        return f"it ended less than {human(settings.min_age)} ago"
    return ""


def ended(item: Container) -> float:
    """When it last ended, UNIX seconds; 0.0 when it never did."""
    return timestamp(item.raw["State"]["FinishedAt"])
