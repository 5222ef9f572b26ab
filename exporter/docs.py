"""The page docs/metrics.md, made from the catalog and the settings.

In: catalog, settings models, the cursors' readings with Prep's names. Out: one Markdown page: `python -m exporter.docs
docs/metrics.md` writes it, `--check` compares. It is never edited by hand; a test holds the two equal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from exporter.catalog import COLLECTORS, METRICS
from exporter.catalog.entries import Label, Metric
from exporter.collectors import compliance, payments, security
from exporter.cursor_settings import ComplianceCollector, PaymentsCollector, SecurityCollector
from exporter.settings import Settings

_HEAD = """\
# Metrics

Made from `exporter/catalog/` by `python -m exporter.docs docs/metrics.md`; a test holds the two equal.

Every name begins with `prep_`. Units are base units. Points in time are UNIX seconds, so an age is `time() - x`. A
label has a closed set of values, or values that are names out of the configuration; no SQL, id or error text is in one.
A collector that fails shows `prep_scrape_collector_success` 0 and none of its samples (of parts that failed: none of
that part's), never an old value; the page itself is always there, with status 200. What it shows of each backend
in each illness stands in the project's `docs/exporter-illness.md`, with the test that proves it.
"""

_POSTGRES = """\
### How the sessions work

One session per server is kept, read-only, `application_name` `prep_exporter`. Collectors take turns on it, the core
first. Because a kept session says nothing about a client that has yet to log in, `prep_postgres_up` is a second, full
login in each scrape, made after the readings and closed at once; when the session had to be opened in that scrape, that
was the login. So on a healthy server there are two connections for a few milliseconds, and one otherwise; on one that
does not answer there is never more than one, cut at the deadline. With all slots taken the numbers stay and `up` is 0.

| PostgreSQL is | The scrape |
|---|---|
| frozen (SIGSTOP) | answers at the deadline (at most `query_timeout`), all other samples there; `up` 0, success 0 |
| down, or refusing | answers at once; `up` 0, success 0; comes back by itself with the server |
| out of connections | has all numbers over the kept session; `up` 0, success 0 |
| slow, or a table locked | the server ends the query before the deadline; `up` 1, success 0 of that collector |
| without the grant | success 0, and the log names the grant |
"""

_CURSORS = """\
### What the cursors need, and what they promise

{indexes}
Without its index a cursor would read the whole table in each scrape: `--config.check` explains every query on the
server and refuses one that does, with the statement that makes the index, and names every grant that is missing.

A row is counted once, when it becomes final: also one that is committed late, as long as its transaction was open for
less than `overlap`. While one is open for longer `prep_<collector>_cursor_overlap_cut` is 1, and
`prep_<collector>_cursor_overlap_cuts_total` counts the looks for which that held, over restarts too: as long as it
stands still, the counters are the rows, exactly. Position, ids in the overlap and totals are saved and synced before
the scrape is answered, so a kill takes nothing back and counts nothing twice. A new cursor begins now and does not
count the past. A state file that cannot be read is put aside as `*.unreadable`. Rows that are deleted or change their
state after they were counted stay counted as what they were. Counters of two exporters on one table are two counters:
aggregate with `max without (instance)`.

A single statement that makes more than `remembered_rows` rows final with one and the same time is counted up to that
number. Columns that say when a row became final must be set once; a row that gets a new time is counted anew.

Names of tables, columns and words are Prep's by default and can be others (`collectors.<collector>.table`). They are
checked to be names and are quoted; nothing of the configuration is a statement.
"""

_REPLICATION = """\
### What the two sides say

A replica whose link is cut has replayed all that it has received: asked alone it says that nothing is missing. So
`prep_replication_streaming` has a series for each expected replica and side, 0 when it does not stream, and
`prep_replication_behind_bytes` of side `replica` is the primary's position now less what the replica itself has. The
heartbeat is a row that the platform writes on the primary every few seconds; the exporter never writes:

```sql
CREATE TABLE replication_heartbeat (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    beat_at  timestamptz NOT NULL
);
GRANT SELECT (beat_at) ON replication_heartbeat TO prep_exporter;
INSERT INTO replication_heartbeat (beat_at) VALUES (clock_timestamp())
    ON CONFLICT (only_row) DO UPDATE SET beat_at = excluded.beat_at; -- by the platform, each 2 s
```

| What is ill | The scrape |
|---|---|
| the link is cut (reset, refused) | at once `streaming` 0 on both sides, `replicas_connected` less, slot inactive; \
bytes behind of side `replica` and the slot's retained bytes grow, the replica's heartbeat stands still |
| the link is silent | bytes behind of both sides grow; heartbeat, last message and last reply stand still; \
`streaming` 0 after `wal_sender_timeout` and `wal_receiver_timeout` |
| replay paused or slow | `streaming` 1; behind with `replayed`, not with `flushed` |
| replica down or frozen | side `primary` only: `streaming` 0 when its connection has ended; no sample of side \
`replica`; success 0 |
| primary down or frozen | side `replica` only, without bytes behind; success 0 |
| the replica was promoted | side `replica`: `streaming` 0 and no positions; `prep_postgres_role` says `primary` |
| without the grant | success 0, and the log names it; a heartbeat that cannot be read takes nothing else away |
"""

_REDIS = """\
### The connection, and what is asked

One connection per server is kept, its name `prep_exporter`. A scrape is a PING, which is timed, then INFO and, where a
session store is configured, one counting command of constant cost; never SCAN or KEYS. The least that the user needs:

```
ACL SETUSER prep_exporter on >password +ping +info +client|setname
    +select                 # where `sessions.database` is not 0
    +dbsize                 # or +scard, +zcard, +hlen with ~the-key: what `sessions.count` says
```

| Redis is | The scrape |
|---|---|
| frozen (SIGSTOP) | answers at the deadline (at most `query_timeout`), all other samples there; `up` 0, success 0 |
| down, or refusing | answers at once; `up` 0, success 0; comes back by itself with the server |
| something else on that port | `up` 0, success 0 |
| out of connections | over the kept connection all numbers, `clients` at `clients_max` and rejected growing, `up` 1; \
without one `up` 0, success 0 |
| loading its data set | `up` 1, state `loading`, no number of keys or sessions; success 0 |
| unable to save (MISCONF) | `up` 1, state `writes_refused`, all numbers |
| a replica without its primary (MASTERDOWN) | `up` 1, state `stale`, all numbers but the sessions; success 0 where \
these are configured |
| blocked by a script (BUSY) | `up` 1, state `busy`, nothing else; success 0 |
| slow | what came in time; `up` 0 when not even PING was answered; success 0 |
| refusing the login | `up` 0, success 0, and the log says so |
| refusing a command (NOPERM) | all but that command's part; success 0, and the log names the command |
"""

_COMPLIANCE = """\
The index on the queue keeps `prep_compliance_checks_pending` cheap; see *What the cursors need* below `payments`.

```sql
{indexes}
```
"""

_PAYMENTS = """\
### What is a failure, a decline, a refund

| The row | Counts in `finalized` | and in |
|---|---|---|
| ends with any state but `failed_status` | 1 | |
| ends with `failed_status`, its `failure_reason` in a list of `declines` | 1 | `declined`, with that list's reason |
| ends with `failed_status`, its `failure_reason` in a list of `failures` | 1 | `failed`, with that list's reason |
| ends with `failed_status`, its `failure_reason` in no list, or without one | 1 | `failed`, reason `other` |
| has got a time in `refunded_at`, however long ago it ended | | `refunded` |

So the share of bad payments is `failed` by `finalized`; a wave of declined cards is seen beside it and is no outage. A
word that nobody has put in a list counts against the platform until somebody says whose it is. A refund takes nothing
off any counter. Labels are configured names or reasons of this page: a provider, method or reason that is neither is
`other`, and no word of the table is ever a label's value. All series are there from the first scrape on, at 0.
"""

_SECURITY = """\
```sql
{indexes}
```

Whose account an event is about and where it came from is not read: the role needs no right to such columns, and no
label could hold them. Without a table of accounts (`collectors.security.accounts: null`) the locks are still counted.
"""


_PROBES = """\
### What a probe does

Each probe looks its name up, opens a new connection, and has ended after its `timeout`, whatever the other side does:
one that hangs, drips bytes, sends garbage or redirects for ever costs its own place only (`at_once` places). Proxies of
the environment are not used. A certificate must be valid for the name and signed by an authority of the system or of
`ca_file`; the files of authorities are read again after one was refused. The histogram and the failures begin at 0 with
the process, and go on over a reload for every target that keeps its name and its scheme.
"""

_BACKUPS = """\
### How backups are found

```yaml
backups:
  interval: 5m
  directories:
    postgres-local: # the label `backup`
      path: /backups/postgres
      files: "prepchef-*.dump"
      attempts: "*.part" # written while a backup is under way
      restore_marker: last-verified-restore
  buckets:
    postgres-s3:
      bucket: prep-backups
      prefix: postgres/
      region: eu-central-1
      files: "prepchef-*.dump.zst"
      marker_suffix: .ok # put there when the upload was checked
      access_key_id_file: /run/secrets/backup_reader_id
      secret_access_key_file: /run/secrets/backup_reader_key
```

The newest complete backup is the last success, the newest trace of one the last attempt. Without `marker_suffix` a file
is complete when it has not changed for `settled`, an object at once. A restore counts as verified when whoever verified
it writes `restore_marker` anew; nothing else can know. The exporter needs to list, and to read nothing: give it
`s3:ListBucket` only. Without key files obstore looks for a role of the machine, and at `AWS_*` of the environment.

| The source | The samples |
|---|---|
| hangs, refuses, or denies the key | `prep_backup_listed` 0, none of its others, success 0; other sources have all |
| is empty | `prep_backup_listed` 1, no time and no size: an alert must ask for their absence |
| answers with other XML than S3's | as one that is empty |
| holds more than `max_entries` | as one that cannot be listed; the log says so |
"""


_SETTINGS = """\
## Settings

Of the file that `--config.file` names; `--config.check` tells every mistake in it at its line, with exit code 2.
Durations are written `500ms`, `15s`, `2m`, `1h30m`. `<name>` is a name of your choice and becomes a label's value.

| Setting | Default | Meaning |
|---|---|---|
"""


def page() -> str:
    """The whole page."""
    sections = "\n".join((_HEAD, *(_section(name) for name in COLLECTORS)))
    return f"{sections}\n{_SETTINGS}" + "".join(f"{line}\n" for line in _settings(Settings, ""))


def _settings(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """One row for each setting below `prefix`."""
    for name, field in model.model_fields.items():
        inner, path = _inner(field.annotation), f"{prefix}{name}"
        if inner is None:
            default = "required" if field.is_required() else f"`{_default(field)}`"
            yield f"| `{path}` | {default} | {' '.join((field.description or '').split())} |"
        else:
            many = get_origin(field.annotation) is Mapping
            yield from _settings(inner, f"{path}.<name>." if many else f"{path}.")


def _inner(annotation: Any) -> type[BaseModel] | None:
    """The model inside `Model`, `Model | None` or `Mapping[..., Model]`; None for a plain setting."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _inner(each)) is not None), None)


def _default(field: FieldInfo) -> str:
    """A default as one writes it in YAML; durations with their unit."""
    value = field.default
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(str(each) for each in value)}]"
    if isinstance(value, float) and any(isinstance(each, BeforeValidator) for each in field.metadata):
        return f"{value:g}s" if value >= 1 else f"{value * 1000:g}ms"
    if isinstance(value, float):
        return f"{value:g}"
    return "null" if value is None else str(value)


def _section(name: str) -> str:
    collector = COLLECTORS[name]
    lines = [f"## {name}", "", f"{collector.summary} Runs {collector.runs}. Needs {collector.needs}.", ""]
    lines += ["| Metric | Kind | Labels | Meaning |", "|---|---|---|---|"]
    lines += [_row(metric) for metric in METRICS.values() if metric.collector == name]
    return "\n".join([*lines, "", *_notes(name)])


def _notes(name: str) -> Sequence[str]:
    """What is told below the collector's table."""
    match name:
        case "postgres":
            return (_POSTGRES,)
        case "replication":
            return (_REPLICATION,)
        case "redis":
            return (_REDIS,)
        case "payments":
            indexes = f"```sql\n{payments.reading(PaymentsCollector()).ddl}\n```\n"
            return (_CURSORS.format(indexes=indexes), _PAYMENTS)
        case "compliance":
            return (_COMPLIANCE.format(indexes=compliance.reading(ComplianceCollector()).ddl),)
        case "security":
            return (_SECURITY.format(indexes=security.reading(SecurityCollector()).ddl),)
        case "probes":
            return (_PROBES,)
        case "backups":
            return (_BACKUPS,)
        case _:
            return ()


def _row(metric: Metric) -> str:
    labels = "<br>".join(_label(label) for label in metric.labels)
    bounds = f" Buckets: {', '.join(f'{bound:g}' for bound in metric.buckets)}." if metric.buckets else ""
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help}{bounds} |"


def _label(label: Label) -> str:
    values = "" if label.values is None else ": " + ", ".join(f"`{value}`" for value in label.values)
    return f"`{label.name}` ({label.source}){values}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or with `--check` say whether the file is what would be written (exit code 1 if not)."""
    parser = argparse.ArgumentParser(
        prog="python -m exporter.docs", description="Make docs/metrics.md from the catalog."
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    if not options.check:
        options.file.write_text(page(), encoding="utf-8")
        return 0
    if options.file.exists() and options.file.read_text(encoding="utf-8") == page():
        return 0
    sys.stderr.write(f"{options.file} is not what the catalog says: run python -m exporter.docs {options.file}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
