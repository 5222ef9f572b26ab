"""The simulated years: nothing that must never be happens, the same seed gives the same year, and what fails is told.

Each run plays new seeds, made of the clock and printed; `SIM_SEED` chooses the first. Stories that ever failed are played again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from remediator.world import Health
from simulation import campaign, command, measures, mutants, persons, report
from simulation import story as stories
from simulation.invariants import ALL_INVARIANTS, violations
from simulation.measures import Result, Row, wilson
from simulation.run import Played, play
from simulation.shrink import shrink
from simulation.story import A_YEAR, YEAR, Incident, Story, draw
from simulation.world import Effect
from tests.simulation.found import FOUND

ROOT = Path(__file__).resolve().parents[2]
SHORT = 40 * 86400.0
FEW = 10  # incidents: the story still has crashes, doubts and effects
FIRST = int(os.environ.setdefault("SIM_SEED", str(int(time.time()) % 1_000_000)))  # for the workers of a run as well


@pytest.fixture(autouse=True)
def _quiet() -> None:
    campaign.quiet()


@pytest.mark.parametrize("further", range(3))
def test_new_seeds_break_no_promise(further: int) -> None:
    """Other stories in every run: `SIM_SEED` of the printed one replays it."""
    seed = FIRST + further
    print(f"SIM_SEED={seed}")
    story = draw(seed, FEW, SHORT)
    found = violations(play(story))
    assert found == [], "\n".join([f"SIM_SEED={seed}", *found, *command.told(story)])


def test_what_failed_once_does_not_fail_again() -> None:
    """Every story that was ever found."""
    assert {why: found for why, story in FOUND.items() if (found := violations(play(story)))} == {}


def history(played: Played) -> list[tuple[str, str, float]]:
    return [(event.episode, event.kind, event.at) for events in played.episodes.values() for event in events]


@pytest.mark.parametrize("seed", [4, 5])
def test_a_seed_replays_exactly(seed: int) -> None:
    """One process and two replicas: the same effects, the same events with the same ids, at the same times."""
    first, second = (play(draw(seed, FEW, SHORT)) for _ in range(2))
    assert first.world.effects == second.world.effects
    assert history(first) == history(second)
    assert first.world.effects, "nothing happened: it shows nothing"


@pytest.fixture(scope="module")
def played() -> Played:
    campaign.quiet()
    found = play(draw(4, FEW, SHORT))
    assert violations(found) == []
    return found


def test_effects_are_judged(played: Played) -> None:
    """Each promise about an effect is broken by an effect that breaks it."""
    one = played.world.effects[0]
    wrong = {
        "no_effect_twice": one,
        "intent_before_effect": replace(one, intended=False),
        "within_its_window": replace(one, late=30.0),
        "not_on_the_healthy": replace(one, forbidden=("healthy",)),
        "not_while_silenced": replace(one, forbidden=("silenced",)),
        "not_while_paused": replace(one, forbidden=("paused",)),
        "not_in_shadow": replace(one, forbidden=("shadow",)),
        "not_while_caused": replace(one, forbidden=("a cause",)),
        "not_in_a_storm": replace(one, forbidden=("storm",)),
        "no_effect_in_doubt": replace(one, forbidden=("in doubt",)),
        "cooldown_kept": one,
    }
    names = {rule.__name__ for rule in ALL_INVARIANTS}
    before = list(played.world.effects)
    for name, effect in wrong.items():
        played.world.effects[:] = [*before, effect]
        broken = {said.partition(":")[0] for said in violations(played)}
        played.world.effects[:] = before
        assert name in names
        if name != "cooldown_kept":
            assert name in broken, name


def test_a_healthy_target_is_no_false_promise_when_all_were_fooled(played: Played) -> None:
    """Both monitors and probe were wrong: a false action in the figures, and no broken promise."""
    before = list(played.world.effects)
    fooled: Effect = replace(
        before[0], attempt=before[0].attempt, health=Health.HEALTHY, forbidden=("healthy",), fooled=True
    )
    played.world.effects[:] = [fooled, *before[1:]]
    assert violations(played) == []
    played.world.effects[:] = before


def test_a_failing_story_is_made_smaller() -> None:
    """Of many incidents and faults one of each is left, and it still fails for the same promise."""
    story = draw(9, 30, SHORT)
    guilty, other = story.incidents[7], story.faults[3]

    def broken(smaller: Story) -> frozenset[str]:
        return frozenset({"x"} if guilty in smaller.incidents and other in smaller.faults else ())

    smallest = shrink(story, broken, plays=300)
    assert smallest.incidents == (guilty,)
    assert smallest.faults == (other,)


def test_a_story_that_is_told_is_the_same_story() -> None:
    """What is printed of a failing seed can be pasted into a test."""
    for seed in range(12):
        story = draw(seed, 5, SHORT)
        assert eval("\n".join(command.told(story)), vars(stories)) == story


def test_people_come_as_the_handbook_says() -> None:
    """The numbers are those of alert-rules/severity.yml."""
    levels = yaml.safe_load((ROOT / "alert-rules" / "severity.yml").read_text())["levels"]
    words = {"< 15 min": 900.0, "< 1 hour": 3600.0}
    for name, seconds in persons.RESPOND.items():
        assert words[levels[name]["respond"]] == seconds
        assert persons.HOLD[name] == {"3m": 180.0}.get(levels[name].get("hold"), 0.0)


@pytest.mark.parametrize(
    ("count", "of", "low", "high"), [(0, 100, 0.0, 0.0370), (5, 100, 0.0215, 0.1118), (10, 10, 0.7225, 1.0)]
)
def test_wilson(count: int, of: int, low: float, high: float) -> None:
    """Against values that others have computed (Newcombe 1998, table I, and R's prop.test without correction)."""
    assert wilson(count, of) == pytest.approx((low, high), abs=5e-4)


def test_the_command_prints_figures(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON on stdout, nothing else; exit code 0 as no promise was broken."""
    assert command.main(["--years", "0.03", "--seed", "2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["total"]["violations"] == []
    assert [year["seed"] for year in said["years"]] == [2]


@pytest.mark.parametrize(
    "wrong",
    [
        ["--years", "0"],
        ["--years", "1", "--incidents", "5"],
        ["--incidents", "0"],
        ["--processes", "0"],
        ["--years", "1.4"],
        ["--years", "nan"],
        ["--report", "x.txt"],
        ["--report", "/proc/x.md"],
        ["--report", "/nonexistent/x.md"],
    ],
)
def test_wrong_usage_is_said(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and a sentence, before anything is played."""
    with pytest.raises(SystemExit) as ended:
        command.main(wrong)
    assert ended.value.code == 2
    assert "prepctl simulate" in capsys.readouterr().err


def test_a_word_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    """Said with what to write instead."""
    with pytest.raises(SystemExit):
        command.main(["--years", "abc"])
    assert "'abc' is no number; write 1 or 0.5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("beside", "said"),
    [("{", "is not JSON"), ("[]", "no figures"), ('{"mutants": 3}', "no figures"), (None, "a folder")],
)
def test_a_page_that_cannot_be_is_refused_before_the_years(
    beside: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What lies beside it would be lost, or end the run with a traceback; it stays as it is."""
    page = tmp_path / "trust.md"
    if beside is None:
        page.mkdir()
    else:
        report.figures_of(page).write_text(beside)
    with pytest.raises(SystemExit) as ended:
        command.main(["--years", "50", "--report", str(page)])
    assert ended.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert beside is None or report.figures_of(page).read_text() == beside


def test_a_page_that_cannot_be_written_after_all_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its folder has gone while the year passed: the figures are printed, the file is named, exit code 2."""
    folder = tmp_path / "gone"
    folder.mkdir()
    result = Result(seed=2, rows={sort.name: Row() for sort in stories.Sort}, days=7.3)

    def run(tasks: object, processes: int) -> Iterator[Result]:
        folder.rmdir()
        yield result

    monkeypatch.setattr(campaign, "run", run)
    assert command.main(["--years", "0.02", "--report", str(folder / "trust.md")]) == 2
    out, err = capsys.readouterr()
    assert "7.3 days, 0 incidents: 0 effects" in out
    assert f"{folder / 'trust.json'} cannot be written: No such file or directory." in err


def test_a_run_without_an_effect_has_a_page(tmp_path: Path) -> None:
    """A quiet week: nothing was done, and that is what the page says."""
    page = tmp_path / "trust.md"
    assert command.main(["--years", "0.02", "--seed", "221", "--report", str(page)]) == 0
    assert "simulated incidents it did nothing, and none of its" in page.read_text()
    assert "| Simulated days | 7.3 |" in page.read_text()


def test_nothing_is_written_when_no_page_can_be_made(tmp_path: Path) -> None:
    """Both files, or none."""
    page = tmp_path / "trust.md"
    with pytest.raises(KeyError):
        report.save(page, {"seeds": [1]})
    assert list(tmp_path.iterdir()) == []


def made(doubled: int = 0, violations: tuple[str, ...] = (), **row: int) -> report.Figures:
    rows = {sort.name: Row() for sort in stories.Sort}
    rows["CURED"] = Row(**row)
    result = Result(seed=3, rows=rows, violations=list(violations), doubled=doubled, days=365.0)
    return report.figures([result])


def test_the_headline_is_counted() -> None:
    """Incidents and restarts apart; what happened twice and what was broken as they are."""
    several = report.headline(made(incidents=10, acted=4, effects=6, false=1))
    assert "In 10 simulated incidents it acted on 4, with 6 restarts (some took more than one): 1 of them" in several
    assert "no attempt took effect twice, and none of its" in several
    broke = ("no_effect_twice: it did", "no_effect_twice: again", "held_off: not")
    worse = report.headline(made(2, broke, incidents=1, acted=1, effects=1))
    assert "In 1 simulated incident it acted on 1, with 1 restart: 0 of them" in worse
    assert "2 times an attempt took effect twice, and 2 of its" in worse
    assert "promises were broken (3 times)." in worse
    assert report.headline(made(violations=broke[2:], incidents=2)).endswith("promises was broken (1 time).")


def test_the_page_never_says_minus_nothing() -> None:
    """Nor does the table of the terminal, and the wait that every episode begins with is no reason."""
    figures = made(incidents=1)
    figures["total"]["rows"]["HEALS"].update(alone_minutes=1.0, minutes=1.2)
    figures["worst"][0]["stopped"] = [["settling", 9], ["storm", 2]]
    page = report.text(figures)
    assert "-0" not in page
    assert "| 0 | `storm` 2 |" in page
    assert measures.whole_minutes(-0.4) == "0"
    assert measures.whole_minutes(-1234.4) == "-1,234"


def test_promises_that_no_planted_bug_broke_are_named() -> None:
    """That nothing breaks them shows less."""
    row = {"name": "x", "what": "x", "caught": ["asked_first"], "seed": 1, "stories": 1, "cpu": 1.0}
    (line,) = [line for line in report.text({**made(), "mutants": [row]}).splitlines() if line.startswith("No planted")]
    assert "`no_effect_twice`" in line
    assert "`asked_first`" not in line


@pytest.mark.parametrize(("days", "said"), [(7.3, "7.3 days"), (1.0, "1 day"), (365.0, "1 year"), (730.0, "2 years")])
def test_time_is_told_in_days_below_a_year(days: float, said: str) -> None:
    assert " ".join(measures.time_of(days)) == said


def test_hunters_are_told_before_they_hunt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A page of only some bugs, and one that nobody has made yet."""
    for wrong, said in ((["never_asked"], "of all planted bugs"), ([], "make the page first: prepctl simulate")):
        with pytest.raises(SystemExit) as ended:
            mutants.main([*wrong, "--report", str(tmp_path / "trust.md")])
        assert ended.value.code == 2
        assert said in " ".join(capsys.readouterr().err.split())


def test_a_wrong_restart_costs_the_seconds_that_it_takes() -> None:
    """An outage of nobody's incident: it is counted where the effect is, once."""
    played = play(draw(4, FEW, SHORT))
    ill = next(effect for effect in played.world.effects if effect.owner is not None)
    assert 1.0 <= ill.takes <= 8.0
    before = measures.measure(played, []).total
    played.world.effects.append(replace(ill, owner=None, health=Health.HEALTHY, takes=6.0))
    after = measures.measure(played, []).total
    assert after.minutes - before.minutes == pytest.approx(0.1)
    assert after.false - before.false == 1
    assert after.incidents == before.incidents


def test_a_silenced_alert_calls_nobody_either_way() -> None:
    """It is in neither count; any other that goes on firing is in both."""
    story = Story(2, 1, 4 * 86400.0, (Incident(0, stories.Sort.SILENCED, "mail", 1000.0, 900.0),), ())
    played = play(story)
    assert (played.alerts, played.held) == (0, 0)
    ill = Story(2, 1, 4 * 86400.0, (Incident(0, stories.Sort.STAYS, "mail", 1000.0, 0.0),), ())
    assert (played := play(ill)).alerts >= played.held >= 1


def test_a_broken_promise_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The seed on stderr, exit code 1."""
    failing = Result(seed=2, rows=Result(seed=2).rows, violations=["no_effect_twice: it did"])
    monkeypatch.setattr(campaign, "run", lambda tasks, processes: iter([failing]))
    monkeypatch.setattr(command, "table", lambda whole: "")
    monkeypatch.setattr(command, "summary", lambda whole, results: "")
    assert command.main(["--years", "0.03", "--seed", "2", "--no-shrink"]) == 1
    assert "Seed 2 breaks a promise" in capsys.readouterr().err


def test_years_are_seeds() -> None:
    """Incidents are rounded up to whole years."""
    options = command.parser().parse_args(["--incidents", str(A_YEAR + 1), "--seed", "7"])
    assert [(task.seed, task.incidents, task.seconds) for task in command.tasks_of(options)] == [
        (7, A_YEAR, YEAR),
        (8, A_YEAR, YEAR),
    ]


@pytest.mark.campaign(seconds=3600)
@pytest.mark.timeout(7200)
def test_fifty_years_break_no_promise() -> None:
    """50 seeds of a simulated year; `SIM_YEARS` chooses how many, `SIM_SEED` the first."""
    years = int(os.environ.get("SIM_YEARS", "50"))
    tasks = [campaign.Task(FIRST + number, A_YEAR, YEAR) for number in range(years)]
    found = [(result.seed, said) for result in campaign.run(tasks, os.cpu_count() or 1) for said in result.violations]
    assert found == []


def test_a_planted_bug_is_caught() -> None:
    """The shortest of them in every run; `python -m simulation.mutants` plants them all."""
    assert mutants.hunt_alone("never_asked", 3)["caught"] == ["asked_first"]


@pytest.mark.campaign(seconds=1800)
@pytest.mark.timeout(3600)
def test_every_planted_bug_is_caught() -> None:
    """All of them; minutes each for those that show seldom."""
    assert mutants.main([]) == 0


def test_the_page_says_what_the_figures_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Made of the file beside it and of nothing else; what is known of planted bugs is kept when it is made anew."""
    page = tmp_path / "trust.md"
    row = {
        "name": "never_asked",
        "what": "nobody is asked",
        "caught": ["asked_first"],
        "seed": 1,
        "stories": 1,
        "cpu": 1.0,
    }
    report.figures_of(page).write_text(json.dumps({"mutants": [row]}))
    assert command.main(["--years", "0.05", "--seed", "4", "--report", str(page)]) == 0
    figures = report.read(page)
    assert page.read_text() == report.text(figures)
    assert report.headline(figures) in page.read_text()
    assert report.headline(figures) in " ".join(capsys.readouterr().err.split())
    assert "| nobody is asked | `asked_first` | 1 | 1 |" in page.read_text()
    assert all(f"| `{rule.__name__}` |" in page.read_text() for rule in ALL_INVARIANTS)


def test_the_table_of_planted_bugs_joins_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into what is there already, which stays."""
    page = tmp_path / "trust.md"
    figures = made(incidents=3)
    report.save(page, figures)
    monkeypatch.setattr(mutants, "MUTANTS", [bug for bug in mutants.MUTANTS if bug.name == "never_asked"])
    assert mutants.main(["--stories", "3", "--processes", "1", "--report", str(page)]) == 0
    assert report.read(page)["total"] == figures["total"]
    assert "1 of 1 are caught" in page.read_text()
