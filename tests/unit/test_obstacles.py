"""Runbooks that load and would never act: each reason alone is told, with its place and the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from prepctl.alert_rules import Rules, read
from prepctl.errors import Exit, Failure
from prepctl.obstacles import of_rules, of_settings
from prepctl.runbooks import Beside, check
from remediator.runbooks import Match, Rung
from remediator.settings import Settings
from tests.unit.cases import book, settings

ROOT = Path(__file__).resolve().parents[2]
RULE = {
    "alert": "EngineSlow",
    "expr": 'max by (job, service) (slow{job="exporter"}) > 5',
    "labels": {"component": "engine"},
}
CAUSE = {"alert": "PostgresDown", "expr": "pg_up == 0"}
PROBED = {"engine": {"singleton": True, "probe": {"url": "http://engine/"}}}
DATABASE = {"db": {"host": "db", "database": "d", "user": "u", "password_file": "/dev/null"}}


def rules(folder: Path, *more: dict[str, Any], **changes: Any) -> Rules:
    """The rule of the healthy runbook, with changes, and its cause."""
    made = [{**RULE, **changes}, CAUSE, *more]
    (folder / "a.rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": made}]}))
    return read(folder)


def knowing(**sections: Any) -> Settings:
    """Settings with these sections validated."""
    return Settings.model_validate({**settings().model_dump(exclude={"services"}), "services": PROBED, **sections})


def lines(faults: Any) -> list[str]:
    return [str(fault) for fault in faults]


def test_a_runbook_that_its_rules_reach(tmp_path: Path) -> None:
    """Nothing is said."""
    assert lines(of_rules(book(), rules(tmp_path))) == []


MATCH = book().match


@pytest.mark.parametrize(
    ("changed", "rule", "where", "words"),
    [
        (
            {"match": Match(alertnames=("EngineSlow", "EngineGone"), jobs=("exporter",))},
            {},
            "match.alertnames",
            "EngineGone",
        ),
        ({"match": MATCH.model_copy(update={"jobs": ("exporter", "services")})}, {}, "match.jobs", "job services"),
        ({}, {"expr": "max by (service) (slow) > 5"}, "match.jobs", "no alert EngineSlow can have job exporter"),
        ({}, {"labels": {"component": "billing"}}, "match.labels.component", "component='engine'"),
        ({}, {"expr": "max by (job) (slow) > 5"}, "target_labels", "service: each is refused no_target"),
        ({}, {"labels": {"component": "engine", "runbook": "engine-slo"}}, "name", "runbook='engine-slo'"),
        ({"blocked_by": ("PostgresGone",)}, {}, "blocked_by", "no rule makes the alert PostgresGone"),
        ({"blocked_by": ("EngineSlow",)}, {}, "blocked_by", "always blocked"),
    ],
)
def test_what_no_rule_gives(tmp_path: Path, changed: Any, rule: Any, where: str, words: str) -> None:
    """Names, jobs, labels, targets and causes."""
    found = list(of_rules(book(**changed), rules(tmp_path, **rule)))
    mine = [fault for fault in found if fault.where == f"engine-slow: {where}"]
    assert words in lines(mine)[0]
    assert all(fault.remedy for fault in found)


def test_a_runbook_that_the_settings_let_act(tmp_path: Path) -> None:
    """A listed singleton with a probe."""
    assert lines(of_settings(book(), knowing(), rules(tmp_path))) == []
    assert lines(of_settings(book(), knowing(), None)) == []


SINGLE = {**PROBED["engine"], "singleton": False}


@pytest.mark.parametrize(
    ("sections", "changed", "words"),
    [
        ({"services": {}}, {}, "restart_service has no target"),
        ({"services": {"engine": SINGLE}}, {}, "services.engine.singleton: is the only container"),
        ({"services": {"engine": {"singleton": True}}}, {}, "services.engine.probe: has no probe: the second vantage"),
        ({"services": {"engine": {"singleton": True}}}, {}, "services.engine.probe: has no probe: the proof is never"),
        ({}, {"diagnosis": ("long_queries",)}, "databases.engine: is no database: long_queries cannot be read"),
        ({"never": ["engine"]}, {}, "never: engine is a primary database"),
        ({"docker": {"gate_url": "http://engine:2375"}}, {}, "never: engine is a primary database, or what"),
    ],
)
def test_what_the_settings_do_not_let_it_do(tmp_path: Path, sections: Any, changed: Any, words: str) -> None:
    """Each with the key of the settings."""
    found = lines(of_settings(book(**changed), knowing(**sections), rules(tmp_path)))
    assert any(words in line for line in found), found


def rung(service: Any, action: str = "cancel_query") -> Rung:
    params = {"service": service} | ({"min_age": "5m"} if action == "cancel_query" else {})
    return Rung.model_validate({"name": "one", "action": action, "params": params})


def test_a_database_is_its_own_probe(tmp_path: Path) -> None:
    """Listed, it can be acted on; not listed, it is said."""
    known = book(ladder=(rung("db"),), diagnosis=("long_queries",))
    assert lines(of_settings(known, knowing(databases=DATABASE), None)) == []
    (line, *_) = lines(of_settings(known, knowing(), None))
    assert "ladder.one on db: databases.db: is not listed" in line


def test_only_targets_that_an_alert_can_name_count(tmp_path: Path) -> None:
    """Another listed service without a probe is no fault of this runbook, where the rules say that it is not its own."""
    both = knowing(services={**PROBED, "billing": {"singleton": True}})
    fixed = rules(tmp_path, labels={"component": "engine", "service": "engine"})
    assert lines(of_settings(book(), both, fixed)) == []
    assert lines(of_settings(book(), both, None)) == []
    assert any("billing" in line for line in lines(of_settings(book(), both, rules(tmp_path))))


def checked(folder: Path, **beside: Any) -> list[str]:
    return list(check(folder, Beside(15.0, **beside)))


def test_shipped_runbooks_can_act() -> None:
    """With the shipped rules and the shipped settings."""
    told = checked(ROOT / "runbooks", rules=ROOT / "alert-rules", config=ROOT / "config" / "remediator.yml")
    assert told[-1] == f"Well formed: {len(list((ROOT / 'runbooks').glob('*.yml')))} runbooks."


def test_every_fault_at_once(tmp_path: Path) -> None:
    """Of rules, of settings and of names, with exit code 2."""
    folder = tmp_path / "books"
    folder.mkdir()
    shipped = (ROOT / "runbooks" / "compliance-engine-slow.yml").read_text()
    (folder / "a.yml").write_text(shipped.replace("ComplianceStalled", "ComplianceGone"))
    (folder / "b.yaml").write_text(shipped)
    config = (ROOT / "config" / "remediator.yml").read_text().replace("singleton: true", "singleton: false")
    (tmp_path / "remediator.yml").write_text(config)
    with pytest.raises(Failure) as caught:
        checked(folder, rules=ROOT / "alert-rules", config=tmp_path / "remediator.yml")
    assert caught.value.code is Exit.USAGE
    assert "3 faults" in caught.value.message
    for place in (
        "b.yaml: is not loaded",
        "match.alertnames: no rule makes the alert ComplianceGone",
        "python-compliance.singleton",
    ):
        assert place in caught.value.message


def test_live_needs_the_settings(tmp_path: Path) -> None:
    """Nobody guesses what to look at."""
    with pytest.raises(Failure, match="needs to know what to look at") as caught:
        checked(ROOT / "runbooks", live=True)
    assert caught.value.code is Exit.USAGE


def test_two_runbooks_for_one_alert_overlap(tmp_path: Path) -> None:
    """The second one would be shadowed by the first: refused when they are loaded."""
    shipped = (ROOT / "runbooks" / "compliance-engine-slow.yml").read_text()
    (tmp_path / "a.yml").write_text(shipped)
    (tmp_path / "b.yml").write_text(shipped.replace("name: compliance-engine-slow", "name: another"))
    with pytest.raises(Failure, match=r"b\.yml: match\.alertnames: ComplianceChecksSlow is already matched by a\.yml"):
        checked(tmp_path)
