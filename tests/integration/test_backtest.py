"""`prepctl backtest` on a real Prometheus with a past that the test has written."""

from __future__ import annotations

import contextlib
import io
import json
import math
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from html import unescape
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest
import yaml

from backtest import command
from backtest.backtest import Asked
from backtest.backtest import run as backtest_run
from backtest.errors import Unusable
from remediator import runbooks
from remediator.actions.registry import PARAMS
from remediator.diagnosis import NAMES as DIAGNOSES
from remediator.narrative import clock
from tests.support.browser import Chromium, audit
from tests.support.http_stubs import Answer, Request, StubServer
from tests.support.past import History, prometheus
from tests.support.prometheus import PrometheusServer
from tests.support.run import Run
from tests.support.waiting import free_port
from tests.unit import cases

ROOT = Path(__file__).resolve().parents[2]
MINUTE, HOUR, DAY = 60, 3600, 86400
LENGTH = DAY


def book(name: str, alerts: Sequence[str], **changes: Any) -> dict[str, Any]:
    """A runbook that restarts the service of these alerts."""
    made = {
        "format": 1,
        "name": name,
        "title": f"{name} of a test",
        "match": {"alertnames": list(alerts), "jobs": ["prep-exporter"]},
        "target_labels": ["service"],
        "blocked_by": ["CauseDown"],
        "settle": "30s",
        "stale_after": "1h",
        "vantage": {"kind": "probe"},
        "diagnosis": ["container_logs"],
        "ladder": [{"name": "restart", "action": "restart_service", "params": {"service": {"label": "service"}}}],
        "proof": {"hold": "5m", "timeout": "10m", "checks": [{"name": "calm", "query": "max(up)", "at_least": 1}]},
        "limits": {"cooldown": "30m", "per_hour": 10, "per_day": 20},
    }
    return {**made, **changes}


def iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def backtest(url: str, folder: Path, *more: str, since: float, until: float) -> tuple[int, str, str]:
    """Exit code and what it has said, by the function that prepctl calls."""
    out, err = io.StringIO(), io.StringIO()
    asked = ["--prometheus", url, "--runbooks", str(folder), "--since", iso(since), "--until", iso(until), *more]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command.main(asked)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def past(run: Run) -> Iterator[tuple[PrometheusServer, History]]:
    """A day with one alert of each kind, well apart from each other."""
    end = math.floor(time.time() / HOUR) * HOUR - HOUR
    history = History(end - LENGTH, end)
    alert = history.alert
    alert("Slow", "early", (-600, 10 * MINUTE))
    alert("Slow", "long", (1 * HOUR, 1 * HOUR + 20 * MINUTE))
    alert("Slow", "short", (2 * HOUR, 2 * HOUR + 90))
    alert("Slow", "blip", (3 * HOUR, 3 * HOUR + 15))
    # The same target twice: the second time within the cooldown of 30 minutes, and over before its end.
    alert("Slow", "twice", (4 * HOUR, 4 * HOUR + 2 * MINUTE), (4 * HOUR + 15 * MINUTE, 4 * HOUR + 25 * MINUTE))
    # Symptom and cause.
    alert("CauseDown", "database", (5 * HOUR, 5 * HOUR + 30 * MINUTE))
    alert("Slow", "victim", (5 * HOUR + 2 * MINUTE, 5 * HOUR + 20 * MINUTE))
    alert("Asking", "careful", (6 * HOUR, 6 * HOUR + 20 * MINUTE))
    alert("Foreign", "elsewhere", (7 * HOUR, 7 * HOUR + 20 * MINUTE))
    alert("Slow", "staging", (7 * HOUR, 7 * HOUR + 20 * MINUTE), environment="staging")
    alert("Slow", "", (8 * HOUR, 8 * HOUR + 10 * MINUTE))
    alert("Renamed", "old", (9 * HOUR, 9 * HOUR + 20 * MINUTE))
    history.forgot.add("Renamed")
    # Kept firing while its rule was not true any more.
    alert("Slow", "kept", (10 * HOUR, 10 * HOUR + 30 * MINUTE), true=[(10 * HOUR, 10 * HOUR + 15)])
    # The exporter could not be scraped: an empty answer of the rule means nothing.
    alert("Slow", "unseen", (11 * HOUR, 11 * HOUR + 20 * MINUTE), true=[])
    history.down.append((end - LENGTH + 11 * HOUR - 300, end - LENGTH + 11 * HOUR + 25 * MINUTE))
    # Twelve at once.
    for number in range(12):
        alert("Slow", f"storm-{number}", (13 * HOUR, 13 * HOUR + 20 * MINUTE))
    # Nothing was recorded from its middle on.
    alert("Slow", "gap", (17 * HOUR, 17 * HOUR + 10 * MINUTE))
    history.away.append((end - LENGTH + 17 * HOUR + 10 * MINUTE, end - LENGTH + 18 * HOUR))
    # Its runbook only watches by now.
    alert("Held", "watched", (19 * HOUR, 19 * HOUR + 20 * MINUTE))
    # Its rule cannot be evaluated: both sides have many series.
    alert("Broken", "broken", (20 * HOUR, 20 * HOUR + 20 * MINUTE))
    history.other["Broken"] = "prep_fault * on (job) prep_fault"
    # Two alerts of one target at once: one has it, the other one waits.
    alert("Slow", "shared", (21 * HOUR, 21 * HOUR + 20 * MINUTE))
    alert("Renamed too", "shared", (21 * HOUR + 15, 21 * HOUR + 20 * MINUTE))
    # Two alerts of one target, of which the second is over later: so long nothing is proven.
    alert("Slow", "pair", (22 * HOUR, 22 * HOUR + 2 * MINUTE))
    alert("Renamed too", "pair", (22 * HOUR + 15, 22 * HOUR + 5 * MINUTE))
    # Evaluated each minute, among others that are each 15 s; twice, with half a minute between.
    minutes = [22 * HOUR + 30 * MINUTE + each * MINUTE for each in range(6)]
    alert("Seldom", "seldom", *((at, at + 15) for at in minutes), true=[(minutes[0], minutes[-1] + 60)])
    history.seldom.add("Seldom")
    alert("Slow", "flapping", (23 * HOUR, 23 * HOUR + 5 * MINUTE), (23 * HOUR + 330, 23 * HOUR + 10 * MINUTE))
    alert("Slow", "last", (LENGTH - 15, LENGTH))
    server = prometheus(run, history)
    with server:
        yield server, history


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runbooks")
    books = (
        book("slow", ["Slow", "Renamed", "Renamed too"]),
        book("asking", ["Asking"], mode="approve"),
        book("held", ["Held"], mode="shadow"),
        book("broken", ["Broken"]),
        book("seldom", ["Seldom"]),
    )
    for each in books:
        (made / f"{each['name']}.yml").write_text(yaml.safe_dump(each))
    return made


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page") / "report.html"


@pytest.fixture(scope="module")
def found(past: tuple[PrometheusServer, History], folder: Path, page: Path) -> dict[str, Any]:
    """One backtest of the whole day, with other numbers beside the shipped ones."""
    server, history = past
    wishes = ["--set", "guards.storm_episodes=20", "--set", "slow:limits.cooldown=5m"]
    code, out, _ = backtest(
        server.url, folder, "--json", "--html", str(page), *wishes, since=history.begin, until=history.end
    )
    assert code == 0
    made: dict[str, Any] = json.loads(out)
    return made


def ends(found: dict[str, Any], of: str = "shipped") -> dict[str, list[tuple[str, str | None]]]:
    """(state, reason) of each episode by its target, in the order of time."""
    ends: dict[str, list[tuple[str, str | None]]] = {}
    for each in found[of]["episodes"]:
        ends.setdefault(each["target"].removeprefix("service="), []).append((each["state"], each["reason"]))
    return ends


def one(found: dict[str, Any], service: str) -> dict[str, Any]:
    """The first episode of a service."""
    return next(each for each in found["shipped"]["episodes"] if each["target"] == f"service={service}")


@pytest.mark.parametrize(
    ("service", "end"),
    [
        ("early", [("unknown", None)]),
        ("long", [("would act", None)]),
        ("short", [("would act", None)]),
        ("blip", [("over before", None)]),
        ("twice", [("would act", None), ("refused", "cooldown")]),
        ("victim", [("blocked by its cause", "blocked_by_cause")]),
        ("database", [("no runbook", "no_runbook")]),
        ("careful", [("would ask", None)]),
        ("elsewhere", [("no runbook", "no_runbook")]),
        ("staging", [("refused", "foreign_alert")]),
        ("", [("refused", "no_target")]),
        ("old", [("unknown", "rule_unknown")]),
        ("kept", [("over before", None)]),
        ("unseen", [("unknown", "rule_unknown")]),
        *((f"storm-{number}", [("refused", "storm")]) for number in range(12)),
        ("gap", [("would act", None)]),
        ("watched", [("would act", None)]),
        ("seldom", [("would act", None)]),
        ("broken", [("unknown", "rule_unknown")]),
        ("shared", [("would act", None), ("refused", "target_busy")]),
        ("pair", [("would act", None), ("refused", "target_busy")]),
        ("last", [("unknown", None)]),
    ],
)
def test_each_comes_to_its_end(found: dict[str, Any], service: str, end: list[tuple[str, str | None]]) -> None:
    """One alert of each kind; what the history cannot decide is unknown, and never a yes."""
    assert ends(found)[service] == end


def test_the_summary_is_one_line(found: dict[str, Any]) -> None:
    """Numbers by what would come of it, the refused ones by their reasons."""
    assert found["shipped"]["summary"] == (
        "9 would act (3 of them not needed), 1 would ask a person, "
        "17 refused (storm 12, target_busy 2, cooldown 1, foreign_alert 1, no_target 1), 1 blocked by its cause, "
        "2 over before it would have acted, 2 without a runbook, 5 unknown"
    )


def test_acting_is_compared_with_what_healed_by_itself(found: dict[str, Any]) -> None:
    """After the settle time of 30 s; ended 19.5 minutes or one minute later, or nobody knows when. Who ended it is in no
    history: that it was by itself is not claimed.
    """
    step = found["step"]
    long, short, gap = (one(found, name) for name in ("long", "short", "gap"))
    assert long["at"] - long["fired_at"] == 30
    assert abs(long["healed_after"] - (20 * MINUTE - 30)) <= step
    assert not long["unneeded"]
    assert abs(short["healed_after"] - 60) <= step
    assert short["unneeded"]
    assert "ended 1m15s later; if by itself, acting was not needed" in short["sentence"]
    assert (gap["end_known"], gap["unneeded"]) == (False, False)
    assert "not known: the recording has a gap" in gap["sentence"]


def test_sentences_say_why(found: dict[str, Any]) -> None:
    """With the value that decided."""
    assert "its beginning" in one(found, "early")["sentence"]
    assert "CauseDown" in one(found, "victim")["sentence"]
    assert "no rule Renamed" in one(found, "old")["sentence"]
    assert "cannot be scraped" in one(found, "unseen")["sentence"]
    assert "the cooldown is 30m" in found["shipped"]["episodes"][5]["sentence"]
    assert "query_range" in one(found, "broken")["sentence"]
    assert "direct probe" in one(found, "long")["sentence"], "what was assumed is said beside what it decides"
    shared = next(each for each in found["shipped"]["episodes"] if each["reason"] == "target_busy")
    assert "Episode Slow service=shared has this target" in shared["sentence"], "an id of no journal says nothing"


def test_each_alert_ends_by_the_interval_of_its_own_group(found: dict[str, Any]) -> None:
    """A minute's evaluation is one stretch, and ends no alert of another group late."""
    seldom, flapping = one(found, "seldom"), one(found, "flapping")
    assert 0 <= seldom["ended_at"] - seldom["fired_at"] - 6 * MINUTE <= found["step"]
    assert 0 <= flapping["ended_at"] - flapping["fired_at"] - 5 * MINUTE <= found["step"]


def test_a_proof_sees_every_alert_of_its_runbook(found: dict[str, Any]) -> None:
    """The hold time begins when the last of them is over."""
    (acted,) = (
        each
        for each in found["shipped"]["episodes"]
        if each["target"] == "service=pair" and each["state"] == "would act"
    )
    (verdict,) = (step for step in acted["story"] if step["what"].startswith("verdict"))
    assert verdict["what"] == "verdict fixed"
    assert abs(verdict["at"] - acted["fired_at"] - 10 * MINUTE) <= found["step"]


def test_the_same_past_gives_the_same_report(
    past: tuple[PrometheusServer, History], folder: Path, found: dict[str, Any]
) -> None:
    """To the last word; a storm, too, in which all come at once."""
    server, history = past
    _, out, _ = backtest(server.url, folder, "--json", since=history.begin, until=history.end)
    assert json.loads(out)["shipped"] == found["shipped"]


def test_a_gap_is_told(found: dict[str, Any], past: tuple[PrometheusServer, History]) -> None:
    """From five minutes after the last sample, as Prometheus looks back that long."""
    ((start, end),) = past[1].away
    (gap,) = found["gaps"]
    assert start <= gap["from"] <= start + 6 * MINUTE
    assert abs(gap["to"] - end) <= MINUTE


def test_other_numbers_beside_the_shipped_ones(found: dict[str, Any]) -> None:
    """Twelve at once are no storm any more, and the second one of a target is out of its cooldown."""
    assert found["changed"]["changes"] == ["guards.storm_episodes=20", "slow:limits.cooldown=5m"]
    changed = ends(found, "changed")
    assert changed["twice"] == [("would act", None), ("would act", None)]
    storm = [changed[f"storm-{number}"][0] for number in range(12)]
    # One runbook may act ten times an hour here.
    assert sorted(storm) == [("refused", "rate_limit")] * 2 + [("would act", None)] * 10
    differing = {each["shipped"]["target"] for each in found["differences"]}
    assert differing == {"service=twice", *(f"service=storm-{number}" for number in range(12))}


def test_the_page_has_the_facts_of_the_json(found: dict[str, Any], page: Path) -> None:
    """Every episode with its times, state and sentence, both summaries, every assumption; nothing from elsewhere."""
    html = page.read_text()
    text = unescape(re.sub(r"<[^>]+>", "", html))
    for played in (found["shipped"], found["changed"]):
        assert played["summary"] in text
        for row in played["runbooks"]:
            assert row["summary"] in text
        for each in played["episodes"]:
            for fact in (clock(each["fired_at"]), each["sentence"], each["state"], each["alertname"]):
                assert fact in text
            assert all(step["sentence"] in text for step in each["story"])
        assert html.count("<a href=") == sum(len(every["episodes"]) for every in (found["shipped"], found["changed"]))
    assert all(said in text for said in found["assumed"].values())
    assert not re.search(r"<script|<link|<img|@import|url\(", html)
    assert set(re.findall(r"https?://[^\s<\"]+", html)) <= set(re.findall(r"https?://[^\s<\"]+", json.dumps(found))) | {
        found["prometheus"]
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_can_be_read(run: Run, found: dict[str, Any], page: Path, scheme: Literal["light", "dark"]) -> None:
    """In both colour schemes, by anybody (WCAG AA), without a fault of the browser; a bar leads to its episode."""
    with Chromium(run) as chromium, chromium.person() as person:
        person.page.emulate_media(color_scheme=scheme)
        person.page.goto(page.as_uri())
        assert audit(person.page) == []
        assert person.faults == []
        assert person.page.locator("svg").count() == 2
        link = person.page.locator("svg a").first.get_attribute("href")
        assert link is not None
        assert person.page.locator(f"tr{link}").count() == 1


def test_words_in_a_terminal(past: tuple[PrometheusServer, History], folder: Path) -> None:
    """The summary, a row a runbook, and with --episodes each sentence."""
    server, history = past
    code, out, _ = backtest(
        server.url, folder, "--episodes", since=history.begin + 50 * MINUTE, until=history.begin + 290 * MINUTE
    )
    assert code == 0
    assert "3 would act (2 of them not needed), 1 refused (cooldown 1), 1 over before it would have acted." in out
    assert "The alert ended 19m45s later." in out
    assert "Assumed, since no history of series holds it:" in out


SHIPPED = runbooks.load(ROOT / "runbooks", PARAMS, DIAGNOSES, 15.0)
TARGETS = {
    "compliance-engine-slow": "python-compliance",
    "payment-failures-spike": "payments",
    "disk-space-full": "host",
}
ASKING = {"disk-space-full", "payment-failures-spike", "redis-down"}


def test_every_shipped_runbook_has_a_past(run: Run) -> None:
    """One alert each, an hour apart, with the shipped settings: it would act, or ask where it always asks."""
    end = math.floor(time.time() / HOUR) * HOUR - HOUR
    history = History(end - len(SHIPPED) * HOUR - HOUR, end)
    for number, each in enumerate(SHIPPED):
        at = (number + 1) * HOUR
        by_part = {"postgres": "postgres", "redis": "redis", "replication": "postgres-replica"}
        part = each.match.labels.get("component", "")
        service = each.match.labels.get("service") or by_part.get(part) or TARGETS.get(each.name, "python-compliance")
        labels = {**each.match.labels, "job": each.match.jobs[0], "path": "/" if "path" in each.target_labels else ""}
        labels.pop("service", None)
        history.alert(each.match.alertnames[0], service, (at, at + 20 * MINUTE), **labels)
    for cause in {cause for each in SHIPPED for cause in each.blocked_by}:
        history.alert(cause, "of-nobody")
    with prometheus(run, history) as server:
        config = ["--config", str(ROOT / "config" / "remediator.yml"), "--json"]
        code, out, _ = backtest(server.url, ROOT / "runbooks", *config, since=history.begin, until=history.end)
    assert code == 0
    came = {each["runbook"]: (each["state"], each["sentence"]) for each in json.loads(out)["shipped"]["episodes"]}
    wanted = {each.name: "would ask" if each.name in ASKING else "would act" for each in SHIPPED}
    assert {name: state for name, (state, _) in came.items()} == wanted, came


# -- what it cannot do ------------------------------------------------------------------------------------


def test_a_prometheus_that_is_away(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 3, with its address and what to look at."""
    monkeypatch.setattr("backtest.past.PAUSE", 0.0)
    url = f"http://127.0.0.1:{free_port()}"
    code, out, err = backtest(url, folder, since=time.time() - DAY, until=time.time())
    assert (code, out) == (3, "")
    assert url in err
    assert "--prometheus" in err


async def test_a_prometheus_that_goes_away_meanwhile(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the alerts are read, before what decides is: it ends with 3 and words, and reports nothing."""
    monkeypatch.setattr("backtest.past.PAUSE", 0.0)
    end = math.floor(time.time() / HOUR) * HOUR - HOUR
    history = History(end - 2 * HOUR, end)
    history.alert("Slow", "one", (HOUR, HOUR + 20 * MINUTE))
    books = runbooks.load(folder, PARAMS, DIAGNOSES, 15.0)
    server = prometheus(run, history)
    with server:
        settings = cases.settings(environment="production")
        asked = Asked(server.url, history.begin, history.end, books, settings, known=False)

        def stop(part: str, done: float) -> None:
            if (part, done) == ("Reading alerts", 1.0):
                server.stop()

        with pytest.raises(Unusable) as ended:
            await backtest_run(asked, stop)
    assert ended.value.code == 3
    assert "went away" in ended.value.message


class Lookalike(StubServer):
    """Speaks Prometheus' API as other databases do, and says nothing of its configuration."""

    def answer(self, request: Request) -> Answer:
        data = {"groups": []} if "/rules" in request.path else {}
        return Answer(200, json.dumps({"status": "success", "data": data}).encode())


def test_what_only_looks_like_a_prometheus(folder: Path) -> None:
    """Exit code 1, with the page that it answers otherwise."""
    with Lookalike() as server:
        code, out, err = backtest(server.url, folder, since=time.time() - DAY, until=time.time())
    assert (code, out) == (1, "")
    assert "/api/v1/status/config: not an answer of Prometheus" in err


def test_a_history_of_minutes(run: Run, folder: Path) -> None:
    """Shorter than the distance of two looks at whether there is anything: it is found all the same."""
    end = math.floor(time.time() / HOUR) * HOUR - HOUR
    history = History(end - 10 * MINUTE, end)
    history.alert("Slow", "one", (3 * MINUTE, 6 * MINUTE))
    with prometheus(run, history) as server:
        code, out, err = backtest(server.url, folder, since=history.begin - 50, until=history.begin + 45)
        assert (code, err) == (0, "")
        assert "0 would act" in out


def test_a_retention_that_is_shorter(past: tuple[PrometheusServer, History], folder: Path) -> None:
    """Exit code 1, from when on there is data, and what to ask for instead."""
    server, history = past
    code, _, err = backtest(server.url, folder, since=history.begin - 10 * DAY, until=history.end)
    assert code == 1
    assert f"has data from {clock(history.begin)} only" in err
    assert "--since 23h" in err or "--since 24h" in err


def test_a_stretch_without_data(past: tuple[PrometheusServer, History], folder: Path) -> None:
    """Exit code 1, with the stretch."""
    server, history = past
    code, _, err = backtest(server.url, folder, since=history.begin - 10 * DAY, until=history.begin - 9 * DAY)
    assert code == 1
    assert "holds nothing between" in err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--set", "limits.nothing=1"], "no such number"),
        (["--step", "15"], "--step"),
        (["--step", "0s"], "less than 1s"),
        (["--since", "99999999d"], "more than ten years"),
        (["--since", "2026-11-01"], "has no zone"),
        (["--until", "30"], "neither a duration"),
        (["--runbooks", "/nonexistent"], "is not a folder"),
        (["--config", "/nonexistent.yml"], "/nonexistent.yml"),
    ],
)
def test_wrong_usage(folder: Path, more: list[str], said: str) -> None:
    """Exit code 2, before anybody is asked."""
    code, _, err = backtest("http://127.0.0.1:1", folder, *more, since=time.time() - DAY, until=time.time())
    assert code == 2
    assert said in err


# -- what it costs ----------------------------------------------------------------------------------------

SECONDS, MEGABYTES = 60.0, 300.0


def crowded(days: int, names: int, services: int, seed: int = 7) -> History:
    """So many days of `names` times `services` alerts, each firing every few days for a minute to one and a half hours."""
    rng = random.Random(seed)
    end = math.floor(time.time() / HOUR) * HOUR - HOUR
    history = History(end - days * DAY, end)
    for name in range(names):
        for service in range(services):
            firing, at = [], rng.uniform(600, 3 * DAY)
            while at < days * DAY:
                length = rng.choice([60, 300, 900, 1800, 5400]) * rng.uniform(0.8, 1.2)
                firing.append((15 * (at // 15), 15 * ((at + length) // 15)))
                at += length + rng.expovariate(1 / (3.5 * DAY))
            history.alert(f"Alert{name}", f"service-{service}", *firing)
    return history


def measured(run: Run, folder: Path, history: History, names: int) -> tuple[dict[str, Any], float, float, float]:
    """The report of a process of its own, its seconds, its CPU seconds, and its largest resident set in MB."""
    for name in range(names):
        causes = [f"Alert{(name + 1) % names}"] if name % 3 == 0 else []
        made = book(f"alert-{name}", [f"Alert{name}"], blocked_by=causes)
        (folder / f"alert-{name}.yml").write_text(yaml.safe_dump(made))
    with prometheus(run, history) as server:
        asked = ["--prometheus", server.url, "--runbooks", str(folder), "--json"]
        asked += ["--since", iso(history.begin), "--until", iso(history.end)]
        began, peak, cpu = time.monotonic(), 0.0, 0.0
        with (folder / "report.json").open("w") as out:
            child = psutil.Popen([sys.executable, "-m", "backtest.command", *asked], stdout=out)
            while child.poll() is None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    peak = max(peak, child.memory_info().rss / 1e6)
                    cpu = sum(child.cpu_times()[:2])
                time.sleep(0.05)
        took = time.monotonic() - began
    assert child.returncode == 0
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    fired = sum(len(each.firing) for each in history.wrote)
    told = f"{fired} times fired, {took:.1f} s, {cpu:.1f} s of CPU, {peak:.0f} MB: {found['shipped']['summary']}"
    print(told)
    assert sum(found["shipped"]["counts"]["states"].values()) == len(found["shipped"]["episodes"]) >= fired * 0.9
    return found, took, cpu, peak


def test_three_days_cost_little(run: Run, tmp_path: Path) -> None:
    """A tenth of what is promised for thirty days; judged by CPU, as others run beside it."""
    _, _, cpu, peak = measured(run, tmp_path, crowded(3, 4, 5), 4)
    assert cpu < SECONDS / 4
    assert peak < MEGABYTES


@pytest.mark.e2e
@pytest.mark.campaign(seconds=180)
@pytest.mark.timeout(300)
def test_thirty_days_of_sixty_alerts(run: Run, tmp_path: Path) -> None:
    """At most a minute and 300 MB."""
    _, took, _, peak = measured(run, tmp_path, crowded(30, 12, 5), 12)
    assert took <= SECONDS
    assert peak <= MEGABYTES
