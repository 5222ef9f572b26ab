"""Catalog: backups: evidence that they are made, are whole, and can be restored."""

from __future__ import annotations

from exporter.catalog.entries import Label, Subject

SUBJECT = Subject()

_BACKUPS = SUBJECT.collector(
    "backups",
    "in the background",
    "Evidence of backups out of directories and S3 buckets, by listing them; no backup is opened. A source that cannot"
    " be listed leaves none of its samples, never old ones.",
    "the directory to be visible inside the exporter's container; for a bucket s3:ListBucket",
)
_BACKUP = Label("backup", "a key of `collectors.backups.directories` or `collectors.backups.buckets`")

BACKUP_LISTED = SUBJECT.metric(
    "prep_backup_listed",
    "gauge",
    "",
    "1 when the source could be listed, 0 when not: then nothing is known of its backups.",
    _BACKUPS,
    _BACKUP,
)
BACKUP_LAST_SUCCESS = SUBJECT.metric(
    "prep_backup_last_success_timestamp_seconds",
    "gauge",
    "seconds",
    "When the newest complete backup was finished; absent when there is none.",
    _BACKUPS,
    _BACKUP,
)
BACKUP_LAST_ATTEMPT = SUBJECT.metric(
    "prep_backup_last_attempt_timestamp_seconds",
    "gauge",
    "seconds",
    "When the newest trace of a backup was written, complete or not; absent when there is none. Much later than the"
    " last success: attempts fail.",
    _BACKUPS,
    _BACKUP,
)
BACKUP_SIZE = SUBJECT.metric(
    "prep_backup_size_bytes", "gauge", "bytes", "Size of the newest complete backup.", _BACKUPS, _BACKUP
)
BACKUP_PREVIOUS_SIZE = SUBJECT.metric(
    "prep_backup_previous_size_bytes",
    "gauge",
    "bytes",
    "Size of the complete backup before the newest; absent when there is none. A sharp drop is a backup of too little.",
    _BACKUPS,
    _BACKUP,
)
BACKUP_LAST_RESTORE = SUBJECT.metric(
    "prep_backup_last_verified_restore_timestamp_seconds",
    "gauge",
    "seconds",
    "When the marker of a verified restore was last written; absent when it never was, or none is configured.",
    _BACKUPS,
    _BACKUP,
)
