"""The shadow report and promotions over the real API and a real journal, and as `prepctl` shows them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from prepctl.errors import Exit
from remediator.api_models import PromotionNoted, ShadowReport
from remediator.events import OWN, Kind
from remediator.shadow_api import PIECE, strictest
from tests.integration.test_journal import sql
from tests.integration.test_prepctl import Prepctl
from tests.support.episodes import write
from tests.support.http_side import OPERATOR, Side, as_person, serve
from tests.unit.cases import NOW, RUNBOOK, SETTINGS, History
from tests.unit.cases import settings as pure_settings
from tests.unit.test_shadow_report import CLEARED, PROPOSED

HOUR, DAY = 3600.0, 86400.0
BODY = {"to": "approve", "who": "ada", "reason": "seen enough"}


@pytest.fixture
async def side(tmp_path: Path) -> AsyncIterator[Side]:
    async with serve(tmp_path, rules=pure_settings(mode="shadow")) as side:
        yield side


@pytest.fixture
def prepctl(side: Side, tmp_path: Path) -> Prepctl:
    return Prepctl(side.url, tmp_path / "api-token")


def lasted(days: float) -> History:
    """A moment to act so many days ago, over 40 minutes later."""
    at = NOW - days * DAY
    return History(at, at - 20).add(Kind.WOULD_ACT, at + 30, **PROPOSED).add(Kind.CLOSED, at + 2430, **CLEARED)


async def get(side: Side, path: str, status: int = 200) -> Any:
    async with aiohttp.ClientSession(headers=OPERATOR) as session, session.get(f"{side.url}{path}") as answer:
        assert answer.status == status, await answer.text()
        return await answer.json()


async def promote(side: Side, name: str, body: dict[str, Any], status: int, who: str = "") -> Any:
    headers = as_person(who) if who else OPERATOR
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{side.url}/api/v1/runbooks/{name}/promote", json=body) as answer,
    ):
        assert answer.status == status, await answer.text()
        return await answer.json()


async def enough(side: Side) -> None:
    """Five moments to act on three days: ready for approve."""
    for number in range(5):
        await write(side.journal, lasted(1 + number % 3 + number / 12), f"engine-{number}")


async def test_the_report_is_what_the_journal_says(side: Side) -> None:
    """By its description, field by field; the times are the journal's."""
    episode = await write(side.journal, lasted(2))
    found = await get(side, "/api/v1/shadow")
    ShadowReport.model_validate_json(json.dumps(found))
    (seen,) = found["episodes"]
    told = {event.kind: event for event in await side.journal.events(episode)}
    assert seen["id"] == episode
    assert seen["proposal"]["at"] == told[Kind.WOULD_ACT].at
    assert seen["ended_at"] == told[Kind.CLOSED].at
    assert (seen["came"], seen["came_after"]) == ("healed_alone", pytest.approx(2400, abs=5.0))
    (record,) = found["runbooks"]
    assert (record["runbook"], record["mode"], record["judged"], record["ready"]) == (
        "engine-slow",
        "shadow",
        1,
        "shadow",
    )


async def test_since_and_runbook_narrow_it(side: Side) -> None:
    """Episodes are counted from when they were opened; what is no number, or no runbook, is said."""
    await write(side.journal, lasted(2))
    assert len((await get(side, "/api/v1/shadow?since=172800"))["episodes"]) == 1  # the index has when it was stored
    assert (await get(side, "/api/v1/shadow?runbook=engine-slow"))["runbooks"][0]["episodes"] == 1
    assert (await get(side, "/api/v1/shadow?runbook=moon", 404))["error"]["code"] == "no_such_runbook"
    for wrong in ("0", "-1", "1h", "31536001", "1e3"):
        assert (await get(side, f"/api/v1/shadow?since={wrong}", 400))["error"]["code"] == "since"


async def test_more_episodes_than_are_read_at_once(side: Side) -> None:
    """Read in pieces, each of them whole."""
    for number in range(PIECE + 5):
        await write(side.journal, lasted(1), f"engine-{number}")
    found = await get(side, "/api/v1/shadow")
    assert len({seen["id"] for seen in found["episodes"]}) == PIECE + 5
    assert not found["cut"]


async def test_what_the_report_does_not_support_is_refused(side: Side) -> None:
    """Also at the API, whatever a command line thinks; with a why it is noted."""
    said = (await promote(side, "engine-slow", BODY, 409))["error"]
    assert said["code"] == "not_supported"
    assert "5 times to act must have been seen to their end; so far 0." in said["message"]
    noted = await promote(side, "engine-slow", BODY | {"despite": "the vendor has tested it"}, 200)
    PromotionNoted.model_validate_json(json.dumps(noted))
    (event,) = [event for event in await side.journal.events(OWN) if event.kind is Kind.PROMOTED]
    assert dict(event.data) == {
        "runbook": "engine-slow",
        "from": "shadow",
        "to": "approve",
        "who": "ada",
        "reason": "seen enough",
        "despite": "the vendor has tested it",
    }


async def test_what_it_supports_is_noted_once_and_in_the_report(side: Side) -> None:
    """Under the name of the token, whatever the body says; the next report tells it."""
    await enough(side)
    await promote(side, "engine-slow", BODY | {"who": "mallory"}, 200, who="bob")
    (turn,) = (await get(side, "/api/v1/shadow"))["runbooks"][0]["turns"]
    assert turn["change"] == "promoted"
    assert turn["sentence"] == "bob promotes runbook engine-slow from shadow to approve: seen enough."


@pytest.mark.parametrize(
    ("name", "body", "status", "code"),
    [
        ("moon", BODY, 404, "no_such_runbook"),
        ("engine-slow", BODY | {"to": "shadow"}, 422, "bad_body"),
        ("engine-slow", BODY | {"reason": ""}, 422, "bad_body"),
    ],
)
async def test_what_is_no_promotion(side: Side, name: str, body: dict[str, Any], status: int, code: str) -> None:
    """Each with its word."""
    assert (await promote(side, name, body, status))["error"]["code"] == code


async def test_a_viewer_cannot_promote(side: Side) -> None:
    """It takes the role operator, as every word that changes something."""
    assert (await promote(side, "engine-slow", BODY, 403, who="vera"))["error"]["code"] == "role"


async def test_who_is_there_already_is_not_promoted(tmp_path: Path) -> None:
    """Auto is in force: there is nothing above it."""
    async with serve(tmp_path, rules=pure_settings(mode="auto")) as side:
        assert (await promote(side, "engine-slow", BODY, 409))["error"]["code"] == "no_promotion"


def test_the_mode_in_force_is_the_strictest() -> None:
    """Settings, runbook, and what it has lost."""
    assert strictest("auto", "auto", False) == "auto"
    assert strictest("auto", "approve", False) == "approve"
    assert strictest("shadow", "auto", False) == "shadow"
    assert strictest("auto", "auto", True) == "approve"
    assert strictest("auto", "shadow", True) == "shadow"


# -- as a person sees it ---------------------------------------------------------------------------------------


async def test_the_report_at_a_terminal_and_from_an_export(side: Side, prepctl: Prepctl, tmp_path: Path) -> None:
    """The same sentences from the API and from an exported file, but for the mode, which no event tells."""
    episode = await write(side.journal, lasted(2))
    shown = await prepctl("shadow:report")
    assert (shown.code, shown.err) == (0, "")
    assert f"Episode {episode}" in shown.out
    assert "What really came: it was over 40m after the moment to act" in shown.out
    assert "At present its mode is shadow." in shown.out
    exported = await prepctl("journal:export")
    (tmp_path / "journal.jsonl").write_text(exported.out)
    (tmp_path / "runbooks").mkdir()
    (tmp_path / "runbooks" / "engine-slow.yml").write_text(RUNBOOK)
    file = (f"--journal={tmp_path}/journal.jsonl", f"--runbooks={tmp_path}/runbooks")
    from_file = await prepctl("shadow:report", *file)
    assert (from_file.code, from_file.err) == (0, "")
    kept = [line for line in shown.out.splitlines()[1:] if "At present" not in line]
    assert from_file.out.splitlines()[1:] == kept
    as_json = json.loads((await prepctl("shadow:report", "--json", *file)).out)
    assert [seen["id"] for seen in as_json["episodes"]] == [episode]
    assert (await prepctl("shadow:report", "--runbook=moon", *file)).code == Exit.NO
    (tmp_path / "bad.jsonl").write_text('{"episode": 1}\n')
    bad = await prepctl("shadow:report", f"--journal={tmp_path}/bad.jsonl")
    assert bad.code == Exit.USAGE
    assert "line 1 is no event" in bad.err
    ignored = await prepctl("shadow:report", f"--runbooks={tmp_path}/runbooks")
    assert (ignored.code, ignored.out) == (Exit.USAGE, "")


async def test_an_export_is_whole(side: Side, prepctl: Prepctl) -> None:
    """Over more than a page, of which a part was written by a newer remediator: all the rest is there, each event once."""
    at = NOW - DAY
    long = History(at, at)
    for number in range(1100):
        long.add(
            Kind.REFUSED, at + 1 + number // 2, reason="cooldown", sentence=f"{number}", earliest=None, rung="restart"
        )
    episode = await write(side.journal, long)
    await sql(side.journal, f"UPDATE events SET kind = 'teleported' WHERE episode = '{episode}' AND seq = 500")
    exported = await prepctl("journal:export")
    told = [json.loads(line)["seq"] for line in exported.out.splitlines()]
    assert (exported.code, sorted(told)) == (0, [seq for seq in range(1, 1102) if seq != 500])


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    """The configuration in files, as the remediator has it loaded."""
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "engine-slow.yml").write_text(f"# ours\n{RUNBOOK}")
    (tmp_path / "remediator.yml").write_text(SETTINGS.replace("mode: auto", "mode: shadow  # for now"))
    return f"--config={tmp_path}/remediator.yml", f"--runbooks={tmp_path}/books"


async def test_a_promotion_without_evidence_changes_nothing(
    prepctl: Prepctl, files: tuple[str, ...], tmp_path: Path, side: Side
) -> None:
    """What is missing is said, and neither a file nor the journal has anything of it."""
    before = (tmp_path / "remediator.yml").read_text()
    refused = await prepctl("runbook:promote", "engine-slow", "--to=approve", "--reason=now", "--yes", *files)
    assert refused.code == Exit.NO
    assert "Missing for approve: 5 times to act must have been seen to their end; so far 0." in refused.out
    assert "--despite-report" in refused.err
    assert (tmp_path / "remediator.yml").read_text() == before
    assert await side.journal.events(OWN) == []


async def test_a_promotion_with_evidence(prepctl: Prepctl, files: tuple[str, ...], tmp_path: Path, side: Side) -> None:
    """Into both files and the journal, and what is still to be done is said."""
    await enough(side)
    done = await prepctl(
        "runbook:promote", "engine-slow", "--to=approve", "--who=ada", "--reason=right 5 of 5", "--yes", *files
    )
    assert (done.code, done.err) == (0, "")
    assert "prepctl reload" in done.out
    config = (tmp_path / "remediator.yml").read_text()
    assert "by ada: right 5 of 5\nmode: approve  # for now\n" in config
    book = (tmp_path / "books" / "engine-slow.yml").read_text()
    assert book.startswith("# ours\n")
    assert "by ada: right 5 of 5\nmode: approve\n" in book
    (event,) = await side.journal.events(OWN)
    assert (event.data["who"], event.data["from"], event.data["to"]) == ("ada", "shadow", "approve")


async def test_despite_the_report_with_a_reason(
    prepctl: Prepctl, files: tuple[str, ...], tmp_path: Path, side: Side
) -> None:
    """The why stands in the file and in the journal."""
    said = ("--reason=needed tonight", "--despite-report=ada watches it herself", "--yes")
    done = await prepctl("runbook:promote", "engine-slow", "--to=auto", *said, *files)
    assert (done.code, done.err) == (0, "")
    config = (tmp_path / "remediator.yml").read_text()
    assert "# although the shadow report did not support it: ada watches it herself\nmode: auto" in config
    (event,) = await side.journal.events(OWN)
    assert event.data["despite"] == "ada watches it herself"


async def test_files_that_are_not_loaded_are_not_promoted(
    prepctl: Prepctl, files: tuple[str, ...], tmp_path: Path, side: Side
) -> None:
    """The evidence is about another runbook than the file's."""
    path = tmp_path / "books" / "engine-slow.yml"
    path.write_text(path.read_text().replace("settle: 30s", "settle: 5s"))
    refused = await prepctl("runbook:promote", "engine-slow", "--to=approve", "--reason=now", "--yes", *files)
    assert refused.code == Exit.NO
    assert "has loaded another version" in refused.err
