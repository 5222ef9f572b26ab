"""Equal questions at the same time are one question, and no answer is older than who asked."""

from __future__ import annotations

import asyncio

import pytest

from remediator.together import Together


class Server:
    """Counts how often it was asked; answers its number once it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = asyncio.Semaphore(0)
        self.fault: Exception | None = None

    async def question(self) -> int:
        self.asked += 1
        number = self.asked
        await self.answers.acquire()
        if self.fault is not None:
            raise self.fault
        return number


async def turns() -> None:
    """Let everybody come to where he waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_nobody_gets_an_answer_that_was_asked_for_before_he_came() -> None:
    """One is on its way; the ten that come meanwhile share the next one, and it is asked after they came."""
    server, together = Server(), Together()
    first = asyncio.create_task(together.ask("up", server.question))
    await turns()
    later = [asyncio.create_task(together.ask("up", server.question)) for _ in range(10)]
    await turns()
    assert server.asked == 1
    server.answers.release()
    await turns()
    assert server.asked == 2
    server.answers.release()
    assert await first == 1
    assert await asyncio.gather(*later) == [2] * 10


async def test_other_questions_do_not_wait() -> None:
    """Only equal ones are put together."""
    server, together = Server(), Together()
    both = [asyncio.create_task(together.ask(key, server.question)) for key in ("up", "rules")]
    await turns()
    assert server.asked == 2
    server.answers.release()
    server.answers.release()
    assert sorted(await asyncio.gather(*both)) == [1, 2]


async def test_a_fault_is_told_to_all_and_kept_for_nobody() -> None:
    """Whoever shared the question shares its failure; the next one asks anew."""
    server, together = Server(), Together()
    first = asyncio.create_task(together.ask("up", server.question))
    await turns()
    later = [asyncio.create_task(together.ask("up", server.question)) for _ in range(3)]
    server.answers.release()
    await first
    server.fault = ConnectionError("gone")
    server.answers.release()
    assert [type(one) for one in await asyncio.gather(*later, return_exceptions=True)] == [ConnectionError] * 3
    server.fault = None
    server.answers.release()
    assert await together.ask("up", server.question) == 3


@pytest.mark.parametrize("leaver", [0, 1])
@pytest.mark.parametrize("sent", [False, True])
async def test_who_gives_up_leaves_the_others_their_answer(leaver: int, sent: bool) -> None:
    """Also when it is the one who asks for all of them, before or after the question was sent."""
    server, together = Server(), Together()
    first = asyncio.create_task(together.ask("up", server.question))
    await turns()
    later = [asyncio.create_task(together.ask("up", server.question)) for _ in range(3)]
    await turns()
    if sent:
        server.answers.release()
        await first
        await turns()
    later[leaver].cancel()
    await turns()
    for _ in range(4):
        server.answers.release()
    await first
    left = [task for task in later if task is not later[leaver]]
    assert min(await asyncio.gather(*left)) > 1, "an answer from before they came"
