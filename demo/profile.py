"""The demo's configuration: the shipped files with other durations, and nothing else.

In: the repository's files and the table demo/profile.yml. Out: the rendered files, and every change as a
value. It must never change anything but a duration, save for the switches named in `SWITCHES`: the demo shows
the shipped rules. Replacement is done in the text, so comments and layout stay as they are; afterwards both
texts are parsed and compared by a walk that knows nothing of the table.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console
from rich.table import Table as RichTable

LAYOUT = (
    ("config/exporter.yml", "exporter.yml"),
    ("config/remediator.yml", "remediator.yml"),
    ("config/switch.yml", "switch.yml"),
    ("runbooks/*.yml", "runbooks"),
    ("prometheus/prometheus.yml", "prometheus/prometheus.yml"),
    ("alert-rules/*.rules.yml", "alert-rules"),
    ("alertmanager/alertmanager.yml", "alertmanager/alertmanager.yml"),
    ("haproxy/haproxy.cfg", "haproxy/haproxy.cfg"),
)
"""Where a shipped file goes inside the rendered folder, which docker-compose.yml mounts; for a pattern, the
folder that its files go to. Only YAML is changed, the rest is copied."""

SWITCHES = frozenset(
    {
        ("prometheus/prometheus.yml", "global.external_labels.environment"),
        ("config/remediator.yml", "environment"),
        ("config/remediator.yml", "mode"),
    }
)
"""What may differ beside durations: which environment this is, and that the remediator may act in it."""

PROMQL_KEYS = frozenset({"expr", "query"})
_DURATION = r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|[smhdwy]))+"
_WHOLE = re.compile(_DURATION)
# A range `[5m]`, a subquery `[30m:1m]`, an offset: where PromQL 2.42 takes a duration (querying/basics).
_IN_PROMQL = re.compile(rf"(?<=\[){_DURATION}(?=[:\]])|(?<=:){_DURATION}(?=\])|(?<=\boffset\s){_DURATION}")
# What names an element of a list, in this order.
_NAMES = ("alert", "record", "name", "receiver", "job_name")


class ProfileError(Exception):
    """The profile cannot be applied as it stands; the message says where and why. Nothing was written."""


class Row(BaseModel):
    """One line of the table: in files like `file`, at paths like `at`, `from` becomes `to`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    file: str
    at: str
    before: str | int | float = Field(alias="from")
    after: str | int | float = Field(alias="to")


class Table(BaseModel):
    """demo/profile.yml."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    switches: tuple[Row, ...] = ()
    durations: tuple[Row, ...] = ()

    def switched(self) -> Table:
        """Its switches alone: the shipped durations hold."""
        return Table(switches=self.switches)


@dataclass(frozen=True, slots=True)
class Change:
    """One replaced piece of text. `at` names list elements where they have a name; `line` counts from 1."""

    file: str
    line: int
    at: str
    kind: Literal["duration", "switch"]
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class _Place:
    """A scalar in a file: where it is, what its path is (each step by index and by name), its text's span."""

    path: tuple[tuple[str, str], ...]
    start: int
    end: int
    line: int

    def matches(self, pattern: str) -> bool:
        steps = pattern.split(".")
        return len(steps) == len(self.path) and all(
            step in ("*", *names) for step, names in zip(steps, self.path, strict=True)
        )

    @property
    def named(self) -> str:
        return ".".join(name for _, name in self.path)


def load_table(path: Path) -> Table:
    """Read the table. Raises ProfileError, also for a switch that is not one of `SWITCHES`."""
    try:
        table = Table.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ProfileError(f"{path}: cannot be read as a profile: {error}") from error
    for row in table.switches:
        if (row.file, row.at) not in SWITCHES:
            raise ProfileError(f"{path}: {row.file} {row.at} is no switch of the demo")
    for row in table.durations:
        if not (_is_duration(row.before) and _is_duration(row.after)):
            change = f"{row.file} {row.at}: {row.before} -> {row.after}"
            raise ProfileError(f"{path}: {change} is not a change of a duration")
    return table


def render(source_root: Path, target_dir: Path, table: Table) -> list[Change]:
    """Write the demo's configuration into `target_dir` and return the changes; stale files there are removed.

    Raises ProfileError before anything is written: a shipped file is missing, a row changes nothing, or the
    result differs by more than durations and switches.
    """
    rendered: dict[Path, str] = {}
    changes: list[Change] = []
    used: set[int] = set()
    for name, target in shipped_files(source_root):
        text = (source_root / name).read_text(encoding="utf-8")
        result, found, rows = apply(name, text, table)
        if faults := list(differences(name, text, result)):
            raise ProfileError("; ".join(faults))
        rendered[target_dir / target] = result
        changes += found
        used |= rows
    idle = [row for index, row in enumerate(_rows(table)) if index not in used]
    if idle:
        told = "; ".join(f"{row.file} {row.at} {row.before}" for row in idle)
        raise ProfileError(f"rows of the profile that change nothing: {told}. Bring them up to date.")
    _write(target_dir, rendered)
    return changes


def shipped_files(source_root: Path) -> list[tuple[str, str]]:
    """(path in the repository, path in the rendered folder). Raises ProfileError when one is missing."""
    found = []
    for pattern, target in LAYOUT:
        paths = sorted(source_root.glob(pattern))
        if not paths:
            raise ProfileError(f"{source_root / pattern}: there is no such file")
        for path in paths:
            name = path.relative_to(source_root).as_posix()
            found.append((name, f"{target}/{path.name}" if "*" in pattern else target))
    return found


def apply(name: str, text: str, table: Table) -> tuple[str, list[Change], set[int]]:
    """One file's text with the table applied; the changes, and the indices of the rows that had an effect."""
    if not name.endswith(".yml"):
        return text, [], set()
    edits: list[tuple[int, int, str, Change, int]] = []
    rows = [(index, row) for index, row in enumerate(_rows(table)) if fnmatchcase(name, row.file)]
    for place in _places(name, text):
        for index, row in rows:
            if place.matches(row.at):
                kind: Literal["duration", "switch"] = "switch" if index < len(table.switches) else "duration"
                edits += [(*edit, index) for edit in _edits(name, text, place, row, kind)]
    edits.sort(key=lambda edit: edit[0])
    for first, second in pairwise(edits):
        if first[1] > second[0]:
            raise ProfileError(f"{name}:{second[3].line}: two rows of the profile change {second[3].at}")
    parts, position = [], 0
    for start, end, replacement, _, _ in edits:
        parts += [text[position:start], replacement]
        position = end
    return "".join([*parts, text[position:]]), [edit[3] for edit in edits], {edit[4] for edit in edits}


def differences(name: str, before: str, after: str) -> Iterator[str]:
    """Compare two versions of a file by their parsed form: a sentence for each forbidden difference.

    Allowed are: a duration for a duration, a number for a number under a key that ends in `_seconds`, another
    duration inside PromQL, and a value of `SWITCHES`. What is not YAML may not differ at all.
    """
    if name.endswith(".yml"):
        yield from _differences(name, (), yaml.safe_load(before), yaml.safe_load(after))
    elif before != after:
        yield f"{name}: is no YAML and differs"


def _differences(name: str, path: tuple[str, ...], before: Any, after: Any) -> Iterator[str]:
    where = f"{name}: {'.'.join(path) or '(top level)'}"
    if type(before) is not type(after) and not (_is_number(before) and _is_number(after)):
        yield f"{where}: {before!r} became {after!r}"
    elif isinstance(before, dict):
        if list(before) != list(after):
            yield f"{where}: its keys became {', '.join(map(str, after))}"
            return
        for key in before:
            yield from _differences(name, (*path, str(key)), before[key], after[key])
    elif isinstance(before, list):
        if len(before) != len(after):
            yield f"{where}: {len(before)} elements became {len(after)}"
            return
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _differences(name, (*path, str(index)), old, new)
    elif before != after:
        switch = (name, ".".join(path)) in SWITCHES
        if not (switch or _same_but_durations(path[-1] if path else "", before, after)):
            yield f"{where}: {before!r} became {after!r}, which is more than a duration"


def _same_but_durations(key: str, before: Any, after: Any) -> bool:
    if _is_number(before):
        return key.endswith("_seconds")
    if not isinstance(before, str):
        return False
    if key in PROMQL_KEYS:
        return _IN_PROMQL.sub("", before) == _IN_PROMQL.sub("", after)
    return bool(_WHOLE.fullmatch(before) and _WHOLE.fullmatch(after))


def _edits(
    name: str, text: str, place: _Place, row: Row, kind: Literal["duration", "switch"]
) -> Iterator[tuple[int, int, str, Change]]:
    """The replacements that one row makes in one scalar, as spans of the file's text."""
    raw = text[place.start : place.end]
    before, after = str(row.before), str(row.after)
    if kind == "duration" and place.path[-1][0] in PROMQL_KEYS:
        found = [match.span() for match in _IN_PROMQL.finditer(raw) if match[0] == before]
    else:
        quotes = len(raw) - len(raw.strip("'\"")) and 1
        found = [(quotes, len(raw) - quotes)] if raw[quotes : len(raw) - quotes] == before else []
    for begin, end in found:
        line = place.line + raw.count("\n", 0, begin)
        change = Change(name, line, place.named, kind, before, after)
        yield place.start + begin, place.start + end, after, change


def _places(name: str, text: str) -> Iterator[_Place]:
    """Every scalar value of a YAML document with its path."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ProfileError(f"{name}: not YAML: {' '.join(str(error).split())}") from error
    if root is not None:
        yield from _walk(root, ())


def _walk(node: yaml.Node, path: tuple[tuple[str, str], ...]) -> Iterator[_Place]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _walk(value, (*path, (key.value, key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _walk(item, (*path, (str(index), _name_of(item) or str(index))))
    elif isinstance(node, yaml.ScalarNode):
        yield _Place(path, node.start_mark.index, node.end_mark.index, node.start_mark.line + 1)


def _name_of(item: yaml.Node) -> str | None:
    if not isinstance(item, yaml.MappingNode):
        return None
    scalars = {key.value: value.value for key, value in item.value if isinstance(value, yaml.ScalarNode)}
    return next((scalars[key] for key in _NAMES if key in scalars), None)


def _rows(table: Table) -> tuple[Row, ...]:
    return (*table.switches, *table.durations)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_duration(value: str | float) -> bool:
    return _is_number(value) or bool(_WHOLE.fullmatch(str(value)))


def _write(target_dir: Path, rendered: dict[Path, str]) -> None:
    """Write in place, so that a file mounted in a container stays the same file; drop what is stale."""
    for path, text in rendered.items():
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)  # containers read it as another user
    for _, target in LAYOUT:
        folder = target_dir / target
        if folder.is_dir():
            for stale in set(folder.glob("*.yml")) - set(rendered):
                stale.unlink()


def as_table(changes: Iterable[Change]) -> RichTable:
    """The difference for people, switches first: a line for each setting and pair of values, with places."""
    table = RichTable(title="The demo differs from the shipped configuration in", title_justify="left")
    table.add_column("setting")
    table.add_column("of", overflow="fold", ratio=1)
    table.add_column("shipped", no_wrap=True)
    table.add_column("demo", no_wrap=True)
    lines: dict[tuple[bool, str, str, str, str], list[str]] = {}
    for change in changes:
        *owner, setting = change.at.split(".")
        key = (change.kind != "switch", change.file.partition("/")[0], setting, change.before, change.after)
        # The file says which runbook it is, a named element which rule or route.
        file = Path(change.file).stem
        who = owner[-1] if owner and not change.file.startswith("runbooks/") else file
        places = lines.setdefault(key, [])
        if who not in places:
            places.append(who)
    for (_, folder, setting, before, after), places in sorted(lines.items()):
        table.add_row(setting, f"{folder}: {', '.join(places)}", before, after)
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m demo.profile --target DIR`: render and print the difference. Exit code 2 when it cannot."""
    parser = argparse.ArgumentParser(prog="python -m demo.profile", description="Render the demo's configuration.")
    parser.add_argument("--source", type=Path, default=Path(), help="the repository (default: here)")
    parser.add_argument(
        "--target", type=Path, default=Path("build/demo/config"), help="where to (default: %(default)s)"
    )
    parser.add_argument("--table", type=Path, help="the profile (default: SOURCE/demo/profile.yml)")
    options = parser.parse_args(argv)
    try:
        table = load_table(options.table or options.source / "demo/profile.yml")
        changes = render(options.source, options.target, table)
    except ProfileError as error:
        print(f"prep demo profile: {error}", file=sys.stderr)
        return 2
    Console().print(as_table(changes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
