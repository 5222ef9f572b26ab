"""No rule reads what nothing gives: such an alert is silent for ever, and no other check notices."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.rule_contract import PINNED, given, named, problems, promql, ranges, recordings, selectors
from tests.unit.rule_files import case_groups, rules

RULES = list(rules())
RAW_LONG_RANGES: dict[str, str] = {
    "RemediatorJournalCut": "a restore may take hours; one series for each remediator, of which each sample must be seen"
}
"""Rules that read more than an hour of raw samples, with the reason why nothing else will do.

A range over a recording is no raw one: it has one series for each target, made for the purpose.
"""


def name_of(rule: dict[str, Any]) -> str:
    return str(rule.get("alert") or rule["record"])


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_every_name_label_and_value_is_given(rule: dict[str, Any]) -> None:
    """By the catalog, the services, the remediator, Prometheus, Alertmanager or an exporter of the pinned version."""
    assert problems(rule["expr"]) == []


@pytest.mark.parametrize(
    ("expr", "said"),
    [
        # What published rule packs ask for, and what typing mistakes look like.
        ("pg_replication_lag > 3600", "pg_replication_lag is given by nothing and recorded nowhere"),
        ('pg_locks_count{granted="false"} > 5', "pg_locks_count has no label granted"),
        ("service:no_such:max > 1", "service:no_such:max is given by nothing and recorded nowhere"),
        ('prep_container_state{state="stopped"} == 1', "prep_container_state never has state 'stopped'"),
        ('prep_container_state{state=~"exited|gone"} == 1', "prep_container_state never has state 'exited|gone'"),
        ('prep_scrape_collector_success{collector="mysql"}', "prep_scrape_collector_success never has collector 'mysql'"),
        ("rate(prep_redis_clients[5m]) > 1", "rate() of prep_redis_clients, which is no counter"),
        ("increase(sum(up)[5m:15s]) > 1", "increase() of an expression, which is no counter"),
        ("prep_redis_ping_seconds_bucket > 1", "prep_redis_ping_seconds_bucket is given by nothing and recorded nowhere"),
        ("redis_total_system_memory_bytes > 1", "redis_total_system_memory_bytes is given by nothing and recorded nowhere"),
    ],
)  # fmt: skip
def test_the_contract_refuses(expr: str, said: str) -> None:
    """A contract that can be met by anything holds nothing."""
    assert said in problems(expr)


@pytest.mark.parametrize(
    "expr",
    [
        "sum by (job, pod) (up)",
        "max without (server, nothing) (prep_postgres_up)",
        "prep_postgres_up and on (host) prep_redis_up",
        "prep_postgres_up * ignoring (role) prep_redis_up",
        "prep_postgres_up * on (server) group_left (zone) prep_redis_up",
    ],
)
def test_the_contract_refuses_labels_that_no_side_has(expr: str) -> None:
    """A label in by, without, on, ignoring or group_left that exists nowhere makes a match of nothing, or of too much."""
    assert any("has the label" in each for each in problems(expr))


@pytest.mark.parametrize(
    "expr",
    [
        'rate(prep_http_request_duration_seconds_bucket{service="payments", le="5.0"}[5m])',
        'label_replace(up, "zone", "$1", "job", "(.+)") * on (zone) up',
        'count without (digest) (count_values without (instance) ("digest", alertmanager_config_hash))',
        'prep_container_state{state!~"running|paused"}',
        'node_filesystem_avail_bytes{fstype!~"tmpfs|x.+"}',
    ],
)
def test_the_contract_allows(expr: str) -> None:
    """What is really there, labels that the expression makes itself included."""
    assert problems(expr) == []


def test_what_is_recorded_is_read() -> None:
    """A recording that nothing reads is a cost, and the sign of an alert that asks for another name."""
    read_names = {named(each) for rule in RULES for each in selectors(promql.parse(rule["expr"]))}
    unread = {name for name in recordings() if not name.startswith("slo:")} - read_names
    assert unread == set(), "read by no rule"


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_raw_ranges_are_short(rule: dict[str, Any]) -> None:
    """Each round reads its ranges anew: more than an hour of raw samples only from the list, with its reason."""
    long = [each for each in ranges(rule["expr"]) if each.length > timedelta(hours=1) and each.name not in recordings()]
    assert bool(long) == (name_of(rule) in RAW_LONG_RANGES), long


def test_the_list_of_long_ranges_has_reasons() -> None:
    """And no rule that is gone."""
    assert {name_of(rule) for rule in RULES} >= RAW_LONG_RANGES.keys()
    assert all(len(reason) > 20 for reason in RAW_LONG_RANGES.values())


def test_both_feeds_are_proven() -> None:
    """Every third-party metric that a rule reads is fed in some promtool case, else its half of an `or` is only a hope."""
    foreign = {
        named(each)
        for rule in RULES
        for each in selectors(promql.parse(rule["expr"]))
        if named(each) in given() and given()[named(each)].source not in ("catalog", "remediator")
    }
    fed = {series["series"].partition("{")[0] for group in case_groups() for series in group.get("input_series", ())}
    assert foreign - fed == set()


@pytest.mark.parametrize("path", PINNED, ids=lambda path: path.stem)
def test_pinned_lists_say_what_they_are(path: Any) -> None:
    """Program, version and where it was read, and a type for each family."""
    pinned = json.loads(path.read_text(encoding="utf-8"))
    assert pinned["program"] == path.stem
    assert pinned["version"][0].isdigit()
    assert pinned["source"]
    kinds = {"counter", "gauge", "histogram", "summary", "untyped", "unknown"}
    assert {each["type"] for each in pinned["metrics"].values()} <= kinds
