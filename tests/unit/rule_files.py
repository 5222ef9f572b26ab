"""The shipped rules, their tests and the severity table as values, for the test_rules_* modules."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
RULES = sorted((ROOT / "alert-rules").glob("*.rules.yml"))
RULE_TESTS = sorted((ROOT / "alert-rules" / "tests").glob("*.test.yml"))
ALERTMANAGER = ROOT / "alertmanager" / "alertmanager.yml"
PEOPLE = ROOT / "alertmanager" / "receivers.people.yml"


def read(path: Path) -> Any:
    """One YAML document."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def rules() -> Iterator[dict[str, Any]]:
    """Every rule of every group, in the order of files."""
    for path in RULES:
        for group in read(path)["groups"]:
            yield from group["rules"]


def alerts() -> dict[str, dict[str, Any]]:
    """Alerting rules by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def severity() -> dict[str, Any]:
    """alert-rules/severity.yml."""
    table: dict[str, Any] = read(ROOT / "alert-rules" / "severity.yml")
    return table


def run(*command: str | Path) -> str:
    """Run a checker to its end: what it printed. Raises AssertionError with all it said when it objects."""
    line = [str(part) for part in command]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, cwd=ROOT, check=False)
    assert done.returncode == 0, f"{' '.join(line)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout
