"""Samples to text: judged by the parsers of prometheus_client, which know both formats."""

from __future__ import annotations

import gzip
import math

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.catalog import compliance, containers, disk, postgres
from exporter.exposition import render
from exporter.negotiation import OPENMETRICS, TEXT, Format, negotiate, zips
from exporter.samples import AnySample, HistogramSample, Sample, faults, state_set

COUNTS = (1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 4)

SAMPLES: tuple[AnySample, ...] = (
    Sample(disk.FILESYSTEM_FREE, ('/odd "path"\\with\nline',), 1e18),
    Sample(postgres.POSTGRES_UP, ("postgres",), 1.0),
    Sample(postgres.POSTGRES_UP, ("other",), 0.0),
    HistogramSample(compliance.COMPLIANCE_DURATION, (), COUNTS, 12.5),
    Sample(compliance.COMPLIANCE_FAILED, (), 7.0),
    Sample(containers.CONTAINER_CPU, ("redis",), 0.125),
)


def read(form: Format, text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    parser = parse_openmetrics if form is OPENMETRICS else parse_text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parser(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("form", [TEXT, OPENMETRICS], ids=["text", "openmetrics"])
def test_parsers_read_back_what_was_rendered(form: Format) -> None:
    """Values, labels with quotes and line ends, and cumulative buckets come back as they were."""
    found = read(form, render(SAMPLES, form, zipped=False).decode())
    assert found["prep_filesystem_free_bytes", frozenset({("path", '/odd "path"\\with\nline')})] == 1e18
    assert found["prep_postgres_up", frozenset({("server", "other")})] == 0
    assert found["prep_compliance_checks_failed_total", frozenset()] == 7
    assert found["prep_container_cpu_seconds_total", frozenset({("compose_service", "redis")})] == 0.125
    assert found["prep_compliance_check_duration_seconds_bucket", frozenset({("le", "5.0")})] == 6
    assert found["prep_compliance_check_duration_seconds_bucket", frozenset({("le", "+Inf")})] == 10
    assert found["prep_compliance_check_duration_seconds_count", frozenset()] == 10
    assert found["prep_compliance_check_duration_seconds_sum", frozenset()] == 12.5


def test_openmetrics_has_units_and_an_end() -> None:
    """Counters are named without _total in their head, units are told, and the end is marked."""
    text = render(SAMPLES, OPENMETRICS, zipped=False).decode()
    assert "# TYPE prep_container_cpu_seconds counter\n# UNIT prep_container_cpu_seconds seconds\n" in text
    assert text.endswith("# EOF\n")


def test_families_stand_together_and_in_the_catalogs_order() -> None:
    """Samples of one family are not torn apart, whoever made them."""
    text = render((SAMPLES[0], SAMPLES[1], SAMPLES[4], SAMPLES[2]), TEXT, zipped=False).decode()
    heads = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert heads == ["prep_postgres_up", "prep_compliance_checks_failed_total", "prep_filesystem_free_bytes"]


def test_series_shown_twice_is_refused() -> None:
    """Prometheus would drop the whole scrape."""
    with pytest.raises(ValueError, match="shown twice"):
        render((SAMPLES[1], SAMPLES[1]), TEXT, zipped=False)


def test_gzip_holds_the_same_text() -> None:
    """Zipped or not, it is the same page."""
    assert gzip.decompress(render(SAMPLES, TEXT, zipped=True)) == render(SAMPLES, TEXT, zipped=False)


PROMETHEUS_2 = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
PROMETHEUS_3_TEXT = "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", TEXT.content_type),
        ("*/*", TEXT.content_type),
        ("text/*;q=0.5", TEXT.content_type),
        ("text/plain;version=0.0.4", TEXT.content_type),
        ("text/plain;version=0.0.4;escaping=allow-utf-8", TEXT.content_type),
        ("text/plain;version=1.0.0", "text/plain; version=1.0.0; charset=utf-8"),
        (PROMETHEUS_3_TEXT, "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8"),
        (
            "text/plain;version=1.0.0;escaping=underscores",
            "text/plain; version=1.0.0; charset=utf-8; escaping=underscores",
        ),
        ("text/plain;version=1.0.0;escaping=dots", "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"),
        (PROMETHEUS_2, OPENMETRICS.content_type),
        (PROMETHEUS_3, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"),
        ("application/openmetrics-text", OPENMETRICS.content_type),
        ('application/openmetrics-text; version="0.0.1"', "application/openmetrics-text; version=0.0.1; charset=utf-8"),
        ("text/plain;version=0.0.4;q=0.9,application/openmetrics-text;version=1.0.0;q=0.1", TEXT.content_type),
        ("APPLICATION/OpenMetrics-Text;Version=1.0.0,text/plain;q=0.5", OPENMETRICS.content_type),
        ("application/openmetrics-text;version=9.9.9", TEXT.content_type),
        ("application/openmetrics-text;version=2.0.0,text/plain;version=0.0.4;q=0.1", TEXT.content_type),
        (
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
            TEXT.content_type,
        ),
        ("application/openmetrics-text;q=0", TEXT.content_type),
        ("text/plain;q=0,*/*", OPENMETRICS.content_type),
        ("application/openmetrics-text;q=7,text/plain;q=0.1", TEXT.content_type),
        ("nonsense;;q=x,", TEXT.content_type),
    ],
)
def test_format_is_what_the_scraper_likes_best(accept: str, expected: str) -> None:
    """The highest q wins, each answer says its own version, and no version is claimed that is not written."""
    assert negotiate(accept).content_type == expected


@pytest.mark.parametrize(
    ("accept_encoding", "expected"),
    [
        ("", False),
        ("gzip", True),
        ("gzip;q=0", False),
        ("gzip; q=0.0, *", False),
        ("*", True),
        ("*;q=0", False),
        ("br, GZIP;q=0.2", True),
        ("identity, gzip;q=0.5", False),
        ("identity;q=0.5, gzip", True),
        ("deflate", False),
        ("notgzip", False),
        ("gzip;q=nan", False),
    ],
)
def test_answer_is_zipped_only_for_whom_it_is_welcome(accept_encoding: str, expected: bool) -> None:
    """gzip when it is accepted, never with q=0."""
    assert zips(accept_encoding) is expected


@pytest.mark.parametrize(
    ("sample", "told"),
    [
        (Sample(postgres.POSTGRES_UP, (), 1.0), "0 label values for 1"),
        (Sample(postgres.POSTGRES_ROLE, ("p", "king"), 1.0), "outside its set"),
        (Sample(postgres.POSTGRES_UP, ("x" * 200,), 1.0), "longer than"),
        (Sample(containers.CONTAINER_CPU, ("x",), -1.0), "cannot be"),
        (Sample(containers.CONTAINER_CPU, ("x",), math.nan), "cannot be"),
        (Sample(compliance.COMPLIANCE_DURATION, (), 1.0), "not one value"),
        (HistogramSample(compliance.COMPLIANCE_DURATION, (), (1, 2), 1.0), "not the catalog's"),
    ],
)
def test_sample_that_breaks_a_promise_is_found(sample: AnySample, told: str) -> None:
    """Nothing gets out that the catalog does not promise."""
    found = faults([sample])
    assert len(found) == 1
    assert told in found[0]


def test_duplicate_is_found_and_good_samples_are_not() -> None:
    """A series twice is told once; what is right is not told."""
    assert faults(SAMPLES) == []
    assert len(faults([*SAMPLES, SAMPLES[1]])) == 1


def test_state_set_has_every_state() -> None:
    """Each state has its series, so that none is missing from an alert; a strange one is a mistake."""
    found = state_set(postgres.POSTGRES_ROLE, ("postgres",), ["replica"])
    assert {sample.labels[1]: sample.value for sample in found} == {"primary": 0.0, "replica": 1.0}
    with pytest.raises(ValueError, match="king"):
        state_set(postgres.POSTGRES_ROLE, ("postgres",), ["king"])
