"""`severity:generate`, `severity:fragment`, `severity:check-merge`: the severity table's files. Files only, no server.

In: a folder that holds alert-rules/severity.yml, or a merged configuration of Alertmanager. Out: lines for people.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from alerting import generated, merge
from alerting.alertmanager_yml import fragment_file
from alerting.severity import Severity, TableError, load
from prepctl.errors import Exit, Failure
from prepctl.show import many


def generate(root: Path, *, check: bool) -> Iterator[str]:
    """Write what differs, or with `check` only say it. Raises Failure: NO when it differs, USAGE for the table."""
    table = _table(root)
    times = generated.wrong_times(root, table)
    for path, changes in times.items():
        yield from (f"{path}: {change}" for change in changes)
    unknown = [each for changes in times.values() for each in changes if each.wanted is None or each.found is None]
    try:
        changed = generated.stale(root) if check else generated.write(root)
    except OSError as error:
        raise Failure(Exit.USAGE, f"{error.filename}: {error.strerror}.", "Give the repository's root.") from error
    for path in changed:
        yield f"{path}: {'is not what the table says' if check else 'written'}"
    if unknown:
        raise Failure(
            Exit.NO, f"{many(len(unknown), 'rule')} cannot be mended: no known severity, or no response_time."
        )
    if check and changed:
        raise Failure(Exit.NO, f"{many(len(changed), 'file')} differ.", "prepctl severity:generate writes them.")
    if not changed:
        yield "Every file is what alert-rules/severity.yml says."


def fragment(root: Path) -> str:
    """The fragment's text. Raises Failure when the table cannot be used."""
    return fragment_file(_table(root))


def check_merge(file: Path, root: Path, environment: str) -> Iterator[str]:
    """A line for each finding. Raises Failure: NO with an error among them, USAGE for files that cannot be read."""
    table = _table(root)
    try:
        data: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
        rules = [rule for path in generated.rule_files(root) for rule in _rules(path)]
    except OSError as error:
        raise Failure(Exit.USAGE, f"{error.filename}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise Failure(Exit.USAGE, f"{file} is not UTF-8.") from error
    except yaml.YAMLError as error:
        raise Failure(Exit.USAGE, f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict) or "route" not in data:
        do = "Give the whole merged file, with its `route`."
        raise Failure(Exit.USAGE, f"{file} is no configuration of Alertmanager: it has no `route`.", do)
    alerts = merge.label_sets(rules, table, environment)
    found = merge.check(data, table, alerts)
    yield from (str(finding) for finding in found)
    errors = sum(finding.level == "error" for finding in found)
    if errors:
        raise Failure(Exit.NO, f"{many(errors, 'error')}: alerts of ours would not arrive as they must.")
    yield f"{many(len(alerts), 'label set')} tried: each arrives where it must, when it must."


def _rules(path: Path) -> list[dict[str, Any]]:
    groups = yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _table(root: Path) -> Severity:
    try:
        return load(root / generated.TABLE)
    except TableError as error:
        told = "\n".join(f"  {fault}" for fault in error.faults)
        raise Failure(Exit.USAGE, f"The severity table cannot be used:\n{told}") from error
