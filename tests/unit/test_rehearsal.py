"""Runbooks' own tests: each shipped one has them, they notice every guardrail that is missing, and say what differs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from prepctl.rehearsal import read
from remediator import deciding, guardrails
from remediator.errors import ConfigError
from tests.unit.cases import RUNBOOK

ROOT = Path(__file__).resolve().parents[2]
BOOKS = sorted((ROOT / "runbooks").glob("*.yml"))
FILES = sorted((ROOT / "runbooks" / "tests").glob("*.yml"))
NO_SAY = {
    (name, "vantage")
    for name in (
        "high-database-cpu",
        "replica-not-streaming",
        "payment-failures-spike",
        "container-down",
        "disk-space-full",
        "redis-connection-failures",
        "redis-memory-full",
    )
}
"""Guardrails that cannot refuse a runbook: the direct probe where the preview is the second vantage."""


def test_every_shipped_runbook_has_its_tests() -> None:
    """By its name."""
    assert [path.name for path in FILES] == [f"{path.stem}.test.yml" for path in BOOKS]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_runbooks_do_what_their_tests_say(path: Path) -> None:
    """Each step of each story."""
    assert list(read(path).failures()) == []


def every_guardrail() -> list[str]:
    rules = (*deciding.BEFORE_LOOK, *deciding.AFTER_LOOK, *guardrails.LIMITS)
    return sorted({rule.__name__ for rule in rules} | {"settling"})


@pytest.mark.parametrize("rule", every_guardrail())
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_shipped_tests_notice_a_missing_guardrail(path: Path, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each guardrail that can refuse this runbook, replaced by "allowed": some step of its file comes otherwise.

    A new guardrail needs a line in each file under runbooks/tests.
    """
    tables = {deciding: ("BEFORE_LOOK", "HELD_BACK", "AFTER_LOOK"), guardrails: ("LIMITS",)}
    for module, names in tables.items():
        for name in names:
            kept = tuple(each for each in getattr(module, name) if each.__name__ != rule)
            monkeypatch.setattr(module, name, kept)
    if hasattr(deciding, rule):  # asked by its name as well
        monkeypatch.setattr(deciding, rule, lambda case: None)
    noticed = bool(list(read(path).failures()))
    assert noticed == ((path.name.removesuffix(".test.yml"), rule) not in NO_SAY)


ALERT = {"alertname": "EngineSlow", "job": "exporter", "component": "engine", "service": "e", "environment": "test"}


def play(folder: Path, *steps: object, settings: object = None, **more: object) -> list[str]:
    """The failures of one story about the healthy runbook."""
    (folder / "engine-slow.yml").write_text(RUNBOOK)
    story = {"name": "a story", "alert": ALERT, "step_test": list(steps), **more}
    file = {"runbook_files": ["engine-slow.yml"], "settings": settings or {"environment": "test"}, "tests": [story]}
    (folder / "a.test.yml").write_text(yaml.safe_dump(file))
    return list(read(folder / "a.test.yml").failures())


DIAGNOSED = [{"time": "1s", "diagnosed": "mild"}]


def test_a_difference_is_told_as_a_sentence(tmp_path: Path) -> None:
    """Where, what was expected, what came, and why."""
    step = {"eval_time": "31s", "facts": {"last_effect_at": "-10m"}, "exp_step": {"step": "intend", "rung": "mild"}}
    (failure,) = play(tmp_path, step, history=DIAGNOSED)
    assert failure == (
        "a.test.yml: 'a story' at 31s: expected intend (rung mild); got refuse (reason cooldown, rung mild, until 1m31s):"
        " This target was acted on 10m31s ago; the cooldown is 30m."
    )


@pytest.mark.parametrize(
    ("wanted", "failures"),
    [
        ({"step": "refuse"}, 0),
        ({"step": "refuse", "reason": "settling", "rung": "mild", "until": "28s"}, 0),
        ({"step": "refuse", "reason": "cooldown"}, 1),
        ({"step": "refuse", "rung": "harsh"}, 1),
        ({"step": "refuse", "until": "29s"}, 1),
        ({"step": "wait"}, 1),
        ({"step": "refuse", "verdict": "fixed"}, 1),
    ],
)
def test_only_what_is_given_is_compared(tmp_path: Path, wanted: object, failures: int) -> None:
    """And all of it."""
    found = play(tmp_path, {"eval_time": "10s", "exp_step": wanted}, history=DIAGNOSED)
    assert len(found) == failures


def test_what_comes_later_has_not_happened_yet(tmp_path: Path) -> None:
    """One history, several questions in it."""
    history = [*DIAGNOSED, {"time": "40s", "attempt": "mild", "outcome": "failed"}]
    steps = [
        {"eval_time": "39s", "exp_step": {"step": "intend"}},
        {"eval_time": "40s", "exp_step": {"step": "wait"}},
        {"eval_time": "41s", "exp_step": {"step": "hand_over", "reason": "did_not_begin"}},
    ]
    assert play(tmp_path, *steps, history=history) == []


def test_settings_are_laid_over_harmless_ones(tmp_path: Path) -> None:
    """The mode of the file, and a number of its guards."""
    step = {"eval_time": "31s", "exp_step": {"step": "would_act"}}
    assert play(tmp_path, step, history=DIAGNOSED, settings={"environment": "test", "mode": "shadow"}) == []
    settings = {"environment": "test", "guards": {"storm_episodes": 2}, "prometheus": {"max_skew": "1s"}}
    step = {"eval_time": "31s", "facts": {"open_firing": 2}, "exp_step": {"step": "refuse", "reason": "storm"}}
    skewed = {"eval_time": "31s", "world": {"skew": "2s"}, "exp_step": {"step": "refuse", "reason": "clock"}}
    assert play(tmp_path, step, skewed, history=DIAGNOSED, settings=settings) == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"facts": {"open_fire": 1}}, "no such facts: open_fire"),
        ({"history": [{"time": "1s", "attempt": "third"}]}, "engine-slow has no rung 'third'"),
        ({"history": [*DIAGNOSED, {"time": "5s", "attempt": "mild", "outcome": "done"}]}, "no `proof` for it"),
    ],
)
def test_a_story_that_cannot_be_played_fails(tmp_path: Path, more: dict[str, object], words: str) -> None:
    """It says why; a typing mistake in a test must not make it pass."""
    (failure,) = play(tmp_path, {"eval_time": "31s", "exp_step": {"step": "intend"}}, **more)
    assert words in failure


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"histry": []}, "histry"),
        ({"history": [{"time": "1s"}]}, "tests.0.history.0"),
        ({"history": [{"time": "1s", "diagnosed": "mild", "attempt": "mild"}]}, "tests.0.history.0"),
        ({"history": [{"time": "soon", "diagnosed": "mild"}]}, "tests.0.history.0.time"),
        ({"world": {"preview": {"refusals": ["too_late"]}}}, "tests.0.world.preview.refusals.0"),
        ({"step_test": []}, "tests.0.step_test"),
        ({"settings": {"mode": "sometimes"}}, "settings: mode"),
    ],
)
def test_a_wrong_file_is_told_with_its_place(tmp_path: Path, more: dict[str, object], where: str) -> None:
    """Unknown keys are mistakes here too."""
    with pytest.raises(ConfigError, match=where):
        play(tmp_path, {"eval_time": "31s", "exp_step": {"step": "intend"}}, **more)
