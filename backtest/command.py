"""`prepctl backtest`: what the remediator would have done with the alerts of the last weeks. It only reads.

Exit code 0 with a report; 1 when the history is not there; 2 for wrong usage, or a file that is wrong; 3 when
Prometheus does not answer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import structlog
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from backtest import terminal
from backtest.backtest import Asked, run
from backtest.errors import Unusable
from backtest.page import page
from backtest.past import moment
from backtest.report import Report
from backtest.what_if import names
from remediator import runbooks
from remediator.actions.registry import PARAMS
from remediator.diagnosis import NAMES as DIAGNOSES
from remediator.durations import seconds
from remediator.errors import ConfigError
from remediator.settings import Settings, load, parse

LONGEST = 10 * 366 * 86400.0  # seconds; no history is longer, and each piece of it is a question
PLAIN = {
    "webhook": {"token_files": ["/dev/null"]},
    "alertmanager": {"urls": ["http://127.0.0.1:9093"]},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the group `prepctl.commands`."""
    options = _parser().parse_args(argv)
    complain = Console(stderr=True, highlight=False, markup=False, emoji=False)
    with _quiet(), _interruptible():
        try:
            if options.html:
                _writable(options.html)
            asked = _asked(options)
            report = _run(asked, complain)
            _write(options, report)
        except Unusable as error:
            complain.print(error.message, style="bold red", soft_wrap=True)
            if error.do:
                complain.print(error.do, soft_wrap=True)
            return error.code
        except KeyboardInterrupt:
            complain.print("Interrupted; nothing was written.")
            return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prepctl backtest",
        description="What the remediator would have done with the alerts that Prometheus has recorded. It only reads.",
        epilog=f"--set takes: {', '.join(names())}; all but `guards` also for one runbook: RUNBOOK:NAME=VALUE.",
    )
    add = parser.add_argument
    add("--since", required=True, metavar="30d", help="how far back, or a time such as 2026-11-01T00:00:00Z")
    add("--until", default="0s", metavar="1d", help="up to when, in the same way (default: now)")
    add(
        "--config",
        type=Path,
        metavar="FILE",
        help="the remediator's own settings: environment, targets, guards, Prometheus",
    )
    add(
        "--prometheus", default="", metavar="URL", help="default: the first of the settings, else http://127.0.0.1:9090"
    )
    add("--runbooks", type=Path, metavar="DIR", help="default: those of the settings, else ./runbooks")
    add(
        "--environment",
        default="",
        metavar="NAME",
        help="label `environment` of its alerts (default: of the settings, else production)",
    )
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="wishes",
        help="the same past with another number, beside the shipped ones",
    )
    add(
        "--unneeded-within",
        default="",
        metavar="2m",
        help="an alert that ended so soon after it would have acted needed nothing (default: promotion.heals_within)",
    )
    add("--step", default="", metavar="15s", help="between two looks (default: the shortest evaluation interval)")
    add("--episodes", action="store_true", help="list every episode with the sentence why")
    add("--json", action="store_true", dest="as_json", help="print everything as JSON, for scripts")
    add("--html", type=Path, metavar="FILE", help="write a page with a picture of the whole time")
    return parser


def _writable(page: Path) -> None:
    """Asked before the history is, which takes minutes. Raises Unusable."""
    if page.is_dir():
        raise Unusable(2, f"--html {page}: is a folder.", "Name a file in it.")
    if not page.parent.is_dir():
        raise Unusable(2, f"--html {page}: there is no folder {page.parent}.", "Make it, or name another file.")
    try:
        if page.exists():
            page.open("r+").close()
        else:
            tempfile.TemporaryFile(dir=page.parent).close()
    except OSError as error:
        raise Unusable(2, f"--html {page}: cannot be written: {error.strerror}.", "Name another file.") from error


def _demand_url(said: str) -> None:
    """Raises Unusable for what is given as --prometheus and is no address."""
    try:
        found = urlsplit(said)
        sound = found.scheme in ("http", "https") and bool(found.hostname)
    except ValueError:  # a bracket that is not closed
        sound = False
    if not sound:
        raise Unusable(2, f"--prometheus: {said!r} is no URL; write http://host:9090.")


def _asked(options: argparse.Namespace) -> Asked:
    """The options as values. Raises Unusable."""
    if options.prometheus:
        _demand_url(options.prometheus)
    try:
        settings = load(options.config) if options.config else _plain(options)
        folder = options.runbooks or (settings.runbooks if options.config else Path("runbooks"))
        if not folder.is_dir():
            raise Unusable(
                2, f"{folder} is not a folder.", "Give --runbooks, the folder that holds the *.yml runbooks."
            )
        books = runbooks.load(folder, PARAMS, DIAGNOSES, settings.prometheus.scrape_interval)
    except ConfigError as error:
        raise Unusable(
            2, "\n".join(("The files cannot be used:", *(f"  {fault}" for fault in error.faults)))
        ) from error
    now = time.time()
    since, until = moment(options.since, now, "--since"), min(now, moment(options.until, now, "--until"))
    if since >= until:
        raise Unusable(2, "--since is not before --until.")
    if until - since > LONGEST:
        raise Unusable(2, f"--since: {options.since} is more than ten years before the end.")
    if options.environment:
        settings = settings.model_copy(update={"environment": options.environment})
    return Asked(
        prometheus=options.prometheus or settings.prometheus.urls[0],
        since=since,
        until=until,
        books=books,
        settings=settings,
        known=options.config is not None,
        wishes=tuple(options.wishes),
        step=_step(options.step),
        within=_seconds(options.unneeded_within, "--unneeded-within", settings.promotion.heals_within),
    )


def _plain(options: argparse.Namespace) -> Settings:
    """Without a file: the defaults of every number."""
    said = {
        **PLAIN,
        "environment": options.environment or "production",
        "prometheus": {"urls": [options.prometheus or "http://127.0.0.1:9090"]},
    }
    return parse(yaml.safe_dump(said), "--prometheus, --environment")


def _step(text: str) -> float:
    """0.0: nobody has said. Raises Unusable for less than a second, in which nothing is evaluated."""
    step = _seconds(text, "--step", 0.0)
    if text and step < 1.0:
        raise Unusable(2, f"--step: {text} is less than 1s.")
    return step


def _seconds(text: str, option: str, otherwise: float) -> float:
    try:
        return seconds(text) if text else otherwise
    except ValueError as error:
        raise Unusable(2, f"{option}: {error}.") from error


def _run(asked: Asked, console: Console) -> Report:
    """With a bar for each part of the work; where nobody watches, there is none."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(name: str, done: float) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=1.0)
            bars.update(tasks[name], completed=done)

        return asyncio.run(run(asked, progress))


def _write(options: argparse.Namespace, report: Report) -> None:
    if options.html:
        try:
            options.html.write_text(page(report), encoding="utf-8")
        except OSError as error:
            raise Unusable(2, f"--html {options.html}: {error.strerror}.") from error
    if options.as_json:
        sys.stdout.write(json.dumps(report.as_json(), indent=2, sort_keys=True) + "\n")
        return
    terminal.show(report, every=options.episodes)
    if options.html:
        terminal.say(f"Written: {options.html}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The engine's log, which tells of each step, is not wanted; its errors are, on stderr."""
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        yield
    finally:
        structlog.configure(**before)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """A terminated one ends as an interrupted one does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
