"""The demo's profile changes durations and its named switches, and nothing else."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from demo import profile
from demo.profile import (
    LAYOUT,
    SWITCHES,
    ProfileError,
    Table,
    as_table,
    load_table,
    render,
)
from remediator.durations import longest_range, seconds
from tests.unit.rule_files import ROOT, run

DURATION = re.compile(r"(\d+(\.\d+)?(ms|[smhdwy]))+")
RANGE = re.compile(r"\[[0-9]+[a-z]+(:[0-9]+[a-z]+)?\]|(?<=offset )[0-9]+[a-z]+")
PROFILE = ROOT / "demo" / "profile.yml"


@pytest.fixture
def table() -> Table:
    """The shipped profile."""
    return load_table(PROFILE)


@pytest.fixture
def rendered(tmp_path: Path, table: Table) -> Path:
    """The rendered configuration."""
    render(ROOT, tmp_path / "config", table)
    return tmp_path / "config"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the shipped files, to be spoiled."""
    for pattern, _ in LAYOUT:
        for path in ROOT.glob(pattern):
            copy = tmp_path / "repo" / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    return tmp_path / "repo"


def pairs(rendered: Path) -> Iterator[tuple[str, Path, Path]]:
    """(path in the repository, shipped file, rendered file) of what is YAML."""
    for pattern, target in LAYOUT:
        if not pattern.endswith(".yml"):
            continue
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            yield name, path, rendered / target / path.name if "*" in pattern else rendered / target


def leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every scalar of a parsed document with its path."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, (*path, str(key)))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from leaves(value, (*path, str(index)))
    else:
        yield path, node


def test_only_durations_differ(rendered: Path) -> None:
    """Both sides walked by another walk than the profile's own: same shape, and only durations differ."""
    differing = 0
    for name, shipped, result in pairs(rendered):
        before = list(leaves(yaml.safe_load(shipped.read_text(encoding="utf-8"))))
        after = list(leaves(yaml.safe_load(result.read_text(encoding="utf-8"))))
        assert [path for path, _ in before] == [path for path, _ in after], name
        for (path, old), (_, new) in zip(before, after, strict=True):
            if old == new or (name, ".".join(path)) in SWITCHES:
                continue
            differing += 1
            if path[-1] in ("expr", "query"):
                assert RANGE.sub("[]", old) == RANGE.sub("[]", new), (name, path)
            elif path[-1].endswith("_seconds"):
                assert new > 0
            else:
                assert DURATION.fullmatch(str(old)), (name, path, old)
                assert DURATION.fullmatch(str(new)), (name, path, new)
    assert differing > 20


def test_switches_are_those_three_and_say_demo(rendered: Path) -> None:
    """Identity: the environment on both sides, and that the remediator may act in it."""
    prometheus = yaml.safe_load((rendered / "prometheus/prometheus.yml").read_text(encoding="utf-8"))
    remediator = yaml.safe_load((rendered / "remediator.yml").read_text(encoding="utf-8"))
    assert prometheus["global"]["external_labels"] == {"environment": "demo"}
    assert (remediator["environment"], remediator["mode"]) == ("demo", "auto")
    assert len(SWITCHES) == 3


def test_switches_alone_leave_the_shipped_durations(tmp_path: Path, table: Table) -> None:
    """What is timed runs on what is shipped: only the switches differ."""
    assert {change.kind for change in render(ROOT, tmp_path, table.switched())} == {"switch"}


def test_everything_else_stays_byte_for_byte(rendered: Path, table: Table) -> None:
    """Order, layout and comments: only the lines that the table of changes names differ."""
    changes = render(ROOT, rendered, table)
    for name, shipped, result in pairs(rendered):
        old = shipped.read_text(encoding="utf-8").splitlines()
        new = result.read_text(encoding="utf-8").splitlines()
        made = [change for change in changes if change.file == name]
        differing = {number for number, (a, b) in enumerate(zip(old, new, strict=True), 1) if a != b}
        assert differing == {change.line for change in made}, name
        for change in made:
            assert old[change.line - 1].partition("#")[2] == new[change.line - 1].partition("#")[2], name
    assert (rendered / "haproxy/haproxy.cfg").read_bytes() == (ROOT / "haproxy/haproxy.cfg").read_bytes()


def test_rendered_files_are_valid(rendered: Path) -> None:
    """The real checkers take them; a scrape never lasts longer than its interval."""
    run("promtool", "check", "config", rendered / "prometheus/prometheus.yml")
    run(
        "promtool",
        "check",
        "rules",
        "--lint=all",
        "--lint-fatal",
        *sorted((rendered / "alert-rules").glob("*.yml")),
    )
    run("amtool", "check-config", rendered / "alertmanager/alertmanager.yml")
    config = yaml.safe_load((rendered / "prometheus/prometheus.yml").read_text(encoding="utf-8"))["global"]
    assert seconds(config["scrape_timeout"]) <= seconds(config["scrape_interval"])


@pytest.mark.parametrize("which", ["shipped", "demo"])
def test_hold_time_outlasts_every_sample_from_before(which: str, rendered: Path) -> None:
    """A proof's hold is at least the longest range it looks at, through recordings too, plus two scrapes."""
    files = {name: shipped if which == "shipped" else result for name, shipped, result in pairs(rendered)}
    documents = {name: yaml.safe_load(path.read_text(encoding="utf-8")) for name, path in files.items()}
    scrape = seconds(documents["prometheus/prometheus.yml"]["global"]["scrape_interval"])
    assert scrape == seconds(documents["config/remediator.yml"]["prometheus"]["scrape_interval"])
    rules = [
        rule
        for name, document in documents.items()
        if name.startswith("alert-rules/")
        for group in document["groups"]
        for rule in group["rules"]
    ]
    recorded = {rule["record"]: rule["expr"] for rule in rules if "record" in rule}
    alerts = {rule["alert"]: rule["expr"] for rule in rules if "alert" in rule}

    def longest(expr: str) -> float:
        inner = (longest(recorded[name]) for name in recorded if name in expr)
        return max((longest_range(expr), *inner))

    books = [document for name, document in documents.items() if name.startswith("runbooks/")]
    assert books
    for book in books:
        looked_at = [check["query"] for check in book["proof"]["checks"]] + [
            alerts[name] for name in book["match"]["alertnames"]
        ]
        assert seconds(book["proof"]["hold"]) >= max(map(longest, looked_at)) + 2 * scrape, book["name"]


def test_every_range_holds_four_scrapes(rendered: Path) -> None:
    """A rate over fewer samples vanishes with one lost scrape."""
    for path in sorted((rendered / "alert-rules").glob("*.yml")):
        for match in RANGE.finditer(path.read_text(encoding="utf-8")):
            assert seconds(match[0].strip("[]").partition(":")[0]) >= 4 * 2.0, f"{path.name}: {match[0]}"


def test_rendering_twice_changes_nothing_and_drops_stale_files(rendered: Path, table: Table) -> None:
    """A runbook that is no longer shipped is not left in the demo; a mounted file stays the same file."""
    stale = rendered / "runbooks" / "gone.yml"
    stale.write_text("format: 1\n", encoding="utf-8")
    kept = rendered / "prometheus" / "prometheus.yml"
    inode, text = kept.stat().st_ino, kept.read_text(encoding="utf-8")
    render(ROOT, rendered, table)
    assert not stale.exists()
    assert (kept.stat().st_ino, kept.read_text(encoding="utf-8")) == (inode, text)


def table_of(**rows: list[dict[str, Any]]) -> Table:
    return Table.model_validate(rows)


def test_a_row_without_effect_is_an_error(source: Path, tmp_path: Path, table: Table) -> None:
    """The table cannot rot: when a shipped duration changes, its row must follow. Nothing is written."""
    path = source / "prometheus/prometheus.yml"
    path.write_text(
        path.read_text(encoding="utf-8").replace("scrape_interval: 15s", "scrape_interval: 20s"),
        encoding="utf-8",
    )
    with pytest.raises(ProfileError, match=r"prometheus/prometheus\.yml global\.scrape_interval 15s"):
        render(source, tmp_path / "out", table)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"file": "alert-rules/*.yml", "at": "groups.*.rules.*.labels.severity", "from": "P1", "to": "P2"},
            "not a change of a duration",
        ),
        (
            {"file": "config/remediator.yml", "at": "guards.storm_episodes", "from": "ten", "to": "20"},
            "not a change of a duration",
        ),
    ],
)
def test_what_is_no_duration_is_refused_in_the_table(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    """A threshold or a level in the table is refused when it is read."""
    path = tmp_path / "profile.yml"
    path.write_text(yaml.safe_dump({"durations": [row]}), encoding="utf-8")
    with pytest.raises(ProfileError, match=message):
        load_table(path)


def test_a_switch_that_is_not_the_demos_is_refused(tmp_path: Path) -> None:
    """`switches` is no back door."""
    path = tmp_path / "profile.yml"
    row = {"file": "config/remediator.yml", "at": "docker.project", "from": "prep", "to": "other"}
    path.write_text(yaml.safe_dump({"switches": [row]}), encoding="utf-8")
    with pytest.raises(ProfileError, match="no switch of the demo"):
        load_table(path)


def test_a_number_that_is_no_duration_is_refused_in_the_result(source: Path, tmp_path: Path) -> None:
    """The walk over the result knows nothing of the table: a count may not change, though it is a number."""
    row = {"file": "runbooks/compliance-engine-slow.yml", "at": "limits.per_hour", "from": 2, "to": 20}
    with pytest.raises(ProfileError, match=r"limits\.per_hour: 2 became 20, which is more than a duration"):
        render(source, tmp_path / "out", table_of(durations=[row]))
    assert not (tmp_path / "out").exists()


PROMQL = """\
groups: # [5m] in a comment stays
  - name: g
    rules:
      - record: a:b:c
        expr: |
          # [5m] in PromQL's own comment
          rate(x_total{le="5m"}[5m] offset 5m) > 5
          or max_over_time(y[30m:5m]) or rate(z_total[15m])
      - alert: A
        expr: 'rate(x_total[5m]) > 0'
        for: "5m"
        annotations: {summary: '5m', description: 'over [5m]'}
"""


def test_promql_ranges_offsets_and_steps_are_durations() -> None:
    """Only they are: a label's value, a threshold, an annotation and another range stay."""
    rows = [
        {"file": "alert-rules/*.rules.yml", "at": "groups.*.rules.*.expr", "from": "5m", "to": "20s"},
        {"file": "alert-rules/*.rules.yml", "at": "groups.g.rules.A.for", "from": "5m", "to": "1s"},
    ]
    result, changes, used = profile.apply("alert-rules/a.rules.yml", PROMQL, table_of(durations=rows))
    assert 'rate(x_total{le="5m"}[20s] offset 20s) > 5' in result
    assert "max_over_time(y[30m:20s]) or rate(z_total[15m])" in result
    assert "expr: 'rate(x_total[20s]) > 0'\n        for: \"1s\"\n" in result
    assert "annotations: {summary: '5m', description: 'over [5m]'}" in result
    assert "groups: # [5m] in a comment stays" in result
    assert used == {0, 1}
    assert {change.at for change in changes} == {
        "groups.g.rules.a:b:c.expr",
        "groups.g.rules.A.expr",
        "groups.g.rules.A.for",
    }
    assert next(change.line for change in changes if change.at.endswith("A.for")) == 11


def test_two_rows_for_one_place_are_refused() -> None:
    """Which one would hold is anybody's guess."""
    row = {"file": "a.yml", "at": "wait", "from": "5m", "to": "20s"}
    with pytest.raises(ProfileError, match="two rows"):
        profile.apply("a.yml", "wait: 5m\n", table_of(durations=[row, {**row, "at": "*", "to": "30s"}]))


def test_a_missing_shipped_file_is_an_error(source: Path, tmp_path: Path, table: Table) -> None:
    """Half a configuration is none."""
    (source / "config/exporter.yml").unlink()
    with pytest.raises(ProfileError, match=r"config/exporter\.yml: there is no such file"):
        render(source, tmp_path / "out", table)


def test_the_difference_is_printed(table: Table, tmp_path: Path) -> None:
    """Every changed value is in the table that people see, switches first."""
    changes = render(ROOT, tmp_path / "out", table)
    said = io.StringIO()
    Console(width=200, file=said).print(as_table(changes))
    text = said.getvalue()
    for change in changes:
        assert change.before in text
        assert change.after in text
    assert text.index("production") < text.index("scrape_interval")


def test_command_tells_mistakes_and_ends_with_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`python -m demo.profile` says what is wrong, in one line."""
    assert profile.main(["--source", str(ROOT), "--target", str(tmp_path / "out")]) == 0
    assert "scrape_interval" in capsys.readouterr().out
    assert profile.main(["--source", str(tmp_path), "--target", str(tmp_path / "out")]) == 2
    assert "profile.yml: cannot be read" in capsys.readouterr().err
