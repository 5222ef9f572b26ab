"""Makes grafana/dashboards/*.json: `python -m dashboards`. With `--check` it compares instead: exit 1 and what differs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards import business_metrics, golden_signals, lint, remediation, service_health, slo
from dashboards.limits import Rules
from dashboards.queries import FOLDER

BUILDERS = (golden_signals, service_health, business_metrics, remediation, slo)
"""In the order of docs/dashboards.md."""


def made(rules: Rules | None = None) -> Mapping[str, dict[str, Any]]:
    """Every dashboard as JSON's values, by its uid."""
    rules = rules or Rules()
    built = [json.loads(JSONEncoder().encode(module.build(rules).build())) for module in BUILDERS]
    for dashboard in built:
        _number(dashboard)
    return {dashboard["uid"]: dashboard for dashboard in built}


def text(dashboard: Mapping[str, Any]) -> str:
    """As it stands in the file."""
    return json.dumps(dashboard, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


REASONS = {
    "target-instance-rule": "A recorded series has no instance: recording takes it away, so that a second exporter changes nothing.",
    "target-job-rule": "An objective adds up events of several jobs, and an alert made by absent() has no job.",
}
"""Why the linter's two rules do not hold of what is recorded. Only these are ever excluded."""


def exclusions(dashboards: Mapping[str, Mapping[str, Any]]) -> str:
    """The file `.lint` beside them: each query that asks for what is recorded, one by one."""
    head = "# Made by `python -m dashboards`. dashboard-linter reads it: what it may not object to, query by query.\n"
    found = [each for dashboard in dashboards.values() for each in lint.findings(dashboard)]
    rules = {
        rule: {
            "reason": reason,
            "entries": [
                {"dashboard": dashboard, "panel": panel, "targetIdx": str(place)}
                for dashboard, panel, place in dict.fromkeys(
                    (each.dashboard, each.panel, each.place) for each in found if each.rule == rule
                )
            ],
        }
        for rule, reason in REASONS.items()
    }
    return head + yaml.safe_dump({"exclusions": rules}, sort_keys=False, width=120)


def files() -> Mapping[str, str]:
    """Every file of grafana/dashboards by its name."""
    dashboards = made()
    return {".lint": exclusions(dashboards), **{f"{uid}.json": text(each) for uid, each in dashboards.items()}}


def _number(dashboard: dict[str, Any]) -> None:
    """Panels get ids in their order, so that a link to one holds."""
    number = 0
    for panel in dashboard["panels"]:
        for each in (panel, *panel.get("panels", ())):
            number += 1
            each["id"] = number


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m dashboards", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 when a file is not what would be made"
    )
    arguments = parser.parse_args(argv)
    wanted = files()
    present = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*") if path.is_file()}
    differs = sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))
    if arguments.check:
        for name in differs:
            sys.stderr.write(f"{name} is not what `python -m dashboards` makes\n")
        return 1 if differs else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in differs:
        (FOLDER / name).write_text(wanted[name], encoding="utf-8") if name in wanted else (FOLDER / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
