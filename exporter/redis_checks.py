"""What only the configured Redis servers can say, for `--config.check`: may our user log in and ask what it will ask?

In: settings. Out: every fault with the command that mends it: the ACL SETUSER to run. Every command of a scrape is
asked once, on a connection that needs no right itself, so that all that is missing is told at once. It must never stop
at the first fault, or show a secret.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Sequence

from hiredis import ReplyError

from exporter.collector_settings import RedisServer
from exporter.collectors.redis import counting
from exporter.errors import Fault, Permanent, Transient
from exporter.redis_session import CLIENT_NAME, RedisSession, code
from exporter.redis_wire import Answer, Command

Asked = tuple[Command, str]
"""A command, and the rules of Redis' ACL that allow it (https://redis.io/docs/latest/operate/oss_and_stack/management/
security/acl/)."""


async def check(name: str, settings: RedisServer, at: str) -> list[Fault]:
    """Everything that is wrong on one server; `at` is where the configuration names it."""
    session = RedisSession(name, settings, bare=True)
    until = asyncio.get_running_loop().time() + settings.connect_timeout + settings.query_timeout
    asked = commands(settings)
    try:
        await session.open(until)
        answers = await session.ask([command for command, _ in asked], until)
    except (Transient, Permanent) as error:
        return [Fault(at, str(error), _login_remedy(settings, error.__cause__))]
    finally:
        await session.close()
    return list(_faults(settings, at, asked, answers, session))


def commands(settings: RedisServer) -> list[Asked]:
    """What a login and a scrape send, in that order, PING first."""
    found: list[Asked] = [(("PING",), "+ping"), (("INFO",), "+info")]
    found.append((("CLIENT", "SETNAME", CLIENT_NAME), "+client|setname"))
    sessions = settings.sessions
    if sessions is not None:
        if sessions.database:
            found.append((("SELECT", sessions.database), "+select"))
        key = f" ~{pattern(sessions.key)}" if sessions.key is not None else ""
        found += [(command, f"+{sessions.count}{key}") for command in counting(sessions)]
    return found


def _faults(
    settings: RedisServer, at: str, asked: Sequence[Asked], answers: Sequence[Answer], session: RedisSession
) -> Iterator[Fault]:
    """Missing rights in one fault; anything else that was answered instead, each thing once."""
    user = settings.user or "default"
    if isinstance(answers[0], ReplyError) and code(answers[0]) == "NOAUTH":
        remedy = "name the file of its password under `password_file`, and the `user` where it is not Redis' default"
        yield Fault(at, str(session.refusal(answers[0], "ask")), remedy)
        return
    missing: dict[Command, str] = {}
    others: list[str] = []
    for (command, rules), answer in zip(asked, answers, strict=True):
        if isinstance(answer, ReplyError) and code(answer) == "NOPERM":
            missing[command] = rules
        elif isinstance(answer, ReplyError):
            others.append(str(session.refusal(answer, f"ask {command[0]} of")))
    if missing:
        told = ", ".join(str(command[0]) for command in missing)
        yield Fault(at, f"user {user} may not ask {told}", f"run: ACL SETUSER {word(user)} {_joined(missing.values())}")
    yield from (Fault(at, words) for words in dict.fromkeys(others))


def _joined(rules: Iterable[str]) -> str:
    return " ".join(word(each) for rule in rules for each in rule.split(" "))


def pattern(key: str) -> str:
    """The pattern of one key only: what stands for other characters is taken by the letter. ACL SETUSER takes no
    spaces, so each of these is `?`, any one character.
    """
    return re.sub(r"\s", "?", re.sub(r"([*?\[\]\\])", r"\\\1", key))


def word(text: str) -> str:
    """A word as redis-cli reads it: in quotes where it holds anything but plain characters."""
    if re.fullmatch(r"[\w~:.+|@{}/?>-]+", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _login_remedy(settings: RedisServer, cause: BaseException | None) -> str:
    """What to do about a login that was refused; "" where the words say it."""
    if "without any password configured" in str(cause):
        return "set a password there, or take `password_file` away"
    if not isinstance(cause, ReplyError) or code(cause) not in ("NOAUTH", "WRONGPASS"):
        return ""
    file = settings.password_file or "the file that `password_file` names"
    if settings.user is None:
        return f"write the server's password (`requirepass`) to {file}"
    rules = _joined(rules for _, rules in commands(settings))
    return f"run, with what stands in {file} as PASSWORD: ACL SETUSER {word(settings.user)} on >PASSWORD {rules}"
