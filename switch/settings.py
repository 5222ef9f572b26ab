"""The switch's configuration file: shapes, ranges and units. Unknown keys are refused.

In: one YAML file. Out: one frozen `Settings`, or ConfigError with every mistake at its line. Secrets come by file only
and are read when they are used, so a rotated one needs no restart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from exporter.durations import Duration
from exporter.errors import ConfigError, Fault
from exporter.fault_words import words
from exporter.redaction import remember
from exporter.setting_types import AbsolutePath, Name, Strict
from exporter.yaml_file import Document

Url = Annotated[str, Field(pattern=r"^https?://[^\s/]+(/.*)?$")]
PAGE = "docs/configuration.md"


class Watchdog(Strict):
    """What is expected, from whom, how often."""

    path: str = Field(default="/watchdog", pattern=r"^/[A-Za-z0-9._~-]+$")
    """Path that Alertmanager's `webhook_configs.url` ends with."""
    token_files: tuple[AbsolutePath, ...] = Field(min_length=1)
    """Bearer tokens, one a file; two while rotating."""
    alertname: Name = "Watchdog"
    """Name of the alarm that always sounds. Other alerts are answered 200 and do not count."""
    environment: Name | None = None
    """Only an alarm with this label `environment` counts; null: any."""
    evaluated: Name | None = "evaluated_at"
    """Annotation that says when Prometheus evaluated the rule: that is what counts, since Alertmanager goes on
    repeating a dead Prometheus' last word for 4 minutes. An alarm without it counts from its arrival."""
    accept: Duration = 180.0
    """For so long silence is accepted; then the switch pages. At least twice what lies between two messages (75 s as
    shipped)."""
    grace: Duration = 90.0
    """After a start, or after having been frozen, at least so much is left before it pages, once a silence: what could
    not be delivered meanwhile must have its chance. At most `accept`."""


class Webhook(Strict):
    """Somebody who takes Alertmanager's webhook (version 4)."""

    url: Url | None = None
    """Where to POST; give this or `url_file`."""
    url_file: AbsolutePath | None = None
    """File that holds the address, where that is a secret."""
    token_file: AbsolutePath | None = None
    """File with a bearer token; null: none is sent."""


class PagerDuty(Strict):
    """A service of PagerDuty, by its Events API v2."""

    routing_key_file: AbsolutePath
    """File with the integration key."""
    url: Url = "https://events.pagerduty.com/v2/enqueue"
    """Where to POST; the EU's is https://events.eu.pagerduty.com/v2/enqueue."""


class Slack(Strict):
    """A channel, by an incoming webhook."""

    url_file: AbsolutePath
    """File with the webhook's address."""


class Pages(Strict):
    """Who is paged: all of them, side by side. At least one."""

    webhooks: Mapping[Name, Webhook] = {}
    """By a name of your choice, which is a label of the metrics."""
    pagerduty: Mapping[Name, PagerDuty] = {}
    """As above."""
    slack: Mapping[Name, Slack] = {}
    """As above."""
    timeout: Duration = 10.0
    """For one delivery."""
    retry: Duration = 15.0
    """A delivery that failed is tried again after so long, until it succeeds."""
    repeat: Duration = 900.0
    """While nothing changes everybody is paged again after so long."""


class Probe(Strict):
    """The control probe: the platform's public address, asked from here."""

    url: Url
    """Asked with GET on a new connection; redirects are not followed."""
    status: int = Field(default=200, ge=100, le=599)
    """The HTTP status of a healthy platform."""
    interval: Duration = 15.0
    """From one probe to the next."""
    timeout: Duration = 5.0
    """A later answer is none."""
    page: bool = True
    """Whether the switch itself pages for it; without, only the metric tells."""
    page_after: Duration = 180.0
    """It pages when every probe failed for so long: longer than PlatformDown takes (90 s), which reads the same probe,
    so that one fault pages twice only where the first page may not have come."""


class Settings(Strict):
    """Everything the switch is told at start."""

    watched: Name = "prep"
    """What is watched, for the messages' readers."""
    listen_address: str = Field(default="0.0.0.0:8026", pattern=r"^(\[[0-9a-fA-F:]+\]|[^:\s]*):\d{1,5}$")
    """`host:port` of webhook and metrics; an empty host means every interface."""
    state_file: AbsolutePath = Path("/var/lib/prep-switch/state.json")
    """What it waits for, over its own restarts. Its folder is the switch's alone."""
    watchdog: Watchdog
    pages: Pages
    probe: Probe | None = None
    """The control probe; none: no probe, and no `prep_switch_probe_up`."""
    log_format: Literal["console", "json"] = "json"
    """One JSON object a line, or lines for a terminal."""


def parse(text: str, file: str, *, files: bool = False) -> Settings:
    """YAML text to settings. `files`: look also whether the secrets can be read now.

    Raises ConfigError listing every mistake as `file:line: path`.
    """
    document = Document.read(text, file)
    found = list(document.faults)
    try:
        settings = Settings.model_validate(document.data)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        found += [Fault(document.where(each["loc"]), *words(Settings, each, PAGE)) for each in errors]
        raise ConfigError(found) from error
    found += _loose_ends(settings, document)
    found += _unreadable(settings, document) if files else []
    if found:
        raise ConfigError(found)
    return settings


def load(path: Path, *, files: bool = False) -> Settings:
    """`parse` of a file. Raises ConfigError, also when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([Fault(str(path), "is not UTF-8", "save it as UTF-8")]) from error
    except OSError as error:
        remedy = "name the file with --config.file, readable for the switch's user"
        raise ConfigError([Fault(str(path), f"cannot be read: {error.strerror}", remedy)]) from error
    return parse(text, str(path), files=files)


def secret(path: Path) -> str:
    """A secret's value now, without its line end; masked in the log from now on.

    Raises ConfigError, also when it is empty.
    """
    remedy = "put the file there, readable for the switch's user"
    try:
        value = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError([Fault(str(path), f"secret cannot be read: {reason}", remedy)]) from error
    if not value:
        raise ConfigError([Fault(str(path), "secret is empty", remedy)])
    remember(value)
    return value


def _loose_ends(settings: Settings, document: Document) -> Iterator[Fault]:
    """Values that only make sense together."""
    pages, names = settings.pages, list[str]()
    for kind in ("webhooks", "pagerduty", "slack"):
        names += getattr(pages, kind)
    if not names:
        yield Fault(document.where(("pages",)), "nobody is paged", "add webhooks, pagerduty or slack")
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Fault(document.where(("pages",)), f"{name!r} is there twice", "each needs a name of its own")
    for name, hook in pages.webhooks.items():
        if (hook.url is None) == (hook.url_file is None):
            yield Fault(document.where(("pages", "webhooks", name)), "needs url or url_file", "give one of them")
    if settings.watchdog.path in ("/metrics", "/-/healthy"):
        at = document.where(("watchdog", "path"))
        yield Fault(at, "is a place of the switch's own pages", "/watchdog is usual")
    if settings.watchdog.grace > settings.watchdog.accept:
        at = document.where(("watchdog", "grace"))
        yield Fault(at, "is longer than accept", "a restart would hide a silence for longer than it may last")
    probe = settings.probe
    if probe is not None and probe.timeout > probe.interval:
        at = document.where(("probe", "timeout"))
        yield Fault(at, "is longer than the interval", "make it at most probe.interval")


def _secrets(settings: Settings) -> Iterator[Path]:
    yield from settings.watchdog.token_files
    for hook in settings.pages.webhooks.values():
        yield from (path for path in (hook.url_file, hook.token_file) if path is not None)
    yield from (service.routing_key_file for service in settings.pages.pagerduty.values())
    yield from (channel.url_file for channel in settings.pages.slack.values())


def _unreadable(settings: Settings, document: Document) -> Iterator[Fault]:
    for path in _secrets(settings):
        try:
            secret(path)
        except ConfigError as error:
            for fault in error.faults:
                place = document.place_of(str(path))
                yield Fault(f"{place}: {path}", fault.what, fault.remedy) if place else fault
