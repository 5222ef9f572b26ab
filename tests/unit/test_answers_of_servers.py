"""What an answer proves, and what of it may be written down: an owner of payments, and any server's words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from remediator.errors import RemediatorError
from remediator.fetch import get_json
from remediator.payments import Ended, Owner
from remediator.settings import PaymentsOwner
from tests.support.http_stubs import Answer, Request, StubServer

ITEM = {"id": 7, "failed_at": "2026-01-01T00:00:00.000000Z"}


class Says(StubServer):
    """The same to everybody."""

    said = Answer(200, b"")

    def answer(self, request: Request) -> Answer:
        return self.said


@pytest.fixture
def says() -> Iterator[Says]:
    with Says() as says:
        yield says


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.mark.parametrize(
    ("word", "ended"), [("late", Ended.NOT_BEGUN), ("changed", Ended.NOT_BEGUN), ("repeated", Ended.UNKNOWN)]
)
async def test_repeated_is_no_proof_that_nothing_began(
    says: Says, session: aiohttp.ClientSession, tmp_path: Path, word: str, ended: Ended
) -> None:
    """A copy of the call, made by somebody on the way, is answered so after the first one has begun the payment."""
    token = tmp_path / "token"
    token.write_text("a-token-of-this-test-0123456789abcdef")
    token.chmod(0o600)
    says.said = Answer(409, b"{}", {"X-Retry-Refused": word})
    owner = Owner(PaymentsOwner(url=says.url, token_file=token), session)
    assert (await owner.retry(ITEM, "a" * 32, 0.0, 5.0)).ended is ended


@pytest.mark.parametrize("status", [200, 409, 500])
async def test_words_of_a_server_are_redacted(says: Says, session: aiohttp.ClientSession, status: int) -> None:
    """They become a refusal's sentence, and that stands in the journal."""
    says.said = Answer(status, b"ERROR: Key (email)=(anna.canary@example.org) already exists, card 4242424242424242")
    with pytest.raises(RemediatorError) as error:
        await get_json(session, says.url, within=5.0)
    assert "Key (email)" in str(error.value)
    assert not any(planted in str(error.value) for planted in ("anna.canary", "4242424242424242"))
