"""prepctl as a person runs it: the real command against a real API, words on the screen and exit codes."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from prepctl.errors import Exit
from remediator.api import Footing
from remediator.events import Kind
from tests.support.episodes import write
from tests.support.http_side import Side, serve
from tests.support.journals import sql
from tests.support.waiting import free_port
from tests.unit.cases import NOW, RUNBOOK, History

DOUBT = "d0" * 16
DEADLINE = 60.0  # seconds for one command on a busy machine


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str


class Prepctl:
    """Runs prepctl against one HTTP side, as its operator."""

    def __init__(self, url: str, token_file: Path | None) -> None:
        self.environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": "/tmp",
            "PREPCTL_URL": url,
            "PREPCTL_WHO": "ana@desk",
        }
        if token_file is not None:
            self.environment["PREPCTL_TOKEN_FILE"] = str(token_file)

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "prepctl",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment,
        )

    async def __call__(self, *arguments: str) -> Ran:
        process = await self.start(*arguments)
        async with asyncio.timeout(DEADLINE):
            out, err = await process.communicate()
        return Ran(process.returncode or 0, out.decode(), err.decode())


@pytest.fixture
async def side(tmp_path: Path) -> AsyncIterator[Side]:
    async with serve(tmp_path) as side:
        yield side


@pytest.fixture
def prepctl(side: Side, tmp_path: Path) -> Prepctl:
    return Prepctl(side.url, tmp_path / "api-token")


# -- episodes -----------------------------------------------------------------------------------------------


async def test_an_episode_is_read_as_a_story(side: Side, prepctl: Prepctl) -> None:
    """Found by the beginning of its id; every event a line with the time since the first, and why it stands."""
    history = History(NOW - 60).diagnosed(NOW - 59).intent(NOW - 30).outcome(NOW - 28).verdict(NOW - 5, "fixed")
    episode = await write(side.journal, history)
    listed = await prepctl("episodes:list")
    assert (listed.code, listed.err) == (0, "")
    assert episode in listed.out
    assert "EngineSlow" in listed.out
    shown = await prepctl("episodes:show", episode[:6])
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert lines[2] == "Proven fixed. s."
    assert lines[4] == " +0s  opened          Alert EngineSlow firing for service=engine; runbook engine-slow."
    assert lines[6].startswith("+30s  intent          Begins restart_service on docker:prep/engine (attempt a1): ")
    assert lines[7] == "+32s  outcome         Done: said so."
    assert lines[8] == "+55s  verdict         Proven fixed. s."


async def test_nothing_open_is_said(prepctl: Prepctl) -> None:
    """An empty table would leave it open whether it worked."""
    assert await prepctl("episodes:list") == Ran(0, "No open episodes.\n", "")
    assert await prepctl("episodes:list", "--all") == Ran(0, "No episodes.\n", "")


async def test_an_episode_that_is_not_there(side: Side, prepctl: Prepctl) -> None:
    """Exit 1, what was asked for, and the way to those that are."""
    found = await prepctl("episodes:show", "abcdef")
    assert found.code == Exit.NO
    assert "No episode begins with 'abcdef'." in found.err
    assert "prepctl episodes:list --all" in found.err
    assert (await prepctl("episodes:show", "../../metrics")).code == Exit.USAGE


async def test_labels_cannot_steer_the_terminal(side: Side, prepctl: Prepctl) -> None:
    """Escapes, colours, bidirectional overrides and Rich markup in a label are shown, not obeyed."""
    evil = "\x1b]0;owned\x07\x1b[31m[bold]red[/bold] \u202egnp"
    episode = await write(side.journal, History(service=evil).add(Kind.REFUSED, NOW, reason="paused", sentence=evil))
    for ran in (
        await prepctl("episodes:show", episode),
        await prepctl("episodes:list"),
        await prepctl("journal:tail"),
    ):
        assert ran.code == 0
        assert not set(ran.out) & {"\x1b", "\x07", "\u202e"}
        assert "[bold]red[/bold]" in ran.out
        assert "\\x1b]0;owned\\x07" in ran.out


async def test_json_is_for_scripts(side: Side, prepctl: Prepctl) -> None:
    """What the API said, whole."""
    episode = await write(side.journal, History())
    assert [row["id"] for row in json.loads((await prepctl("episodes:list", "--json")).out)["episodes"]] == [episode]
    assert json.loads((await prepctl("episodes:show", episode, "--json")).out)["events"][0]["kind"] == "opened"
    assert json.loads((await prepctl("journal:tail", "--json")).out)["episode"] == episode


async def test_the_journal_is_followed(side: Side, prepctl: Prepctl) -> None:
    """Each event once, also those that come later; Ctrl-C ends it without a traceback."""
    await write(side.journal, History(NOW - 60), "first")
    process = await prepctl.start("journal:tail", "--follow")
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE):
        assert b"service=engine; runbook engine-slow." in await process.stdout.readline()
        later = await write(side.journal, History(NOW), "second")
        assert later.encode() in await process.stdout.readline()
        await asyncio.sleep(1.5)  # at least one more question that tells the same events again
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
    assert (out, process.returncode) == (b"", 130)
    assert b"Traceback" not in err


# -- pauses -------------------------------------------------------------------------------------------------


async def test_the_journal_is_verified(side: Side, prepctl: Prepctl) -> None:
    """What it told outside of itself is compared with what it holds, and a change is an exit code."""
    history = History(NOW - 60).intent(NOW - 40, attempt=DOUBT)
    episode = await write(side.journal, history)
    none = await prepctl("journal:verify")
    assert (none.code, "Nothing is sealed yet" in none.out) == (Exit.DONE, True)
    await side.journal.seal()
    sound = await prepctl("journal:verify")
    assert sound.code == Exit.DONE
    assert "up to seal 1" in sound.out
    told = sound.out.rpartition("--seal ")[2].strip()
    as_told = await prepctl("journal:verify", "--seal", told)
    assert (as_told.code, "Seal 1 is there as it was told." in as_told.out) == (Exit.DONE, True)
    other = await prepctl("journal:verify", "--seal", f"1:{'0' * 64}")
    assert (other.code, other.out.startswith("seal 1: ")) == (Exit.NO, True)
    assert "is not what was told outside of the journal" in other.out
    wrong = await prepctl("journal:verify", "--seal", "the last one")
    assert wrong.code == Exit.USAGE
    assert "Give NUMBER:DIGEST" in wrong.err
    await sql(side.journal, f"UPDATE events SET at = at - 3600 WHERE episode = '{episode}' AND seq = 1")
    changed = await prepctl("journal:verify")
    assert changed.code == Exit.NO
    assert changed.out.startswith("seal 1: its events are not what was sealed")


async def test_pause_and_resume(side: Side, prepctl: Prepctl) -> None:
    """Said and in the journal, with who, why and until when; what had begun before is named."""
    await write(side.journal, History().intent(NOW, attempt=DOUBT))
    paused = await prepctl("pause", "--reason", "deployment", "--for", "2h")
    assert paused.code == 0
    assert "Paused (all) for 2h." in paused.out
    assert f"(attempt {DOUBT})" in paused.out
    (pause,) = await side.journal.pauses()
    assert (pause.scope, pause.who, pause.reason) == ("all", "ana@desk", "deployment")
    listed = await prepctl("pauses")
    assert "deployment" in listed.out
    assert "ana@desk" in listed.out
    assert await prepctl("resume") == Ran(0, f"Pause {pause.id} is ended.\n", "")
    assert await side.journal.pauses() == []
    assert await prepctl("resume") == Ran(0, "Not paused.\n", "")


async def test_pauses_of_one_runbook_or_target(side: Side, prepctl: Prepctl) -> None:
    """Two pauses are two: one of them is not ended by accident."""
    assert (await prepctl("pause", "--runbook", "engine-slow", "--reason", "a")).code == 0
    assert (await prepctl("pause", "--resource", "docker:prep/engine", "--reason", "b")).code == 0
    assert {pause.scope for pause in await side.journal.pauses()} == {
        "runbook:engine-slow",
        "resource:docker:prep/engine",
    }
    assert (await prepctl("resume")).code == Exit.USAGE
    assert (await prepctl("resume", "--all")).code == 0
    assert await side.journal.pauses() == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("pause",), Exit.USAGE, "--reason"),
        (("pause", "--reason", "x", "--for", "2"), Exit.USAGE, "not a duration"),
        (("pause", "--reason", "x", "--runbook", "engine-slo"), Exit.NO, "engine-slow"),
        (("pause", "--reason", "x", "--runbook", "a", "--resource", "b"), Exit.USAGE, "pauses of their own"),
        (("resume", "77"), Exit.NO, "No pause with this number"),
        (("doubts:settle", DOUBT, "--reason", "x"), Exit.USAGE, "--done or --not-done"),
        (("doubts:settle", DOUBT, "--done", "--reason", "x", "--yes"), Exit.NO, "no attempt with this id"),
        (("no:such",), Exit.USAGE, "No such command"),
        (("episodes:list", "--limit", "0"), Exit.USAGE, "limit"),
    ],
)
async def test_what_cannot_be_done_is_said_with_a_code(
    side: Side, prepctl: Prepctl, arguments: tuple[str, ...], code: Exit, words: str
) -> None:
    """A clear sentence on stderr and an exit code for scripts; nothing was changed."""
    found = await prepctl(*arguments)
    assert (found.code, found.out) == (code, "")
    assert words in found.err
    assert "Traceback" not in found.err
    assert await side.journal.pauses() == []


# -- doubts -------------------------------------------------------------------------------------------------


async def test_a_doubt_is_settled_by_a_person(side: Side, prepctl: Prepctl) -> None:
    """Not without a yes; with it the word is in the episode's inbox, with the person's name."""
    episode = await write(side.journal, History(NOW - 100).intent(NOW - 60, attempt=DOUBT))
    assert DOUBT in (await prepctl("doubts:list")).out
    asked = await prepctl("doubts:settle", DOUBT, "--not-done", "--reason", "never restarted")
    assert asked.code == Exit.NO
    assert await side.journal.inbox(episode) == []
    told = await prepctl("doubts:settle", DOUBT, "--not-done", "--reason", "never restarted", "--yes")
    assert (told.code, told.err) == (0, "")
    assert f"prepctl episodes:show {episode}" in told.out
    (row,) = await side.journal.inbox(episode)
    assert json.loads(row.body) == {
        "kind": "settle",
        "attempt": DOUBT,
        "settlement": "not_done",
        "who": "ana@desk",
        "reason": "never restarted",
    }


# -- health and runbooks ------------------------------------------------------------------------------------


async def test_health_is_an_exit_code(side: Side, prepctl: Prepctl) -> None:
    """0 when every footing holds, 1 with the one that does not."""
    well = await prepctl("health:check")
    assert (well.code, well.err) == (0, "")
    assert "mode shadow, version test" in well.out
    assert "0 open episodes, 0 pauses in force" in well.out
    side.footings.append(Footing("prometheus", False, "no answer within 3s"))
    ill = await prepctl("health:check")
    assert ill.code == Exit.NO
    assert "no answer within 3s" in ill.out


async def test_runbooks_are_checked_without_a_remediator(tmp_path: Path) -> None:
    """Good ones are named; of bad ones every fault is listed with file and place, and the exit code is 2."""
    prepctl = Prepctl("http://127.0.0.1:1", None)
    folder = tmp_path / "runbooks"
    folder.mkdir()
    (folder / "engine-slow.yml").write_text(RUNBOOK)
    good = await prepctl("runbook:check", str(folder))
    assert (good.code, good.err) == (0, "")
    assert good.out.startswith("engine-slow: EngineSlow; mild -> harsh; proof holds 2m; at most auto\n")
    (folder / "second.yml").write_text(RUNBOOK.replace("restart_service", "rm_rf").replace("hold: 2m", "hold: 5s"))
    bad = await prepctl("runbook:check", str(folder))
    assert (bad.code, bad.out) == (Exit.USAGE, "")
    for fault in (
        "second.yml: name:",
        "second.yml: ladder.0.action: no action 'rm_rf'",
        "second.yml: proof.hold:",
    ):
        assert fault in bad.err
    assert (await prepctl("runbook:check", str(tmp_path / "none"))).code == Exit.USAGE


async def test_runbooks_own_tests_are_an_exit_code(tmp_path: Path) -> None:
    """0 and a count; 1 with a sentence for each step that came otherwise; 2 for a file that cannot be used."""
    prepctl = Prepctl("http://127.0.0.1:1", None)
    shipped = sorted((Path(__file__).parents[2] / "runbooks" / "tests").glob("*.yml"))
    good = await prepctl("runbook:test", *map(str, shipped))
    assert (good.code, good.err) == (0, "")
    assert [line.rsplit(", ", 1)[1] for line in good.out.splitlines()] == ["0 failures"] * len(shipped)
    (tmp_path / "engine-slow.yml").write_text(RUNBOOK)
    story = (
        "runbook_files: [engine-slow.yml]\nsettings: {environment: test}\ntests:\n  - name: too soon\n"
        "    alert: {alertname: EngineSlow, job: exporter, component: engine, service: e, environment: test}\n"
        "    history: [{time: 1s, diagnosed: mild}]\n"
        "    step_test: [{eval_time: 10s, exp_step: {step: intend}}]\n"
    )
    (tmp_path / "a.yml").write_text(story)
    other = await prepctl("runbook:test", str(tmp_path / "a.yml"))
    assert other.code == Exit.NO
    assert "a.yml: 1 test, 1 step, 1 failure" in other.out
    assert "'too soon' at 10s: expected intend; got refuse (reason settling, rung mild, until 28s)" in other.err
    (tmp_path / "b.yml").write_text(story.replace("step_test", "steps"))
    wrong = await prepctl("runbook:test", str(tmp_path / "b.yml"))
    assert (wrong.code, wrong.out) == (Exit.USAGE, "")
    assert "tests.0.steps" in wrong.err
    assert (await prepctl("runbook:test", str(tmp_path / "none.yml"))).code == Exit.USAGE


async def test_the_shipped_runbooks_are_well_formed() -> None:
    """What is in the repository loads."""
    folder = Path(__file__).parents[2] / "runbooks"
    found = await Prepctl("http://127.0.0.1:1", None)("runbook:check", str(folder))
    assert (found.code, found.err) == (0, "")


# -- when it cannot be asked --------------------------------------------------------------------------------


async def test_tokens(side: Side, tmp_path: Path) -> None:
    """Missing, wrong and unreadable are told apart, with what to do."""
    without = await Prepctl(side.url, None)("episodes:list")
    assert without.code == Exit.FORBIDDEN
    assert "PREPCTL_TOKEN_FILE" in without.err
    (tmp_path / "wrong").write_text("wrong\n")
    wrong = await Prepctl(side.url, tmp_path / "wrong")("episodes:list")
    assert wrong.code == Exit.FORBIDDEN
    assert "api_token_files" in wrong.err
    assert (await Prepctl(side.url, tmp_path / "none")("episodes:list")).code == Exit.USAGE
    (tmp_path / "empty").write_text("\n")
    assert (await Prepctl(side.url, tmp_path / "empty")("episodes:list")).code == Exit.USAGE
    async with serve(_folder(tmp_path, "off"), api=False) as off:
        switched_off = await Prepctl(off.url, tmp_path / "api-token")("episodes:list")
    assert switched_off.code == Exit.FORBIDDEN
    assert "switched off" in switched_off.err


def _folder(parent: Path, name: str) -> Path:
    (parent / name).mkdir()
    return parent / name


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://127.0.0.1:1", Exit.UNREACHABLE),
        ("127.0.0.1:11471", Exit.USAGE),
        ("file:///etc/passwd", Exit.USAGE),
    ],
)
async def test_nobody_there(tmp_path: Path, url: str, code: Exit) -> None:
    """Not there is 3: a script may try again. A URL that is none is 2: it need not."""
    (tmp_path / "token").write_text("t")
    found = await Prepctl(url, tmp_path / "token")("episodes:list")
    assert (found.code, found.out) == (code, "")
    assert "PREPCTL_URL" in found.err


async def test_the_token_goes_nowhere_else(tmp_path: Path) -> None:
    """No redirect is followed and no proxy used: both would carry the token to another host."""
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.host)
        raise web.HTTPFound(f"http://127.0.0.1:{port}/elsewhere")

    app, port = web.Application(), free_port()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    (tmp_path / "token").write_text("t")
    prepctl = Prepctl(f"http://127.0.0.1:{port}", tmp_path / "token")
    prepctl.environment |= {"http_proxy": "http://127.0.0.1:1", "all_proxy": "http://127.0.0.1:1"}
    found = await prepctl("episodes:list")
    await runner.cleanup()
    assert found.code == Exit.UNREACHABLE
    assert len(seen) == 1


async def test_help_names_every_command_and_code() -> None:
    """`--help` is the documentation that is at hand at 3 am."""
    found = await Prepctl("http://127.0.0.1:1", None)("--help")
    assert found.code == 0
    for name in (
        "episodes:list",
        "episodes:show",
        "journal:tail",
        "pause",
        "pauses",
        "resume",
        "doubts:list",
    ):
        assert name in found.out
    for name in ("doubts:settle", "reload", "runbook:check", "runbook:test", "health:check", "Exit codes: 0 done"):
        assert name in found.out


async def test_it_says_in_one_sentence_why_nothing_was_done(side: Side, prepctl: Prepctl) -> None:
    """In plain words, with the value that decided; where something was done there is no such line."""
    refused = {"reason": "cooldown", "sentence": "It was acted on 5m ago.", "earliest": None, "rung": "mild"}
    left = await write(side.journal, History(NOW - 60).add(Kind.REFUSED, NOW - 20, **refused))
    shown = (await prepctl("episodes:show", left)).out.splitlines()
    assert shown[3] == ("Nothing was done so far: this target was acted on a short while ago (It was acted on 5m ago).")
    done = await write(side.journal, History(NOW - 60).intent(NOW - 30).outcome(NOW - 28), "other")
    assert "Nothing was done" not in (await prepctl("episodes:show", done)).out
