"""Probes, vendors, backups and objectives: the pure parts, and what their settings refuse."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from exporter.background_settings import (
    BackupRules,
    BackupsCollector,
    Objective,
    Probe,
    VendorsCollector,
)
from exporter.background_settings import ProbesCollector as ProbesSettings
from exporter.backup_sources import Entry
from exporter.catalog import probes as catalog
from exporter.collectors import backups, probes, vendors
from exporter.collectors.base import Heir
from exporter.collectors.probes import ProbesCollector, Tally, status_class
from exporter.collectors.slo import SloCollector
from exporter.errors import ConfigError, Transient
from exporter.probing import Attempt, expiry, judge
from exporter.samples import HistogramSample, faults
from exporter.settings import check_files, parse
from tests.integration.exporter_parts import in_seconds, shown, values
from tests.support.waiting import free_port

NOW = 1_772_359_200.0


def refusal(model: type[Any], value: Mapping[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(value)
    return str(caught.value)


# Probes


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://payments:8080/health", "payments", 8080),
        ("https://example.org/x?y=1", "example.org", 443),
        ("http://[::1]/", "::1", 80),
        ("tcp://postgres:5432", "postgres", 5432),
        ("tls://mail.example.org:993", "mail.example.org", 993),
    ],
)
def test_probe_address_is_taken_apart(url: str, host: str, port: int) -> None:
    """Scheme, host and port of every kind of probe."""
    probe = Probe(url=url)
    assert (probe.host, probe.port) == (host, port)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"url": "ftp://x"}, "pattern"),
        ({"url": "http://"}, "pattern"),
        ({"url": "http:///path"}, "names no host"),
        ({"url": "http://x:notaport/"}, "port"),
        ({"url": "https://user:secret@x/"}, "a password, which would end in logs"),
        ({"url": "tcp://x"}, "is not tcp://host:port"),
        ({"url": "tls://x:1/path"}, "is not tls://host:port"),
        (
            {"url": "tcp://x:1", "expected_status": [200], "expected_text": "ok"},
            "expected_status, expected_text is for",
        ),
        ({"url": "http://x", "ca_file": "/ca.pem"}, "ca_file is for"),
        ({"url": "http://x", "expected_status": [99]}, "greater than or equal to 100"),
    ],
)
def test_probe_that_makes_no_sense_is_refused(value: Mapping[str, Any], told: str) -> None:
    """A setting that would be ignored, or a secret that would be logged, is a mistake."""
    assert told in refusal(Probe, value)


@pytest.mark.parametrize(
    ("timeouts", "at_once", "longest"),
    [(["5s"], 10, 5), (["5s"] * 5, 10, 9), (["5s"] * 4, 2, 12.5), (["1s", "9s"], 1, 10)],
)
def test_longest_round(timeouts: list[str], at_once: int, longest: float) -> None:
    """All places are busy until the last probe begins, which may be the longest."""
    targets = {str(number): {"url": "tcp://x:1", "timeout": one} for number, one in enumerate(timeouts)}
    made = ProbesSettings.model_validate({"targets": targets, "at_once": at_once, "interval": "60s"})
    assert made.round_timeout == longest
    short = {"targets": targets, "at_once": at_once, "interval": "4s"}
    assert "longer than the interval of 4 s" in refusal(ProbesSettings, short)


@pytest.mark.parametrize(
    ("changes", "status", "body", "failure"),
    [
        ({}, 200, b"", None),
        ({}, 204, b"", None),
        ({}, 302, b"", "status"),
        ({}, 500, b"", "status"),
        ({"expected_status": [401]}, 401, b"", None),
        ({"expected_status": [401]}, 200, b"", "status"),
        ({"expected_text": "grün"}, 200, "alles grün".encode(), None),
        ({"expected_text": "grün"}, 200, b"\xff\xfe", "text"),
        ({"expected_text": "ok"}, 503, b"ok", "status"),
    ],
)
def test_answer_is_judged(changes: Mapping[str, Any], status: int, body: bytes, failure: str | None) -> None:
    """Status first, then the text; any 2xx is well when none is named."""
    assert judge(Probe.model_validate({"url": "http://x", **changes}), status, body) == failure


@pytest.mark.parametrize(
    ("status", "word"),
    [(100, "1xx"), (299, "2xx"), (404, "4xx"), (599, "5xx"), (None, "none"), (600, "none"), (0, "none")],
)
def test_status_class(status: int | None, word: str) -> None:
    """A status that HTTP does not know is none, never a label of its own."""
    assert status_class(status) == word


def test_histogram_and_failures_only_rise_and_are_there_from_the_start() -> None:
    """Every attempt is in one bucket, a bound belongs to its own bucket, and every reason is there with 0."""
    tally = Tally()
    for attempt in (Attempt(0.005, None), Attempt(0.0051, None), Attempt(5.0, "timeout"), Attempt(60.0, "timeout")):
        tally.add(attempt)
    found = list(probes.parse("web", Attempt(60.0, "timeout", 200, NOW), tally, is_http=True))
    assert faults(found) == []
    histogram = next(one for one in found if isinstance(one, HistogramSample))
    assert (histogram.counts[0], histogram.counts[1], histogram.counts[-1]) == (1, 1, 1)
    assert (sum(histogram.counts), histogram.sum) == (4, pytest.approx(65.0101))
    shown = values(found)
    assert {key[2]: value for key, value in shown.items() if key[0] == "probe_failures_total"} == {
        **dict.fromkeys(catalog.FAILURES, 0.0),
        "timeout": 2.0,
    }
    assert (shown["probe_up", "web"], shown["probe_status_class", "web", "2xx"]) == (0, 1)
    assert shown["probe_certificate_expiry_timestamp_seconds", "web"] == NOW


def probes_of(**urls: str) -> ProbesCollector:
    targets = {name: {"url": url} for name, url in urls.items()}
    return ProbesCollector(ProbesSettings.model_validate({"targets": targets}))


async def test_counts_go_on_with_the_next_collector_for_what_is_still_the_same() -> None:
    """The same name and scheme counts on, at whatever address; a new target, another scheme, and one that was not there
    in between begin at 0."""
    nobody = free_port()
    first = probes_of(
        web=f"http://127.0.0.1:{nobody}/", gone=f"tcp://127.0.0.1:{nobody}", db=f"tcp://127.0.0.1:{nobody}"
    )
    for _ in range(2):
        shown(await first.collect(in_seconds(10)))
    second = probes_of(
        web=f"http://localhost:{nobody}/health", db=f"http://127.0.0.1:{nobody}/", new="tcp://127.0.0.1:1"
    )
    assert isinstance(second, Heir)
    second.inherit(SloCollector({}))  # another kind of collector has nothing to hand on
    second.inherit(first)
    found = shown(await second.collect(in_seconds(10)))
    tried = {key[1]: value for key, value in found.items() if key[0] == "probe_duration_seconds"}
    assert tried == {"web": 3, "db": 1, "new": 1}
    assert (found["probe_failures_total", "web", "connect"], found["probe_failures_total", "db", "connect"]) == (3, 1)
    third = probes_of(web=f"http://127.0.0.1:{nobody}/", gone=f"tcp://127.0.0.1:{nobody}")
    third.inherit(second)
    found = shown(await third.collect(in_seconds(10)))
    assert (found["probe_duration_seconds", "web"], found["probe_duration_seconds", "gone"]) == (4, 1)
    for each in (first, second, third):
        await each.close()


def test_probe_without_http_and_tls_has_no_status_and_no_expiry() -> None:
    """A TCP probe does not pretend to have had an answer of status `none`."""
    names = {key[0] for key in values(probes.parse("db", Attempt(0.1, None), Tally(), is_http=False))}
    assert names == {"probe_up", "probe_duration_seconds", "probe_failures_total"}


@pytest.mark.parametrize(
    ("certificate", "moment"),
    [({"notAfter": "Mar  1 10:00:00 2026 GMT"}, 1772359200.0), ({}, None), ({"notAfter": "soon"}, None)],
)
def test_expiry_is_read(certificate: Mapping[str, Any], moment: float | None) -> None:
    """notAfter as OpenSSL writes it."""
    assert expiry(certificate) == moment


# Vendors


def present(found: Mapping[tuple[str, ...], float]) -> set[tuple[str, ...]]:
    return {key for key, value in found.items() if value == 1}


@pytest.mark.parametrize("word", vendors.catalog.INDICATORS)
def test_indicator_is_a_state_set(word: str) -> None:
    """Exactly one of the closed set is 1."""
    found = values(vendors.parse("stripe", {}, {"page": {}, "status": {"indicator": word, "description": "x"}}))
    assert present(found) == {("vendor_status", "stripe", word)}
    assert len(found) == len(vendors.catalog.INDICATORS)


@pytest.mark.parametrize("word", ["on fire", "", None, 5, ["none"], {"none": 1}])
def test_unknown_indicator_is_unknown(word: Any) -> None:
    """A word of the page never becomes a label, and none of them is taken for `none`."""
    found = values(vendors.parse("stripe", {}, {"status": {"indicator": word}}))
    assert present(found) == {("vendor_status", "stripe", "unknown")}


def test_components_are_found_by_name_or_id() -> None:
    """Configured ones only; one that is not on the page is unknown."""
    document = {
        "status": {"indicator": "none"},
        "components": [
            "strange",
            {"id": "a1", "name": "API", "status": "partial_outage"},
            {"id": "b2", "name": "Dashboard", "status": "sleeping"},
            {"id": "c3", "name": "Checkout", "status": "operational"},
        ],
    }
    found = values(vendors.parse("s", {"api": "API", "board": "b2", "pay": "c3", "gone": "Radar"}, document))
    assert {key[2:] for key in present(found) if key[0] == "vendor_component_status"} == {
        ("api", "partial_outage"),
        ("board", "unknown"),
        ("pay", "operational"),
        ("gone", "unknown"),
    }


@pytest.mark.parametrize("document", [None, [], "none", 5, {}, {"status": "none"}, {"status": []}, {"status": {}}])
def test_json_that_is_no_status_page_is_told(document: Any) -> None:
    """It is not taken for a page that says nothing bad."""
    with pytest.raises(Transient, match="not the JSON of a status page"):
        vendors.parse("s", {}, document)


@pytest.mark.parametrize("listed", [{}, {"components": 5}, {"components": {"API": "operational"}}])
def test_summary_without_components_is_told(listed: Mapping[str, Any]) -> None:
    """Where components are configured, a page without any list of them is not read as "all unknown"."""
    with pytest.raises(Transient):
        vendors.parse("s", {"api": "API"}, {"status": {"indicator": "none"}, **listed})


def test_vendor_address_holds_no_password() -> None:
    """It would end in logs."""
    assert "pattern" in refusal(VendorsCollector, {"pages": {"x": {"url": "https://a:b@example.org"}}})


# Backups


def evidence(entries: list[Entry], settled: float | None = None, **rules: Any) -> dict[str, float]:
    made = BackupRules.model_validate({"files": "*.dump", **rules})
    return {
        key[0].removeprefix("backup_"): value
        for key, value in values(backups.parse("b", entries, made, settled)).items()
    }


OLD, NEW = Entry("db-1.dump", 1000, NOW - 86_400), Entry("db-2.dump", 900, NOW - 3600)


def test_newest_backup_and_the_one_before() -> None:
    """By time, in whatever order they are listed."""
    third = Entry("db-0.dump", 5, NOW - 2 * 86_400)
    for entries in ([OLD, NEW, third], [third, NEW, OLD]):
        assert evidence(entries) == {
            "last_success_timestamp_seconds": NOW - 3600,
            "size_bytes": 900,
            "previous_size_bytes": 1000,
            "last_attempt_timestamp_seconds": NOW - 3600,
        }


@pytest.mark.parametrize("entries", [[], [Entry("notes.txt", 5, NOW)]])
def test_source_without_backups_has_no_time(entries: list[Entry]) -> None:
    """Nothing is made up."""
    assert evidence(entries) == {}


def test_file_that_may_still_grow_is_an_attempt_and_no_success() -> None:
    """Without a marker, only what has not changed for a while is complete."""
    growing = Entry("db-3.dump", 10, NOW - 5)
    found = evidence([OLD, NEW, growing], settled=NOW - 60)
    assert (found["last_success_timestamp_seconds"], found["size_bytes"]) == (NOW - 3600, 900)
    assert found["last_attempt_timestamp_seconds"] == NOW - 5
    assert evidence([OLD, NEW, growing])["size_bytes"] == 10


def test_empty_file_is_an_attempt_and_no_backup() -> None:
    """A dump that failed at once leaves one of 0 bytes."""
    found = evidence([OLD, Entry("db-3.dump", 0, NOW)])
    assert (found["last_success_timestamp_seconds"], found["last_attempt_timestamp_seconds"]) == (OLD.modified, NOW)


def test_marker_makes_a_backup_complete_at_its_own_time() -> None:
    """Without its marker the newest is an attempt; with it, it counts from the marker on, also when it is young."""
    marks = [Entry("db-1.dump.ok", 0, OLD.modified + 60)]
    rules = {"marker_suffix": ".ok", "files": "*"}
    found = evidence([OLD, NEW, *marks], **rules)
    assert (found["last_success_timestamp_seconds"], found["size_bytes"]) == (OLD.modified + 60, 1000)
    assert found["last_attempt_timestamp_seconds"] == NEW.modified
    found = evidence([OLD, NEW, *marks, Entry("db-2.dump.ok", 0, NOW)], settled=0, **rules)
    assert (found["last_success_timestamp_seconds"], found["previous_size_bytes"]) == (NOW, 1000)
    assert found["last_attempt_timestamp_seconds"] == NOW


def test_traces_of_attempts_are_no_backups() -> None:
    """Also when the pattern of the backups fits them."""
    found = evidence([OLD, Entry("db-2.dump.part", 5000, NOW)], files="db-*", attempts="*.part")
    assert (found["size_bytes"], found["last_attempt_timestamp_seconds"]) == (1000, NOW)


def test_verified_restore_is_its_markers_time() -> None:
    """The marker is no backup, whatever the pattern says."""
    found = evidence([OLD, Entry("restored", 7, NOW)], files="*", restore_marker="restored")
    assert (found["last_verified_restore_timestamp_seconds"], found["size_bytes"]) == (NOW, 1000)
    assert "last_verified_restore_timestamp_seconds" not in evidence([OLD], restore_marker="restored")


def test_patterns_are_held_against_the_whole_name() -> None:
    """Folders are part of it, and a `*` crosses them."""
    deep = Entry("2026/03/db.dump", 3, NOW)
    assert evidence([deep])["size_bytes"] == 3
    assert evidence([deep], files="2026/*/db.dump")["size_bytes"] == 3
    assert evidence([deep], files="db.dump") == {}


S3 = {"files": "*", "bucket": "backups"}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({}, "names neither directories nor buckets"),
        (
            {"directories": {"a": {"path": "/b", "files": "*"}}, "buckets": {"a": S3}},
            "a is both a directory and a bucket",
        ),
        ({"buckets": {"a": {**S3, "access_key_id_file": "/k"}}}, "belong together"),
        ({"buckets": {"a": {**S3, "session_token_file": "/k"}}}, "session_token_file belongs to"),
        ({"buckets": {"a": {**S3, "endpoint": "s3.example.org"}}}, "pattern"),
        ({"buckets": {"a": {**S3, "access_key_id": "AKIA"}}}, "Extra inputs"),
        ({"directories": {"a": {"path": "/b", "files": "../*"}}}, "is not a name below the source"),
        ({"directories": {"a": {"path": "b", "files": "*"}}}, "is not an absolute path"),
    ],
)
def test_backup_source_that_makes_no_sense_is_refused(value: Mapping[str, Any], told: str) -> None:
    """Half a pair of keys, a key in the file itself, a pattern that leads out of the source."""
    assert told in refusal(BackupsCollector, value)


# Objectives, and all together


async def test_objectives_are_shown_as_they_are_configured() -> None:
    """Ratio and window in base units."""
    made = SloCollector({"payments": Objective.model_validate({"ratio": 0.995, "window": "30d"})})
    assert values((await made.collect(0)).samples) == {
        ("slo_objective_ratio", "payments"): 0.995,
        ("slo_window_seconds", "payments"): 2_592_000,
    }


@pytest.mark.parametrize("ratio", [0, 1, 99.5])
def test_objective_that_is_no_ratio_is_refused(ratio: float) -> None:
    """Percent, and an objective without any budget."""
    refusal(Objective, {"ratio": ratio})


def test_mistakes_are_told_at_their_line() -> None:
    """Those that only a whole collector shows, too."""
    text = "collectors:\n  probes:\n    interval: 4s\n    targets:\n      web: {url: 'http://x'}\n  backups:\n    buckets: {}\n"
    with pytest.raises(ConfigError) as caught:
        parse(text, "exporter.yml")
    told = [str(fault) for fault in caught.value.faults]
    assert any(line.startswith("exporter.yml:2: collectors.probes: a round may take 5 s") for line in told)
    assert any(line.startswith("exporter.yml:6: collectors.backups: names neither") for line in told)


def test_files_that_are_not_there_are_told_by_the_check(tmp_path: Path) -> None:
    """Directories, keys and certificates, each by its path; those of a collector that is off are not asked for."""
    text = (
        "collectors:\n"
        f"  probes: {{targets: {{web: {{url: 'https://x', ca_file: {tmp_path}/ca}}}}}}\n"
        "  backups:\n"
        f"    directories: {{a: {{path: {tmp_path}/none, files: '*'}}}}\n"
        f"    buckets: {{b: {{bucket: backups, files: '*', access_key_id_file: {tmp_path}/id,"
        f" secret_access_key_file: {tmp_path}/key}}}}\n"
    )
    with pytest.raises(ConfigError) as caught:
        check_files(parse(text, "exporter.yml"))
    assert [fault.where for fault in caught.value.faults] == [
        f"{tmp_path}/{name}" for name in ("ca", "none", "id", "key")
    ]
    off = text.replace("{targets", "{enabled: false, targets").replace(
        "  backups:\n", "  backups:\n    enabled: false\n"
    )
    check_files(parse(off + "  slo: {objectives: {x: {ratio: 0.9}}}\n", "exporter.yml"))
