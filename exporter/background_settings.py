"""What the collectors that look at other machines are told: probes, vendors, backups; and the objectives.

Shapes, ranges and units, and what must fit together inside of one collector.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field, model_validator

from exporter.durations import Duration
from exporter.setting_types import AbsolutePath, Name, Strict

_PORTS = {"http": 80, "https": 443}


def _address(text: str) -> str:
    """A URL that says where to connect and nothing that is secret."""
    parts = urlsplit(text)
    if not parts.hostname:
        raise ValueError("names no host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a name or a password, which would end in logs; a probe logs in nowhere")
    port = parts.port  # raises ValueError itself when it is none
    if parts.scheme in ("tcp", "tls") and (port is None or parts.path or parts.query or parts.fragment):
        raise ValueError(f"is not {parts.scheme}://host:port")
    return text


class Probe(Strict):
    """One address that is called."""

    url: Annotated[str, Field(pattern=r"^(https?|tcp|tls)://\S+$"), AfterValidator(_address)]
    """`http://` and `https://` are asked by GET, `tcp://host:port` is connected to, `tls://host:port` shakes hands."""
    timeout: Duration = 5.0
    """For the whole probe: the name's look-up, connection, TLS, redirects, the answer to its end."""
    expected_status: tuple[Annotated[int, Field(ge=100, le=599)], ...] = ()
    """Statuses that are well; none named = any 2xx. HTTP only."""
    expected_text: str | None = Field(default=None, min_length=1)
    """What the body must hold, as UTF-8, within `max_body_bytes`. HTTP only."""
    follow_redirects: bool = False
    """Follow up to ten redirects; else a redirect is an answer with a 3xx status. HTTP only."""
    max_body_bytes: int = Field(default=65_536, ge=1, le=16_777_216)
    """The body is read up to here, then the connection is closed. HTTP only."""
    ca_file: AbsolutePath | None = None
    """Certificates (PEM) of authorities to trust beside the system's. TLS only."""

    @property
    def parts(self) -> SplitResult:
        """The address, taken apart."""
        return urlsplit(self.url)

    @property
    def is_http(self) -> bool:
        """Whether it is asked by GET."""
        return self.parts.scheme in ("http", "https")

    @property
    def is_tls(self) -> bool:
        """Whether the connection is a TLS one from its start."""
        return self.parts.scheme in ("https", "tls")

    @property
    def host(self) -> str:
        """Name or address to connect to."""
        return self.parts.hostname or ""

    @property
    def port(self) -> int:
        """Port to connect to."""
        return self.parts.port or _PORTS[self.parts.scheme]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        http_only = {"expected_status", "expected_text", "follow_redirects", "max_body_bytes"}
        if not self.is_http and (said := sorted(http_only & self.model_fields_set)):
            raise ValueError(f"{', '.join(said)} is for http:// and https:// only")
        if self.ca_file is not None and not self.is_tls and not self.follow_redirects:
            raise ValueError("ca_file is for https:// and tls:// only")
        return self


class ProbesCollector(Strict):
    """Background collector `probes`."""

    enabled: bool = True
    """Whether it runs."""
    interval: Duration = 15.0
    """From the beginning of one round to that of the next."""
    at_once: int = Field(default=10, ge=1, le=100)
    """Probes that run side by side at most."""
    targets: Mapping[Name, Probe] = Field(min_length=1)
    """By the value of the label `target`."""

    @property
    def round_timeout(self) -> float:
        """The longest that a round can take when every probe runs into its timeout, seconds: a free place is taken at
        once, so all places are busy until the last probe begins.
        """
        timeouts = [probe.timeout for probe in self.targets.values()]
        return (sum(timeouts) - max(timeouts)) / min(self.at_once, len(timeouts)) + max(timeouts)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.round_timeout > self.interval:
            raise ValueError(
                f"a round may take {self.round_timeout:g} s, longer than the interval of {self.interval:g} s: "
                "shorten the timeouts, or raise at_once or interval"
            )
        return self


class VendorPage(Strict):
    """One vendor's status page."""

    url: str = Field(pattern=r"^https?://[^/\s@?#]+(/[^\s?#]*)?$")
    """The page, for example `https://status.stripe.com`; `/api/v2/status.json` below it is read, or
    `/api/v2/summary.json` when components are named."""
    timeout: Duration = 10.0
    """For the whole answer."""
    components: Mapping[Name, str] = {}
    """The label's value, and the component's name or id on the page."""


class VendorsCollector(Strict):
    """Background collector `vendors`."""

    enabled: bool = True
    """Whether it runs."""
    interval: Duration = 60.0
    """From one reading to the next."""
    pages: Mapping[Name, VendorPage] = Field(min_length=1)
    """By the value of the label `vendor`."""

    @property
    def timeout(self) -> float:
        """Seconds for a whole reading; all pages are read side by side."""
        return max(page.timeout for page in self.pages.values())


def _relative(text: str) -> str:
    if PurePosixPath(text).is_absolute() or ".." in PurePosixPath(text).parts:
        raise ValueError("is not a name below the source")
    return text


class BackupRules(Strict):
    """How the backups of a source are known by their names. Patterns are of the shell's kind and are held against the
    whole name below the source, folders included; `*` also stands for a slash.
    """

    files: Annotated[str, Field(min_length=1), AfterValidator(_relative)]
    """Pattern of the backups. An empty file is none."""
    attempts: Annotated[str, Field(min_length=1), AfterValidator(_relative)] | None = None
    """Pattern of what else shows that one was tried (`*.part`, `*.log`), which is never a backup itself."""
    marker_suffix: str | None = Field(default=None, min_length=1, pattern=r"^[^*?\[\]]+$")
    """A backup counts as complete only when a file of its name with this added (`.ok`) is there, from the time of that
    file on. None = the backup itself says it."""
    restore_marker: Annotated[str, Field(min_length=1), AfterValidator(_relative)] | None = None
    """Name of a file that is written anew each time a restore was verified."""
    max_entries: int = Field(default=20_000, ge=1, le=1_000_000)
    """Files that are looked at, at most; with more the source counts as not listed. Narrow it then."""
    timeout: Duration = 20.0
    """For one listing."""


class BackupDirectory(BackupRules):
    """Backups in a directory. Symbolic links are not followed."""

    path: AbsolutePath
    """The directory, as it is seen in the exporter's container."""
    settled: Duration = 60.0
    """Without a marker a file counts as complete when it has not changed for this long."""


class BackupBucket(BackupRules):
    """Backups in an S3 bucket, where an object is there only when it is complete."""

    bucket: str = Field(min_length=3)
    """The bucket's name."""
    prefix: str = ""
    """Folder in the bucket; names are taken below it."""
    endpoint: str | None = Field(default=None, pattern=r"^https?://[^/\s@?#]+/?$")
    """Of a store that is not Amazon's; None = Amazon's of the region."""
    region: str = Field(default="us-east-1", min_length=1)
    """The bucket's region."""
    virtual_hosted: bool = False
    """The endpoint has the bucket in its host name."""
    access_key_id_file: AbsolutePath | None = None
    """With the other key; none of both = the role of the machine, as obstore finds it."""
    secret_access_key_file: AbsolutePath | None = None
    """With the other key."""
    session_token_file: AbsolutePath | None = None
    """Beside both keys, for temporary ones."""
    ca_file: AbsolutePath | None = None
    """Certificates (PEM) of authorities to trust beside the system's."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.access_key_id_file is None) != (self.secret_access_key_file is None):
            raise ValueError("access_key_id_file and secret_access_key_file belong together")
        if self.session_token_file is not None and self.access_key_id_file is None:
            raise ValueError("session_token_file belongs to access_key_id_file and secret_access_key_file")
        return self


class BackupsCollector(Strict):
    """Background collector `backups`."""

    enabled: bool = True
    """Whether it runs."""
    interval: Duration = 300.0
    """From one listing to the next."""
    directories: Mapping[Name, BackupDirectory] = {}
    """By the value of the label `backup`."""
    buckets: Mapping[Name, BackupBucket] = {}
    """By the value of the label `backup`."""

    @property
    def sources(self) -> Mapping[str, BackupRules]:
        """All sources by name."""
        return {**self.directories, **self.buckets}

    @property
    def timeout(self) -> float:
        """Seconds for all listings; they run side by side."""
        return max(rules.timeout for rules in self.sources.values())

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.sources:
            raise ValueError("names neither directories nor buckets")
        if twice := sorted(self.directories.keys() & self.buckets.keys()):
            raise ValueError(f"{', '.join(twice)} is both a directory and a bucket")
        return self


class Objective(Strict):
    """One objective."""

    ratio: float = Field(gt=0, lt=1)
    """Share of events that must be good, 0.995 for 99.5 %."""
    window: Duration = 2_592_000.0
    """Over this long."""


class SloCollector(Strict):
    """Collector `slo`."""

    enabled: bool = True
    """Whether it runs."""
    objectives: Mapping[Name, Objective] = Field(min_length=1)
    """By the value of the label `slo`."""


def needed_files(probes: ProbesCollector | None, backups: BackupsCollector | None) -> Iterator[tuple[Path, bool]]:
    """What the enabled ones of these collectors must be able to reach: each path, and whether it is to be read as text
    (a secret, a certificate) or only to be there (a directory).
    """
    for probe in probes.targets.values() if probes and probes.enabled else ():
        if probe.ca_file is not None:
            yield probe.ca_file, True
    if backups is None or not backups.enabled:
        return
    for directory in backups.directories.values():
        yield directory.path, False
    for bucket in backups.buckets.values():
        of_bucket = (
            bucket.access_key_id_file, bucket.secret_access_key_file, bucket.session_token_file, bucket.ca_file,
        )  # fmt: skip
        yield from ((path, True) for path in of_bucket if path is not None)
