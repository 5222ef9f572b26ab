"""Catalog: probes: whether what people and programs call answers them."""

from __future__ import annotations

from exporter.catalog.entries import Label, Subject

SUBJECT = Subject()

PROBE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds, from a service on the same machine up to the longest sensible timeout."""

FAILURES = ("resolve", "connect", "tls", "timeout", "answer", "status", "text")
"""Why a probe failed; told in this order on the page."""

_PROBES = SUBJECT.collector(
    "probes",
    "in the background",
    "Calls configured addresses as a client would, side by side, each with its own timeout and a new connection each"
    " time. A target that is down is a sample, not a failed collector.",
    "a way from the exporter to the targets",
)
_TARGET = Label("target", "a key of `collectors.probes.targets`")

PROBE_UP = SUBJECT.metric(
    "prep_probe_up",
    "gauge",
    "",
    "1 when the last probe was answered in time and as expected, 0 when not.",
    _PROBES,
    _TARGET,
)
PROBE_DURATION = SUBJECT.metric(
    "prep_probe_duration_seconds",
    "histogram",
    "seconds",
    "Time from looking the name up to the end of the answer, of all probes since the exporter began, also of those that"
    " failed; one that is cut at its timeout counts with the timeout.",
    _PROBES,
    _TARGET,
    buckets=PROBE_BUCKETS,
)
PROBE_FAILED = SUBJECT.metric(
    "prep_probe_failures_total",
    "counter",
    "",
    "Probes that failed; all probes are `prep_probe_duration_seconds_count`.",
    _PROBES,
    _TARGET,
    Label(
        "reason",
        "`resolve` no address for the name, `connect` refused or unreachable, `tls` no handshake or no valid"
        " certificate, `answer` cut or not HTTP, `status` another status than expected, `text` without the"
        " expected text",
        FAILURES,
    ),
)
PROBE_STATUS = SUBJECT.metric(
    "prep_probe_status_class",
    "gauge",
    "",
    "1 for the class of the status that the last HTTP probe was answered with, 0 for the others; `none` without one.",
    _PROBES,
    _TARGET,
    Label("status_class", "class of the status", ("1xx", "2xx", "3xx", "4xx", "5xx", "none")),
)
PROBE_CERTIFICATE_EXPIRY = SUBJECT.metric(
    "prep_probe_certificate_expiry_timestamp_seconds",
    "gauge",
    "seconds",
    "When the certificate that the server showed in the last probe expires, also when it has; absent without TLS, and"
    " when the certificate is not valid for another reason.",
    _PROBES,
    _TARGET,
)
