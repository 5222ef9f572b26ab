"""Delete what of our compose project lies unused on the engine's disk, by id, through the Docker gate.

Only old images that Compose has built for us and ended one-off containers (`inventory.py`), only while the engine's
own disk is short of room as measured here. Each by its full id out of the preview, never by force, never with volumes,
never build cache (it belongs to no project). Two persons' approval comes before it in every mode: destructive.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import aiohttp
from pydantic import BaseModel, ConfigDict, Field

from remediator.actions.base import Action, Call, Item, Outcome, Preview, Result, Risk, Settled, Settlement
from remediator.clock import Clock
from remediator.containers import PROJECT, Answered, Container, Engine, GateState, Sent
from remediator.errors import Fault, Permanent, RemediatorError, Transient
from remediator.gate import PRUNE_ITEMS, REMEMBERED
from remediator.inventory import Image, Kept, ended, image_of, is_ours, old_containers, old_images
from remediator.reasons import Reason, Refusal
from remediator.settings import Prune, Settings

AT_ONCE = 4  # deletions side by side: the engine's disk is what they wait for
LEFT_OUT = 50  # things that stay, told at most


class PruneDockerParams(BaseModel):
    """`free_below`: acts only while less than this share of the engine's disk is free, measured by the remediator."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    free_below: float = Field(default=0.1, gt=0.0, le=1.0)


@dataclass(frozen=True, slots=True)
class Survey:
    """What may go now, in the order in which it goes: one-off containers, then images, the oldest first."""

    items: tuple[Item, ...]
    kept: tuple[Kept, ...]


class PruneDocker(Action):
    """Delete this project's old images and ended one-off containers."""

    name: ClassVar[str] = "prune_docker"
    risk: ClassVar[Risk] = Risk.DESTRUCTIVE
    idempotent: ClassVar[bool] = False
    deadline: ClassVar[float] = 120.0  # so many layers are deleted on a disk that is full and busy
    params_model: ClassVar[type[BaseModel]] = PruneDockerParams

    def __init__(self, settings: Settings, session: aiohttp.ClientSession, clock: Clock) -> None:
        self._settings = settings
        self._engine = Engine(settings.docker, session)
        self._clock = clock

    @classmethod
    def listed(cls, settings: Settings) -> Sequence[str]:
        return (settings.docker.project,)

    @classmethod
    def obstacles(cls, settings: Settings, service: str) -> tuple[Fault, ...]:
        del service
        # `prune: null` says aloud that it is off; left out, it may be forgotten.
        if settings.docker.prune is not None or "prune" in settings.docker.model_fields_set:
            return ()
        remedy = "add `prune: {}` and make the gate anew, or say `prune: null`"
        return (Fault("docker.prune", "is not there: nothing is ever deleted", remedy),)

    async def preview(self, params: BaseModel) -> Preview:
        wanted = PruneDockerParams.model_validate(params.model_dump())
        resource = f"docker:{self._settings.docker.project}"
        prune = self._settings.docker.prune
        if prune is None:
            said = "The settings have no docker.prune: nothing is ever deleted."
            refusal = Refusal(Reason.TARGET_NOT_ALLOWED, said)
            return Preview(resource, "Nothing may be deleted.", (), self._clock.now(), (refusal,))
        free, share = await asyncio.to_thread(_room, prune)
        gate = await self._engine.gate()
        survey = await self._survey(prune, gate)
        items = survey.items[:PRUNE_ITEMS]
        size = sum(int(item.get("bytes", 0)) for item in items)
        refusals = []
        if share >= wanted.free_below:
            said = f"{share:.1%} of the engine's disk ({prune.disk}) is free, {wanted.free_below:.0%} is enough:"
            refusals.append(Refusal(Reason.TARGET_NOT_FULL, f"{said} what is full is another one."))
        more = [_left_out(item["id"], _word(item), f"{PRUNE_ITEMS} a time") for item in survey.items[PRUNE_ITEMS:]]
        kept = [_left_out(item.id, item.name, item.why) for item in survey.kept]
        return Preview(
            resource=resource,
            summary=f"Delete {_many(items)}, {size / 1e6:.0f} MB at most, no volume; {free / 1e6:.0f} MB are free.",
            items=items,
            target_now=gate.now,
            refusals=tuple(refusals),
            left_out=tuple([*more, *kept][:LEFT_OUT]),
        )

    async def execute(self, call: Call) -> Outcome:
        """Delete what the preview listed and a new look allows, at most AT_ONCE side by side, each once."""
        ends = self._clock.boottime() + call.deadline
        prune = self._settings.docker.prune
        if prune is None or not 0 < len(call.items) <= PRUNE_ITEMS:
            return Outcome(Result.FAILED, f"Not allowed, or not 1 to {PRUNE_ITEMS} things; nothing was sent.")
        try:
            before, _ = await asyncio.to_thread(_room, prune)
            survey = await self._survey(prune, await self._engine.gate())
        except RemediatorError as error:
            return Outcome(Result.FAILED, f"The engine could not be looked at, nothing was sent: {error}")
        still = {item["id"]: item for item in survey.items}
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(item: Item) -> Sent:
            if still.get(item["id"], {}).get("kind") != item["kind"]:
                return Sent(Answered.NOT_SENT, "a new look does not allow it any more")
            async with turns:
                if (left := ends - self._clock.boottime()) <= 0:
                    return Sent(Answered.NOT_SENT, "the deadline passed before it was sent")
                return await self._engine.delete(item["kind"], item["id"], call.attempt, call.start_by, left)

        # Containers first: the engine keeps an image as long as one is made of it.
        sent: dict[str, Sent] = {}
        for kind in ("containers", "images"):
            batch = [item for item in call.items if item["kind"] == kind]
            sent |= dict(zip([item["id"] for item in batch], await asyncio.gather(*map(one, batch)), strict=True))
        try:
            freed = (await asyncio.to_thread(_room, prune))[0] - before
        except RemediatorError:
            freed = None
        return _outcome(call.items, sent, freed)

    async def settle(self, call: Call) -> Settled:
        """Done: the gate let the attempt through, and something of it is gone. Not done: the gate, up all the while,
        never let it through and would not any more. All else is unknown, and for people.
        """
        gate = await self._engine.gate()
        seen = await self._engine.seen(call.attempt)
        there = await self._there()
        gone = [item for item in call.items if item["id"] not in there]
        looked_at = call.start_by - self._settings.guards.start_within
        evidence = {
            "gate_started": gate.started,
            "gate_now": gate.now,
            "attempt_seen_by_gate": seen,
            "gone": [item["id"] for item in gone],
            "still_there": [item["id"] for item in call.items if item["id"] in there],
        }
        said = f"{len(gone)} of {len(call.items)} are gone."
        if seen and gone:
            return Settled(Settlement.DONE, f"The gate let this attempt through; {said}", evidence)
        if not seen and gate.started < looked_at and call.start_by < gate.now < call.start_by + REMEMBERED / 2:
            sentence = "The gate was up all the while, never saw the attempt and would refuse it as late now."
            return Settled(Settlement.NOT_DONE, f"{sentence} {said}", evidence)
        return Settled(Settlement.UNKNOWN, f"The gate {'let it through' if seen else 'cannot tell'}; {said}", evidence)

    async def _survey(self, prune: Prune, gate: GateState) -> Survey:
        """What may go by the engine's own words, asked now. Raises Transient or Permanent."""
        project = self._settings.docker.project
        used, one_offs, listed = await asyncio.gather(
            self._engine.images_in_use(), self._engine.one_offs(), self._engine.images(PROJECT, project)
        )
        ours = [entry for entry in listed if is_ours(entry.get("Labels"), project)]
        details = await asyncio.gather(*(self._engine.image(entry["Id"]) for entry in ours))
        try:
            images = [image_of(entry, detail) for entry, detail in zip(ours, details, strict=True) if detail]
        except (KeyError, TypeError, ValueError) as error:
            raise Permanent(f"The engine's answer about an image cannot be read: {error!r}") from error
        containers, kept = old_containers(one_offs, project, prune, gate.now)
        old, also = old_images(images, used, prune, gate.now)
        items = (*map(_container_item, containers), *map(_image_item, old))
        return Survey(items, (*kept, *also))

    async def _there(self) -> frozenset[str]:
        """Ids of all images and containers of our project that there are."""
        project = self._settings.docker.project
        one_offs, listed = await asyncio.gather(self._engine.one_offs(), self._engine.images(PROJECT, project))
        return frozenset({*(item.id for item in one_offs), *(str(entry["Id"]) for entry in listed)})


def _room(prune: Prune) -> tuple[int, float]:
    """Bytes free for ordinary users, and their share of the whole, as statvfs(3) and the exporter tell it."""
    try:
        found = os.statvfs(prune.disk)
    except OSError as error:
        raise Transient(f"{prune.disk}: {error.strerror}") from error
    return found.f_bavail * found.f_frsize, found.f_bavail / max(1, found.f_blocks)


def _container_item(item: Container) -> Item:
    return {"kind": "containers", "id": item.id, "name": item.name, "ended_at": ended(item)}


def _image_item(image: Image) -> Item:
    return {
        "kind": "images",
        "id": image.id,
        "service": image.service,
        "tags": list(image.tags),
        "came": image.came,
        "bytes": image.bytes,
    }


def _word(item: Item) -> str:
    return str(item.get("name") or next(iter(item.get("tags") or ()), "") or item["id"][:19])


def _left_out(id: Any, name: str, why: str) -> Item:
    return {"id": id, "name": name, "why": why}


def _many(items: Iterable[Item]) -> str:
    kinds = [item["kind"] for item in items]
    return f"{kinds.count('images')} images and {kinds.count('containers')} one-off containers"


def _outcome(items: Sequence[Item], sent: dict[str, Sent], freed: int | None) -> Outcome:
    """What was deleted, what came of it on the disk, and what of the preview was not deleted and why."""
    of = {answered: [item for item in items if sent[item["id"]].answered is answered] for answered in Answered}
    done, unsure = of[Answered.DONE], of[Answered.UNSURE]
    rest = [*of[Answered.NOT_SENT], *of[Answered.REFUSED]]
    room = "room not measured" if freed is None else f"{freed / 1e6:+.1f} MB free by statvfs"
    words = [f"Deleted {_many(done)} of {len(items)} things; {room}."]
    words += [f"In doubt: {_word(item)}: {sent[item['id']].detail}" for item in unsure]
    words += [f"Not deleted: {_word(item)}: {sent[item['id']].detail}" for item in rest]
    detail = " ".join(word if word.endswith(".") else f"{word}." for word in words)
    if unsure:
        return Outcome(Result.IN_DOUBT, detail, (*done, *unsure))
    return Outcome(Result.DONE if done else Result.FAILED, detail, tuple(done))
