"""The engine's pool: order of arrival, a bounded queue, and waiting that can be given up at any moment."""

from __future__ import annotations

import asyncio

import pytest

from demo.engine import EngineBusy, EngineClosed, EnginePool, EngineSession

LONG = 60.0


async def settle() -> None:
    """Let every task that can run, run."""
    for _ in range(5):
        await asyncio.sleep(0)


def waiter(pool: EnginePool) -> asyncio.Task[EngineSession]:
    return asyncio.create_task(pool.acquire(LONG))


async def test_sessions_go_to_whoever_has_waited_longest() -> None:
    """First come, first served."""
    pool = EnginePool(1, 10)
    session = await pool.acquire(LONG)
    first, second = waiter(pool), waiter(pool)
    await settle()
    assert (pool.busy, pool.waiting) == (1, 2)
    pool.release(session)
    await settle()
    assert first.done()
    assert not second.done()
    pool.release(first.result())
    pool.release(await second)
    assert (pool.busy, pool.waiting) == (0, 0)


async def test_a_full_queue_refuses() -> None:
    """More callers than places are told at once."""
    pool = EnginePool(1, 1)
    session = await pool.acquire(LONG)
    waiting = waiter(pool)
    await settle()
    with pytest.raises(EngineBusy, match="1 checks wait"):
        await pool.acquire(LONG)
    pool.release(session)
    pool.release(await waiting)


async def test_patience_ends() -> None:
    """A caller waits only so long, and then has no place any more."""
    pool = EnginePool(1, 1)
    session = await pool.acquire(LONG)
    with pytest.raises(EngineBusy, match="no session came free in 0 s"):
        await pool.acquire(0.0)
    assert pool.waiting == 0
    pool.release(session)
    assert pool.busy == 0


async def test_who_stops_waiting_leaves_the_queue() -> None:
    """A cancelled caller takes no place and no session."""
    pool = EnginePool(1, 2)
    session = await pool.acquire(LONG)
    gone, stays = waiter(pool), waiter(pool)
    await settle()
    gone.cancel()
    await settle()
    assert pool.waiting == 1
    pool.release(session)
    assert await stays is session


async def test_a_session_handed_to_somebody_who_just_left_goes_on() -> None:
    """Cancelled in the very step in which the session came: it is not lost."""
    pool = EnginePool(1, 2)
    session = await pool.acquire(LONG)
    gone, stays = waiter(pool), waiter(pool)
    await settle()
    pool.release(session)
    gone.cancel()
    assert await stays is session
    assert gone.cancelled()
    pool.release(session)
    assert (pool.busy, pool.waiting) == (0, 0)


async def test_closing_turns_away_who_waits_and_who_comes() -> None:
    """A stop does not wait for the queue; a session that is out may still come back."""
    pool = EnginePool(1, 2)
    session = await pool.acquire(LONG)
    waiting = waiter(pool)
    await settle()
    pool.close()
    with pytest.raises(EngineClosed):
        await waiting
    with pytest.raises(EngineClosed):
        await pool.acquire(LONG)
    pool.release(session)
    assert pool.busy == 0
