"""Which queries may be ended, judged from samples alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from remediator.actions.queries import QueryParams, Server, Session, item_of, progress, refusals, select
from remediator.reasons import Reason
from remediator.settings import Database

DATABASE = Database(host="h", database="d", user="u", password_file=Path("/p"))
PARAMS = QueryParams(service="postgres", min_age=60.0)
SERVER = Server("1", False, "", 0.0, (), ())
READER = Session(7, "b", "q", 90.0, "app", "load", "d", "client backend", "", False, False, False, True, "select 1")
READING, LOCKED = (
    replace(READER, on_cpu=False, wait="IO/DataFileRead"),
    replace(READER, on_cpu=False, wait="Lock/tuple"),
)


@pytest.mark.parametrize(
    ("samples", "chosen"),
    [
        ([READER, READER, READER], True),
        ([READER, READING, READER], True),
        ([READING, READING, READER], False),
        ([READER, LOCKED, READER], False),
        ([READER, replace(READER, has_written=True), READER], False),
        ([READER, replace(READER, in_progress_view=True), READER], False),
        ([READER, replace(READER, powerful=True), READER], False),
        ([READER, replace(READER, query_start="later"), READER], False),
        ([READER, replace(READER, backend_start="later"), READER], False),
        ([replace(READER, application="PG_DUMP")] * 3, False),
        ([replace(READER, user="prep_exporter")] * 3, False),
        ([replace(READER, backend_type="walsender")] * 3, False),
    ],
)
def test_the_worst_sample_decides(samples: list[Session], chosen: bool) -> None:
    """One sample that forbids it forbids it; a wait for the disk now and then does not."""
    assert bool(select([[sample] for sample in samples], PARAMS, DATABASE).chosen) is chosen


def test_a_named_reason_goes_before_a_wait() -> None:
    """A writer that waits is refused as a writer."""
    found = select([[LOCKED], [replace(LOCKED, has_written=True)]], PARAMS, DATABASE)
    assert [item.reason for item in found.left] == [Reason.QUERY_HAS_WRITTEN]
    assert [refusal.reason for refusal in refusals(SERVER, found, PARAMS)] == [Reason.QUERY_HAS_WRITTEN]


def test_missing_grants_go_before_everything() -> None:
    """What cannot be seen cannot be judged."""
    blind = replace(SERVER, missing_grants=("GRANT pg_read_all_stats TO u;",))
    found = refusals(blind, select([[READER]] * 3, PARAMS, DATABASE), PARAMS)
    assert [refusal.reason for refusal in found] == [Reason.TARGET_NOT_ALLOWED]


def test_an_items_statement_is_the_same_for_other_literals() -> None:
    """The digest is of the shape."""
    one, two, other = ("select a from t where id = 1", "select a  from t where id = 22", "select b from t where id = 1")
    digests = [item_of(replace(READER, query=query), SERVER)["statement"] for query in (one, two, other)]
    assert digests[0] == digests[1] != digests[2]


def test_progress_refuses_odd_names() -> None:
    """View names come from the catalog; one that is no plain word stops everything."""
    assert progress(("pg_stat_progress_copy",)) == "SELECT pid FROM pg_catalog.pg_stat_progress_copy"
    with pytest.raises(ValueError, match="odd view names"):
        progress(("x; drop",))
