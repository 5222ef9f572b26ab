"""Makes grafana/dashboards/*.json: `python -m dashboards`. With `--check` it compares instead: exit 1 and what differs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards import business_metrics, golden_signals, remediation, service_health, slo
from dashboards.limits import ROOT, Rules

FOLDER = ROOT / "grafana" / "dashboards"
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
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is not what would be made")
    arguments = parser.parse_args(argv)
    wanted = {f"{uid}.json": text(dashboard) for uid, dashboard in made().items()}
    present = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
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
