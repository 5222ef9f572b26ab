"""Catalog: vendors: what their own status pages say."""

from __future__ import annotations

from exporter.catalog.entries import Label, Subject

SUBJECT = Subject()

INDICATORS = ("none", "minor", "major", "critical", "maintenance", "unknown")
COMPONENT_STATES = (
    "operational", "degraded_performance", "partial_outage", "major_outage", "under_maintenance", "unknown",
)  # fmt: skip

_VENDORS = SUBJECT.collector(
    "vendors",
    "in the background",
    "What vendors' status pages (Statuspage's API, version 2) say of themselves. A page that cannot be read leaves no"
    " status, never its old one.",
    "a way from the exporter to the pages",
)
_VENDOR = Label("vendor", "a key of `collectors.vendors.pages`")

VENDOR_PAGE_UP = SUBJECT.metric(
    "prep_vendor_page_up",
    "gauge",
    "",
    "1 when the vendor's status page could be read, 0 when not: then nothing is known of the vendor.",
    _VENDORS,
    _VENDOR,
)
VENDOR_STATUS = SUBJECT.metric(
    "prep_vendor_status",
    "gauge",
    "",
    "1 for what the page says of the vendor as a whole, 0 for the others; absent while the page cannot be read.",
    _VENDORS,
    _VENDOR,
    Label("indicator", "`status.indicator` of the page; a word that is not in this list is `unknown`", INDICATORS),
)
VENDOR_COMPONENT_STATUS = SUBJECT.metric(
    "prep_vendor_component_status",
    "gauge",
    "",
    "1 for what the page says of the component, 0 for the others; `unknown` when it is not on the page.",
    _VENDORS,
    _VENDOR,
    Label("component", "a key of the page's `components`"),
    Label("state", "`components[].status` of the page; a word that is not in this list is `unknown`", COMPONENT_STATES),
)
