"""One of the remediator's diagnoses, asked from here: its own function, its own rights, its own bounds. Reads only.

In: the remediator's configuration (where the servers are, which role, which secret file) and the name of an entry.
Out: on the screen what the evidence of an episode would hold, redacted; with `--json` the same for scripts. It needs no
remediator that runs: the on-call engineer has it at 3 am when nothing else answers. Raises Failure with the way out.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from prepctl import show
from prepctl.errors import Exit, Failure

if TYPE_CHECKING:
    from remediator.captured import Captured, Source
    from remediator.errors import ConfigError
    from remediator.settings import Settings

DEADLINE = 15.0  # seconds for one diagnosis; each question in it has the settings' own, shorter bound
CONFIG = Path("/etc/prep/remediator.yml")

Config = Annotated[
    Path,
    typer.Option("--config", envvar="PREPCTL_CONFIG", help="The remediator's configuration: where to ask, as whom."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON, for scripts.")]
Service = Annotated[
    str, typer.Option("--service", help="Entry of the configuration. [default: the only one]", show_default=False)
]
Json = Any


def load(config: Path) -> Settings:
    """The remediator's settings. Raises Failure (wrong usage) with every fault."""
    from remediator import settings  # noqa: PLC0415
    from remediator.errors import ConfigError  # noqa: PLC0415

    try:
        return settings.load(config)
    except ConfigError as error:
        faults = "\n".join(f"  {fault}" for fault in error.faults)
        raise Failure(
            Exit.USAGE,
            f"The remediator's configuration cannot be used:\n{faults}",
            "Give --config FILE, or call it where that file is: docker compose exec remediator prepctl ...",
        ) from error


def chosen(entries: Sequence[str], given: str, key: str) -> str:
    """The entry of `key` that is meant: the given one, else the only one. Raises Failure with those that there are."""
    names = ", ".join(sorted(entries)) or "none"
    if given in entries:
        return given
    if given:
        raise Failure(Exit.NO, f"{given} is not listed under `{key}` of the configuration.", f"There: {names}.")
    if len(entries) != 1:
        raise Failure(Exit.USAGE, f"`{key}` of the configuration has {len(entries)} entries.", f"--service: {names}.")
    return entries[0]


def tell(settings: Settings, service: str, name: str, diagnosis: str, *, as_json: bool) -> None:
    """Ask the diagnosis of the catalogue and print it. `name` is the command's, for the words of a failure."""
    from remediator.captures import CAPTURES  # noqa: PLC0415

    answer(settings, service, name, CAPTURES[diagnosis], as_json=as_json)


def answer(
    settings: Settings, service: str, name: str, ask: Callable[[Source], Awaitable[Captured]], *, as_json: bool
) -> None:
    """Ask a function like those of the catalogue, and print what it says."""
    from remediator.redaction import redact  # noqa: PLC0415

    found = asyncio.run(_captured(settings, service, name, ask))
    said, text = redact(found.sentence), redact(found.text)
    parsed = _parsed(text)
    if as_json:
        typer.echo(json.dumps({"service": service, "said": said, "found": parsed}, indent=2, ensure_ascii=False))
    else:
        out = show.console()
        out.print(show.text(f"{service}: {said}" if service else said, "bold"), soft_wrap=True)
        for part in _parts(parsed, text):
            out.print(part, soft_wrap=isinstance(part, Text))
    if not found.answered:
        raise typer.Exit(Exit.UNREACHABLE)


def _parts(parsed: Json, text: str) -> Iterator[Table | Text]:
    """What is even becomes a table, under its name where it has one; all else stays as it is written."""
    named = parsed if isinstance(parsed, dict) else {"": parsed}
    if not any(_even(found) for found in named.values()):
        yield from map(show.text, text.splitlines())
        return
    for name, found in named.items():
        if name:
            yield show.text(f"{name}:", "bold")
        if _even(found):
            yield rows(found)
        else:
            yield from map(show.text, json.dumps(found, indent=2, ensure_ascii=False).splitlines())


def _even(found: Json) -> bool:
    """Rows of one kind: objects, of which no more than one member is an object itself."""
    rows_ = found if isinstance(found, list) else []
    depths = [sum(isinstance(value, dict) for value in row.values()) for row in rows_ if isinstance(row, dict)]
    return bool(rows_) and len(depths) == len(rows_) and max(depths) <= 1


def rows(found: Sequence[Mapping[str, Json]]) -> Table:
    """Objects as a table: a column for each key that any of them has, in the order in which they come."""
    titles = list(dict.fromkeys(key for row in found for key in row))
    return show.table(
        [title.upper() for title in titles], ([_cell(row.get(title)) for title in titles] for row in found)
    )


def _cell(value: Json) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return f"{value:.1f}" if isinstance(value, float) and value >= 10 else str(value)


async def _captured(
    settings: Settings, service: str, name: str, ask: Callable[[Source], Awaitable[Captured]]
) -> Captured:
    import aiohttp  # noqa: PLC0415
    import asyncpg  # noqa: PLC0415

    from remediator import errors  # noqa: PLC0415
    from remediator.captured import Source  # noqa: PLC0415
    from remediator.fetch import describe  # noqa: PLC0415
    from remediator.postgres import LOST  # noqa: PLC0415
    from remediator.redaction import redact  # noqa: PLC0415

    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(DEADLINE):
            return await ask(Source(settings, session, service))
    except TimeoutError as error:
        raise Failure(Exit.UNREACHABLE, f"{name}: no answer within {DEADLINE:g} s.", "Try again.") from error
    except (errors.Permanent, errors.ConfigError) as error:
        if (wrong := _wrong_file(error)) is not None:  # its path and why; no secret was read that it could tell
            raise Failure(Exit.USAGE, f"{name}: {wrong}", "Call it as a user who may read that file.") from error
        raise Failure(Exit.NO, f"{name}: {redact(describe(error))}") from error
    except (errors.RemediatorError, *LOST, asyncpg.PostgresError) as error:
        raise Failure(Exit.UNREACHABLE, f"{name}: {redact(describe(error))}", "Nothing was changed.") from error


def _wrong_file(error: BaseException | None) -> ConfigError | None:
    """What a secret file is blamed for, wherever in the chain it stands."""
    from remediator import errors  # noqa: PLC0415

    while error is not None and not isinstance(error, errors.ConfigError):
        error = error.__cause__
    return error


def _parsed(text: str) -> Json:
    """JSON lines as a list of them, one JSON document as itself, all else as its lines."""
    try:
        return [json.loads(line) for line in text.splitlines()] if text.startswith("{") else json.loads(text)
    except ValueError:
        pass
    try:
        return json.loads(text)
    except ValueError:
        return text.splitlines()
