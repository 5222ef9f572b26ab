"""What is made from alert-rules/severity.yml is what lies in the repository, reads back as the data, and is whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from alerting import alertmanager_yml, generated, pagerduty, routes
from alerting.response_times import correct
from alerting.severity import load
from prepctl.cli import app
from prepctl.errors import Failure
from prepctl.severity import generate
from tests.unit.rule_files import ROOT

TABLE = load(ROOT / generated.TABLE)
RULE = """\
groups:
  - name: a
    rules:
      - record: x
        expr: y
      # why
      - alert: A
        labels: {severity: P1}
        annotations:
          summary: Its text.  # stays
          response_time: %s
      - alert: B
        labels: {severity: P0}
        annotations: {response_time: Immediate}
"""


def test_every_generated_file_is_what_the_table_says() -> None:
    """Routes, receivers, fragment, escalation, page, and the response time of every rule."""
    assert generated.stale(ROOT) == []
    assert generated.wrong_times(ROOT, TABLE) == {}


def test_comments_are_all_that_the_texts_add() -> None:
    """Each text reads back as the data that it was made from."""
    assert yaml.safe_load(alertmanager_yml.inbox_file(TABLE)) == routes.config(TABLE, routes.inbox_receivers(TABLE))
    assert yaml.safe_load(alertmanager_yml.people_file(TABLE)) == routes.config(TABLE, routes.people_receivers(TABLE))
    fragment = yaml.safe_load(alertmanager_yml.fragment_file(TABLE))
    assert fragment == {
        "routes": [routes.fragment_route(TABLE)],
        "inhibit_rules": routes.inhibit_rules(TABLE),
        "time_intervals": routes.time_intervals(TABLE),
        "receivers": [*routes.machine_receivers(TABLE), *routes.people_receivers(TABLE)],
    }


def test_a_wrong_response_time_is_mended_and_nothing_else() -> None:
    """Only the value changes: comments, order and layout stay; it is told with its line."""
    right = RULE % '"< 15 min"'
    assert correct(right, TABLE) == (right, [])
    mended, (change,) = correct(RULE % "soon", TABLE)
    assert mended == right
    assert (change.line, change.alert, change.found, change.wanted) == (11, "A", "soon", "< 15 min")


@pytest.mark.parametrize("text", [RULE.replace("P1", "P7") % "soon", RULE.replace("response_time: %s", "other: 1")])
def test_what_cannot_be_mended_is_told(text: str) -> None:
    """A severity that is not in the table, an annotation that is not there."""
    mended, changes = correct(text, TABLE)
    assert mended == text
    assert [change.alert for change in changes] == ["A"]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The generated files and what they are made of."""
    for path in [ROOT / generated.TABLE, *generated.files(ROOT)]:
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())
    return tmp_path


def test_the_command_writes_what_the_table_says_and_checks_it(copy: Path) -> None:
    """`--check` tells each file that differs with exit code 1 and writes nothing; without it they are mended."""
    table = copy / generated.TABLE
    table.write_text(
        table.read_text().replace("< 15 min", "< 10 min").replace("repeat_interval: 15m", "repeat_interval: 5m")
    )
    before = (copy / "alertmanager/alertmanager.yml").read_text()
    said = []
    with pytest.raises(Failure) as failed:
        said.extend(generate(copy, check=True))  # what it said before it failed counts too
    assert failed.value.code == 1
    assert {name for row in said for name in re.findall(r"(\w[\w.]*\.(?:yml|md)): is not", row)} >= {
        "alertmanager.yml", "alertmanager.people.yml", "fragment.yml", "severity.md", "meta.rules.yml",
    }  # fmt: skip
    assert any("ExporterDown: response_time is '< 15 min', the table says '< 10 min'" in row for row in said)
    assert (copy / "alertmanager/alertmanager.yml").read_text() == before

    result = CliRunner().invoke(app, ["severity:generate", "--root", str(copy)])
    assert (result.exit_code, generated.stale(copy)) == (0, [])
    assert "repeat_interval: 5m" in (copy / "alertmanager/alertmanager.yml").read_text()
    assert 'response_time: "< 10 min"' in (copy / "alert-rules/meta.rules.yml").read_text()
    assert "< 10 min" in (copy / "docs/severity.md").read_text()


def test_a_table_that_cannot_hold_writes_nothing(copy: Path) -> None:
    """Exit code 2 and every fault."""
    table = copy / generated.TABLE
    table.write_text(
        table.read_text().replace(
            "example: Complete platform outage", "example: Complete platform outage\n    hold: 3m"
        )
    )
    with pytest.raises(Failure, match="P0: may not wait") as failed:
        list(generate(copy, check=False))
    assert failed.value.code == 2


# -- escalation ---------------------------------------------------------------------------------------

TERRAFORM = json.loads(pagerduty.render(TABLE))
REFERENCE = re.compile(r"\b(data\.)?(pagerduty_\w+)\.(\w+)|\b(var|local)\.(\w+)")


def words(data: Any) -> Iterator[str]:
    if isinstance(data, dict):
        for value in data.values():
            yield from words(value)
    elif isinstance(data, list):
        for value in data:
            yield from words(value)
    elif isinstance(data, str):
        yield data


def test_the_ladder_is_the_handbooks() -> None:
    """On call, five minutes, secondary, engineering lead; an outage begins with both on call."""
    rules = TERRAFORM["resource"]["pagerduty_escalation_policy"]["standard"]["rule"]
    assert [rule["escalation_delay_in_minutes"] for rule in rules] == [5, 5, 5]
    assert [[target["id"] for target in rule["target"]] for rule in rules] == [
        ["${pagerduty_schedule.primary.id}"],
        ["${pagerduty_schedule.secondary.id}"],
        ["${data.pagerduty_user.engineering_lead.id}"],
    ]
    outage = TERRAFORM["locals"]["outage_rungs"]
    assert [target["id"] for target in outage[0]] == [
        "${pagerduty_schedule.primary.id}",
        "${pagerduty_schedule.secondary.id}",
    ]


def test_executives_are_paged_for_an_outage_only_and_only_where_switched_on() -> None:
    """Off by default; no other policy knows them; without the switch not even their users are looked up."""
    assert TERRAFORM["variable"]["page_executives"]["default"] is False
    policies = TERRAFORM["resource"]["pagerduty_escalation_policy"]
    assert "local.executives" in str(policies["outage"])
    assert "executives" not in str(policies["standard"])
    assert not re.search(r"\.(cto|ceo)\b", str(policies))
    assert TERRAFORM["locals"]["executives"].startswith("${var.page_executives ? [")
    for who in ("cto", "ceo"):
        assert TERRAFORM["data"]["pagerduty_user"][who]["count"] == "${var.page_executives ? 1 : 0}"
    services = TERRAFORM["resource"]["pagerduty_service"]
    assert [name for name, service in services.items() if "outage" in service["escalation_policy"]] == ["outage"]


def test_every_reference_leads_somewhere() -> None:
    """Resources, users, variables and locals that are named are there."""
    checked = 0
    for word in words(TERRAFORM):
        for data, kind, name, space, variable in REFERENCE.findall(word):
            if kind:
                assert name in TERRAFORM["data" if data else "resource"][kind], word
            else:
                assert variable in TERRAFORM["variable" if space == "var" else "locals"], word
            checked += 1
    assert checked > 15


def test_each_key_has_its_service() -> None:
    """What alertmanager.people.yml reads from files comes out of this."""
    assert {f"{name}_key" for name in TABLE.receivers.pagerduty} == set(TERRAFORM["output"])
