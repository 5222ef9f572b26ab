"""One question for all who ask the same thing at the same time: in a storm hundreds of looks ask alike.

An answer is shared only among those who asked before it was sent for: whoever comes while one is on its way waits for
the next one. So nobody is given what was true before its own look began, and there is never more than one of a kind
under way.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Together:
    """Groups equal questions. A key names the question and all that its answer depends on; a key is never forgotten,
    so there must be a bounded number of them (one a rule, one a check).
    """

    def __init__(self) -> None:
        self._locks: defaultdict[Hashable, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._not_sent: dict[Hashable, asyncio.Future[Any]] = {}

    async def ask(self, key: Hashable, question: Callable[[], Awaitable[T]]) -> T:
        """The answer to `question`, put once for all who wait; its exception is raised to each of them."""
        while (shared := self._not_sent.get(key)) is not None:
            # shielded: one who gives up must not take the answer from the others
            if (found := await asyncio.shield(shared)) is not None:
                return found[0]  # type: ignore[no-any-return]
        return await self._put(key, question)

    async def _put(self, key: Hashable, question: Callable[[], Awaitable[T]]) -> T:
        """Ask for all who come until it is sent. None is their sign that it was given up, and to ask again."""
        shared = self._not_sent[key] = asyncio.get_running_loop().create_future()
        lock = self._locks[key]
        try:
            async with lock:
                del self._not_sent[key]
                answer = await question()
        except asyncio.CancelledError:
            shared.set_result(None)
            raise
        except BaseException as error:
            shared.set_exception(error)
            shared.exception()  # looked at: there may be nobody else
            raise
        finally:
            if self._not_sent.get(key) is shared:
                del self._not_sent[key]
        shared.set_result((answer,))
        return answer
