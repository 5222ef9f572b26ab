"""Every file that is made from alert-rules/severity.yml, and whether those on the disk are it.

In: the repository's root. Out: path -> text. It must never write anything but what it says.
"""

from __future__ import annotations

from pathlib import Path

from alerting import alertmanager_yml, pagerduty, severity_page
from alerting.response_times import Change, correct
from alerting.severity import Severity, load

TABLE = Path("alert-rules/severity.yml")
_MAKERS = {
    Path("alertmanager/alertmanager.yml"): alertmanager_yml.inbox_file,
    Path("alertmanager/alertmanager.people.yml"): alertmanager_yml.people_file,
    Path("alertmanager/fragment.yml"): alertmanager_yml.fragment_file,
    Path("alertmanager/pagerduty.tf.json"): pagerduty.render,
    Path("docs/severity.md"): severity_page.render,
}


def files(root: Path, table: Severity | None = None) -> dict[Path, str]:
    """What each generated file should hold; rule files with the table's response times. Raises TableError."""
    table = table or load(root / TABLE)
    made = {root / path: make(table) for path, make in _MAKERS.items()}
    for path in rule_files(root):
        made[path] = correct(path.read_text(encoding="utf-8"), table)[0]
    return made


def rule_files(root: Path) -> list[Path]:
    """The rule files whose annotations are held to the table."""
    return sorted((root / "alert-rules").glob("*.rules.yml"))


def wrong_times(root: Path, table: Severity) -> dict[Path, list[Change]]:
    """What the rule files say other than the table."""
    found = {path: correct(path.read_text(encoding="utf-8"), table)[1] for path in rule_files(root)}
    return {path: changes for path, changes in found.items() if changes}


def stale(root: Path) -> list[Path]:
    """Generated files that are not what the table says, or not there. Raises TableError."""
    return [path for path, text in files(root).items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def write(root: Path) -> list[Path]:
    """Write those that differ; which they were. Raises TableError and OSError."""
    made, changed = files(root), stale(root)
    for path in changed:
        path.write_text(made[path], encoding="utf-8")
    return changed
