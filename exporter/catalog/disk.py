"""Catalog: room on named paths."""

from __future__ import annotations

from exporter.catalog.entries import Label, Subject

SUBJECT = Subject()

_DISK = SUBJECT.collector(
    "disk",
    "at scrape time",
    "Room on named paths. A mount that hangs makes only its own path silent.",
    "the paths to be visible inside the exporter's container",
)
_PATH = Label("path", "a key of `collectors.disk.paths`")

FILESYSTEM_FREE = SUBJECT.metric(
    "prep_filesystem_free_bytes", "gauge", "bytes", "Bytes that users without privileges can still write.", _DISK, _PATH
)
FILESYSTEM_SIZE = SUBJECT.metric(
    "prep_filesystem_size_bytes", "gauge", "bytes", "Size of the filesystem.", _DISK, _PATH
)
FILESYSTEM_FILES_FREE = SUBJECT.metric(
    "prep_filesystem_files_free",
    "gauge",
    "",
    "Inodes that users without privileges can still use; absent on filesystems without a fixed number.",
    _DISK,
    _PATH,
)
FILESYSTEM_FILES = SUBJECT.metric(
    "prep_filesystem_files",
    "gauge",
    "",
    "Inodes of the filesystem; absent where they have no fixed number.",
    _DISK,
    _PATH,
)
