"""The real engine and journal through single stories of the simulated world, one promise each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import text

from remediator.actions.base import Call, Outcome, Result, Settled, Settlement
from remediator.engine import Engine
from remediator.events import Event, Kind, Verdict
from remediator.journal import Journal, Routed
from remediator.journal.sqlite import SQLiteStore
from remediator.ledger import fold
from remediator.reasons import Reason, Refusal
from remediator.runbooks import Runbook, Rung
from remediator.webhook import split
from remediator.world import World
from simulation.small_world import START, MortalJournal, SimRestart, SimService, SimSight, SimWorld
from tests.simulation.test_simulation import BOOK, HORIZON, SETTINGS, engine_over, history, live, process, to_alerts

ALWAYS = [(START, START + 100 * HORIZON)]


def sick(seed: int = 5, **spans: list[tuple[float, float]]) -> SimWorld:
    """One service, ill from the start; `spans` name what else is so, underscores for blanks."""
    world = SimWorld(seed)
    world.services["engine"] = SimService("engine", sick_since=START)
    world.spans = {name.replace("_", " "): times for name, times in spans.items()}
    return world


async def test_a_doubt_reaches_people_although_the_target_cannot_be_asked(tmp_path: Path) -> None:
    """The answer is lost and the target stays silent: after a minute people know, and nothing is redone."""
    world = sick(answers_lost=ALWAYS, target_silent=ALWAYS)
    async with process(world, tmp_path / "j.db") as (engine, _):
        await live(world, engine, START + 900)
    assert len(world.effects) == 1
    assert {page.alertname for page in world.pages} == {"RemediationInDoubt"}
    assert len(world.pages) > 5, "told once is not told: it is a standing state"


async def test_an_unknown_end_that_comes_to_be_seen_is_proved(tmp_path: Path) -> None:
    """People were told that it is not known; a minute later the target shows it, and the page ends by itself."""
    world = sick(answers_lost=ALWAYS)

    async def settle(call: Call) -> Settled:
        if world.clock.now() < world.effects[0].at + 300:
            return Settled(Settlement.UNKNOWN, "let through, and not started since")
        return await SimRestart.settle(engine.actions["restart_service"], call)  # type: ignore[arg-type]

    async with process(world, tmp_path / "j.db") as (engine, _):
        engine.actions["restart_service"].settle = settle  # type: ignore[method-assign]
        await live(world, engine, START + 1800)
    kinds = [event.kind for event in world.events]
    assert len(world.effects) == 1
    assert kinds.count(Kind.SETTLED) == 2, "unknown once, then done: not a line each minute"
    assert kinds.index(Kind.HANDED_OVER) < kinds.index(Kind.VERDICT) < kinds.index(Kind.CLOSED)


async def test_that_nothing_is_seen_later_settles_no_doubt(tmp_path: Path) -> None:
    """Who let it through forgets it some day: after an unknown end only what is seen counts."""
    world = sick(answers_lost=ALWAYS)
    answers = iter([Settlement.UNKNOWN])

    async def settle(call: Call) -> Settled:
        return Settled(next(answers, Settlement.NOT_DONE), f"asked about {call.attempt}")

    async with process(world, tmp_path / "j.db") as (engine, _):
        engine.actions["restart_service"].settle = settle  # type: ignore[method-assign]
        await live(world, engine, START + 1800)
    assert len(world.effects) == 1
    assert [event.kind for event in world.events].count(Kind.SETTLED) == 1
    assert {page.alertname for page in world.pages} == {"RemediationInDoubt"}


async def test_a_proof_goes_on_whichever_replica_looks() -> None:
    """Two on one journal, each round by another one: fixed after the hold time, as by one alone."""
    world = sick()
    store = SQLiteStore(None, world.clock.now, shared=True)
    await store.open()
    names = ("one", "two")
    journals = [
        await Journal.over(
            store, owner=name, clock=world.clock, mode="auto", config_digest="sim", hold_off=0.0, lease=15.0
        )
        for name in names
    ]
    engines = [engine_over(world, journal) for journal in journals]
    rounds: list[str] = []
    try:
        while not world.rule_true("engine"):
            world.clock.t += 5.0
        await journals[0].store([("delivery", world.body("engine", "firing"))])
        for turn in range(200):
            engine, name = engines[turn % 2], names[turn % 2]
            await engine.journal.heartbeat("auto")
            for claim in await engine.journal.take_in(to_alerts, 16):
                rounds += [name] if world.effects else []
                await engine.drive(claim)
            world.clock.t += BOOK.proof.every  # when the next round is due, it is the other one's turn
        (episode,) = (await history(journals[0])).values()
    finally:
        await store.close()
    assert len(world.effects) == 1
    assert set(rounds[1:]) == set(names)
    assert episode.last is not None
    assert episode.last.verdict is Verdict.FIXED
    took = episode.last.verdict_at - episode.last.effect_at
    assert took <= BOOK.proof.hold + 3 * BOOK.proof.every
    assert not world.pages


async def test_a_call_may_begin_until_start_within_of_the_look(tmp_path: Path) -> None:
    """Counted from the look on the target's clock, however old it is when the intent is written: the settling of a doubt
    counts back by the same number.
    """

    class Slow(SimSight):
        async def look(
            self, book: Runbook, rung: Rung, params: BaseModel | None, labels: Mapping[str, str], now: float
        ) -> World:
            found = await super().look(book, rung, params, labels, now)
            await self.world.clock.sleep(3.0)
            return found

    world = sick()
    async with process(world, tmp_path / "j.db") as (engine, _):
        engine.sight = Slow(world, engine.actions["restart_service"])  # type: ignore[arg-type]
        await live(world, engine, START + 300)
    (intent,) = [event for event in world.events if event.kind is Kind.INTENT]
    age = intent.at - intent.data["looked_at"]
    assert age > 3.0
    # The target tells its clock a moment after the look has begun.
    told = intent.data["start_by"] - SETTINGS.guards.start_within - intent.data["looked_at"]
    assert 0.0 <= told < 1.0


@pytest.mark.parametrize(("took", "intents"), [(3.0, 1), (4.5, 0)])
async def test_nothing_is_begun_in_the_last_third_of_a_lease(tmp_path: Path, took: float, intents: int) -> None:
    """Of 6 s: a look of 4.5 s is fresh enough to act on, and by then somebody else may own the episode before the effect."""

    class Slow(SimSight):
        async def look(
            self, book: Runbook, rung: Rung, params: BaseModel | None, labels: Mapping[str, str], now: float
        ) -> World:
            found = await super().look(book, rung, params, labels, now)
            await self.world.clock.sleep(took)
            return found

    world = sick()
    async with process(world, tmp_path / "j.db") as (engine, _):
        assert took < engine.settings.guards.look_max_age
        assert engine.settings.journal.lease == 6.0
        engine.sight = Slow(world, engine.actions["restart_service"])  # type: ignore[arg-type]
        await live(world, engine, START + 300)
    assert len([event for event in world.events if event.kind is Kind.INTENT]) == intents
    assert len(world.effects) == intents
    said = {event.data["reason"] for event in world.events if event.kind is Kind.REFUSED}
    assert Reason.LOOK_STALE not in said


async def test_an_episode_that_no_replica_can_take_reaches_people(tmp_path: Path) -> None:
    """A newer version has written what this one cannot read, and is gone: after three claims, and each minute from then on."""
    world = sick(silenced=ALWAYS)
    async with process(world, tmp_path / "j.db") as (engine, journal):
        await live(world, engine, START + 60)
        (row,) = await journal.open_episodes()
        assert world.pages == []
        await journal._store.write(lambda tx: tx.run(text("UPDATE events SET kind = 'teleported' WHERE seq = 2")))
        await live(world, engine, START + 90)
        assert [page.alertname for page in world.pages] == ["RemediationNeedsPeople"]
        await live(world, engine, START + 400)
        told = [(page.alertname, page.episode) for page in world.pages]
    assert set(told) == {("RemediationNeedsPeople", row.episode)}
    assert len(told) >= 4
    assert "newer version" in world.pages[-1].summary
    assert world.effects == []


@pytest.mark.parametrize("gone", ["", "seq = 1", "seq > 0"])
async def test_an_episode_with_missing_events_reaches_people(tmp_path: Path, gone: str) -> None:
    """What is gone may have been an effect: nothing is decided on what is left of it."""
    world = sick(silenced=[(START, START + 90)])
    async with process(world, tmp_path / "j.db") as (engine, journal):
        await live(world, engine, START + 60)
        (row,) = await journal.open_episodes()
        if gone:
            await journal._store.write(lambda tx: tx.run(text(f"DELETE FROM events WHERE {gone}")))
        await live(world, engine, START + 400)
    assert len(world.effects) == (0 if gone else 1)
    if gone:
        assert {(page.alertname, page.episode) for page in world.pages} == {("RemediationNeedsPeople", row.episode)}
        assert "are missing" in world.pages[-1].summary


async def test_an_effect_that_the_events_do_not_tell_of_is_not_done_again(tmp_path: Path) -> None:
    """Everything since the intent is gone, and the target is ill: the charge tells that something was begun."""
    world = sick()
    async with process(world, tmp_path / "j.db") as (engine, journal):
        while not world.effects:
            await live(world, engine, world.clock.now() + 5)
        (row,) = await journal.open_episodes()
        (intent,) = [one for one in await journal.events(row.episode) if one.kind is Kind.INTENT]
        await journal._store.write(lambda tx: tx.run(text(f"DELETE FROM events WHERE seq >= {intent.seq}")))
        world.services["engine"].sick_since = world.clock.now()
        await live(world, engine, world.clock.now() + 900)
    assert len(world.effects) == 1
    assert "are missing" in world.pages[-1].summary


async def test_two_alerts_of_one_target_are_no_news_for_ever(tmp_path: Path) -> None:
    """A pair of servers tells of one target under two fingerprints, again each minute: the journal does not grow by it."""
    world = sick(silenced=ALWAYS)
    body = json.loads(world.body("engine", "firing"))
    (alert,) = body["alerts"]
    body["alerts"] = [
        {**alert, "labels": {**alert["labels"], "replica": name}, "fingerprint": name * 16} for name in ("a", "b")
    ]
    async with process(world, tmp_path / "j.db") as (engine, journal):
        lengths = []
        for _ in range(90):
            await journal.store([("delivery", json.dumps(body).encode())])
            await live(world, engine, world.clock.now() + 60)
            (row,) = await journal.open_episodes()
            lengths.append(len(await journal.events(row.episode)))
        ledger = fold(await journal.events(row.episode))
    assert ledger.handed_over == Reason.STALE_ALERT
    assert lengths[-1] == lengths[-20], "it was handed over long ago"
    assert len([event for event in world.events if event.kind is Kind.OBSERVED]) <= 3
    assert {"a" * 16, "b" * 16} <= ledger.heard


async def test_what_kills_every_process_reaches_people(tmp_path: Path) -> None:
    """Nobody lives to say that it failed: the claims are counted, and the fourth life tells people before it looks."""

    class Gone(BaseException):
        """The process ends here."""

    class Deadly(SimSight):
        async def look(self, *_: Any, **__: Any) -> World:
            raise Gone

    world = sick()
    for _ in range(6):
        with suppress(Gone):
            async with process(world, tmp_path / "j.db") as (engine, _journal):
                engine.sight = Deadly(world, engine.actions["restart_service"])  # type: ignore[arg-type]
                await live(world, engine, world.clock.now() + 120)
    assert [page.alertname for page in world.pages][:1] == ["RemediationNeedsPeople"]
    assert world.effects == []


async def test_without_evidence_nothing_is_restarted(tmp_path: Path) -> None:
    """A restart would destroy what could not be read."""
    world = sick(no_evidence=ALWAYS)
    async with process(world, tmp_path / "j.db") as (engine, _):
        await live(world, engine, START + 300)
    assert world.effects == []
    reasons = {event.data["reason"] for event in world.events if event.kind is Kind.REFUSED}
    assert reasons == {Reason.NO_EVIDENCE}


async def test_a_stepped_clock_does_not_shorten_a_cooldown(tmp_path: Path) -> None:
    """The wall clock is set half an hour ahead just after a remediation: the next one waits by boot time."""
    world = sick()
    async with process(world, tmp_path / "j.db") as (engine, _):
        await live(world, engine, START + 600)
        assert len(world.effects) == 1
        world.clock.stepped = BOOK.limits.cooldown
        world.services["engine"].sick_since = world.clock.now()
        await live(world, engine, world.clock.now() + 600)
        assert len(world.effects) == 1, "the step made the cooldown vanish"


async def test_an_episode_that_always_fails_reaches_people_and_ends_nothing(tmp_path: Path) -> None:
    """Looking raises each time: the process lives on, and after three claims people are told."""

    class Broken(SimSight):
        async def look(
            self, book: Runbook, rung: Rung, params: BaseModel | None, labels: Mapping[str, str], now: float
        ) -> World:
            raise ZeroDivisionError("a mistake of ours")

    world = sick()
    async with process(world, tmp_path / "j.db") as (engine, _):
        engine.sight = Broken(world, engine.actions["restart_service"])  # type: ignore[arg-type]
        await live(world, engine, START + 300)
    assert world.effects == []
    assert "RemediationNeedsPeople" in {page.alertname for page in world.pages}


async def test_stopped_in_the_middle_of_an_effect_is_a_doubt_in_the_journal(tmp_path: Path) -> None:
    """Cancellation while the target works: the outcome in doubt is written before the process goes."""
    world = sick()
    async with process(world, tmp_path / "j.db") as (engine, journal):
        begun = asyncio.Event()

        async def never_ends(call: Call) -> Outcome:
            begun.set()
            await asyncio.Event().wait()
            return Outcome(Result.DONE, "unreachable")

        engine.actions["restart_service"].execute = never_ends  # type: ignore[method-assign]
        task = asyncio.ensure_future(until_it_acts(world, engine))
        await asyncio.wait_for(begun.wait(), 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        (ledger,) = (await history(journal)).values()
    assert ledger.last is not None
    assert ledger.last.outcome is Result.IN_DOUBT


async def test_a_pause_file_that_comes_after_the_intent_stops_the_effect(tmp_path: Path) -> None:
    """It is looked for once more right before anything is sent; the attempt has provably not begun."""

    class Touching(MortalJournal):
        async def intend(self, intent: Event, **given: Any) -> Refusal | None:
            refused: Refusal | None = await self._journal.intend(intent, **given)
            file.touch()
            return refused

    world, file = sick(), tmp_path / "pause"
    async with process(world, tmp_path / "j.db") as (engine, journal):
        engine.settings = engine.settings.model_copy(update={"pause_file": file})
        engine.journal = Touching(journal, world)  # type: ignore[assignment]
        await live(world, engine, START + 120)
        (ledger,) = (await history(journal)).values()
    assert world.effects == []
    assert ledger.last is not None
    assert ledger.last.did_not_begin
    (outcome,) = [event for event in world.events if event.kind is Kind.OUTCOME][:1]
    assert "pause file" in outcome.data["detail"]


async def until_it_acts(world: SimWorld, engine: Engine) -> None:
    """Route, claim and drive, one after the other, as the loop does."""

    def to_alerts(row: Any) -> list[Routed]:
        return split(row, (BOOK,), SETTINGS.environment)

    world.clock.t = 30
    await engine.journal.store([("delivery", world.body("engine", "firing"))])
    while True:
        await engine.journal.route(to_alerts)
        for claim in await engine.journal.claim(1):
            await engine.drive(claim)
        world.clock.t += 1.0
        await engine.journal.renew()
