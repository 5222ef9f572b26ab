"""The console over a journal in PostgreSQL: the very tests of `test_console.py` and `test_clicks.py` that read or write the journal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from remediator.api import ANSWER_TIMEOUT
from remediator.clicks import WAIT
from tests.integration import test_clicks as of_clicks
from tests.integration import test_console as of_console
from tests.support.http_side import Side, serve
from tests.support.servers import Database, PostgresServer
from tests.support.tcp_proxy import TcpProxy

nobody, ada, vera = of_console.nobody, of_console.ada, of_console.vera


@pytest.fixture
async def side(tmp_path: Path, database: Database) -> AsyncIterator[Side]:
    async with serve(tmp_path, journal_url=database.dsn()) as side:
        yield side


def test_it_is_postgresql(side: Side) -> None:
    """The tests below say nothing about PostgreSQL if this is not one."""
    assert type(side.journal._store).__name__ == "PostgresStore"


# -- questions, pauses, storms --------------------------------------------------------------------------------

test_an_answer_reaches_the_episode = of_console.test_an_answer_reaches_the_episode_with_the_name_of_the_token
test_a_form_from_elsewhere_does_nothing = of_console.test_a_form_from_elsewhere_does_nothing
test_a_viewer_sees_all_and_does_nothing = of_console.test_a_viewer_sees_all_and_does_nothing
test_another_digest_and_what_is_over = of_console.test_another_digest_no_reason_and_what_is_over_are_refused
test_a_pause_is_journaled = of_console.test_a_pause_needs_its_end_and_its_reason_and_is_journaled
test_storm_and_demotion = of_console.test_storm_and_demotion_are_ended_by_name

# -- pages, filter, export, live ------------------------------------------------------------------------------

test_markup_in_an_alert_is_text = of_console.test_markup_in_an_alert_is_text
test_what_each_guardrail_said = of_console.test_pages_say_why_nothing_was_done_and_what_each_guardrail_said
test_a_shadow_report = of_console.test_a_runbooks_page_brings_its_shadow_report
test_pages_are_bounded = of_console.test_pages_are_bounded
test_the_journal_page_by_page_and_exported = of_console.test_the_journal_goes_back_page_by_page_and_is_exported_whole
test_streams_tell_of_a_change = of_console.test_streams_tell_of_a_change_are_bounded_and_end_with_the_session


@pytest.mark.parametrize("how", ["refuse", "freeze"])
async def test_a_server_that_is_gone_is_said_and_its_return_is_seen(
    tmp_path: Path, database: Database, postgres_server: PostgresServer, how: str
) -> None:
    """503 with what to do, within the time of an answer, whether connections are refused or nothing comes back."""
    with TcpProxy(postgres_server.port) as proxy:
        url = database.dsn().replace(f":{postgres_server.port}/", f":{proxy.port}/")
        async with serve(tmp_path, journal_url=url) as side, of_console.browser() as client:
            person = of_console.Person(side, client)
            await person.log_in("ada-token")
            assert (await person.get("/console/journal"))[0] == 200
            {"refuse": proxy.refuse, "freeze": proxy.freeze}[how]()
            proxy.reset()
            began = time.monotonic()
            status, text, _ = await person.get("/console/journal")
            assert (status, "The journal cannot be used now" in text, "Traceback" in text) == (503, True, False)
            assert time.monotonic() - began < ANSWER_TIMEOUT + 2
            {"refuse": proxy.accept, "freeze": proxy.thaw}[how]()
            async with asyncio.timeout(20):
                while (await person.get("/console/journal"))[0] != 200:
                    await asyncio.sleep(0.2)


# -- clicks that are not taken --------------------------------------------------------------------------------

test_each_refused_answer_is_told = of_clicks.test_each_refused_answer_is_told_with_who_and_why
test_every_other_act_is_told = of_clicks.test_every_other_act_that_is_refused_is_told
test_of_two_at_once_the_second_is_told = of_clicks.test_of_two_that_came_at_once_the_second_is_told
test_a_doubt_is_settled_once = of_clicks.test_a_doubt_is_settled_once_and_the_second_word_is_told
test_a_click_is_told_once = of_clicks.test_a_click_is_told_once_though_its_owner_died_in_between
test_two_replicas_tell_at_once = of_clicks.test_two_replicas_tell_at_once


async def test_a_no_does_not_wait_for_a_frozen_server(
    tmp_path: Path, database: Database, postgres_server: PostgresServer
) -> None:
    """The person has his answer in time; what the journal did not take then, it takes when it comes back."""
    with TcpProxy(postgres_server.port) as proxy:
        url = database.dsn().replace(f":{postgres_server.port}/", f":{proxy.port}/")
        async with serve(tmp_path, journal_url=url) as side:
            proxy.freeze()
            began = time.monotonic()
            assert await of_clicks.send(side, of_clicks.VERA, "/storm/end", reason="x") == 403
            assert WAIT - 0.5 < time.monotonic() - began < WAIT + 1
            proxy.thaw()
            async with asyncio.timeout(20):
                while not await of_clicks.told(side):
                    await asyncio.sleep(0.2)
