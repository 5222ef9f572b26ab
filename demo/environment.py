"""Settings of the demo's services out of environment variables; secrets out of files.

In: a mapping like os.environ. Out: values of the right type, or SettingsError naming the variable and what it should
hold. A secret's value must never appear in a message. The variables are listed in demo/README.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

Environment = Mapping[str, str]


class SettingsError(Exception):
    """An environment variable or the file it names cannot be used; the message says which and why."""


def text(environment: Environment, name: str, default: str) -> str:
    """A variable's value; an empty one counts as not set."""
    return environment.get(name, "").strip() or default


def number(environment: Environment, name: str, default: float, low: float, high: float) -> float:
    """A number between `low` and `high`, both included."""
    value = environment.get(name, "").strip()
    try:
        parsed = float(value) if value else default
    except ValueError:
        parsed = math.nan
    if not low <= parsed <= high:
        raise SettingsError(f"{name}={value!r} is not a number from {low:g} to {high:g}")
    return parsed


def whole(environment: Environment, name: str, default: int, low: int, high: int) -> int:
    """A whole number between `low` and `high`, both included."""
    parsed = number(environment, name, default, low, high)
    if parsed != int(parsed):
        raise SettingsError(f"{name}={environment.get(name)!r} is not a whole number")
    return int(parsed)


def secret(environment: Environment, name: str, default: str) -> str:
    """The value in the file that variable `name` names (`default` is a path), without its last newline."""
    path = Path(text(environment, name, default))
    try:
        value = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"{name}: {path} cannot be read: {reason}") from error
    if not value:
        raise SettingsError(f"{name}: {path} is empty")
    return value


@dataclass(frozen=True, slots=True)
class Postgres:
    """How to log in to the platform's primary."""

    host: str
    port: int
    database: str
    user: str
    password: str

    @classmethod
    def read(cls, environment: Environment, user: str = "prep_app", role: str = "app") -> Postgres:
        """The login of `user`, whose password is in the file of variable PREP_POSTGRES_<ROLE>_PASSWORD_FILE."""
        return cls(
            host=text(environment, "PREP_POSTGRES_HOST", "postgres"),
            port=whole(environment, "PREP_POSTGRES_PORT", 5432, 1, 65535),
            database=text(environment, "PREP_POSTGRES_DATABASE", "prepchef"),
            user=user,
            password=secret(
                environment, f"PREP_POSTGRES_{role.upper()}_PASSWORD_FILE", f"/run/secrets/postgres_{role}_password"
            ),
        )


@dataclass(frozen=True, slots=True)
class Listen:
    """Where a service listens."""

    host: str
    port: int

    @classmethod
    def read(cls, environment: Environment, port: int) -> Listen:
        """`port` is the default; 0 takes a free one."""
        return cls(
            host=text(environment, "PREP_LISTEN_HOST", "0.0.0.0"),  # noqa: S104 - a container has its own network
            port=whole(environment, "PREP_LISTEN_PORT", port, 0, 65535),
        )
