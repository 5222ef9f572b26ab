"""Taking secrets and personal data out of text before it is stored. Pure.

In: log lines, server answers, SQL. Out: the same with `[redacted:<what>]` in the place of passwords, tokens,
keys, card numbers, e-mail addresses and the credentials of DSNs. It errs towards taking out too much: what
is stored here is read by people in a hurry, and kept for weeks.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# Every repeat is bounded or begins only at the start of a run: half a megabyte of hostile text must not cost minutes.
_PEM = re.compile(r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)", re.DOTALL)
_DSN = re.compile(r"\b([a-z][a-z0-9+.-]{1,30}://)([^\s/@:'\"]{0,128}):([^\s@'\"]{1,512})@", re.IGNORECASE)
_AUTHORIZATION = re.compile(r"\b(bearer|basic|digest|token)(\s+)[A-Za-z0-9._~+/=:-]{6,}", re.IGNORECASE)
_JWT = re.compile(r"(?<![\w.-])eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*")
_KEYS = re.compile(
    r"\b(?:(?:sk|pk|rk|whsec)_(?:live_|test_)?[A-Za-z0-9]{10,}|gh[pousr]_[A-Za-z0-9]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}"
    r"|AKIA[0-9A-Z]{16}|glpat-[A-Za-z0-9_-]{16,})"
)
_NAMED = re.compile(
    r"""
    (?P<name> (?: passw(?:or)?d | pwd | secret | token | api[_-]?key | access[_-]?key | private[_-]?key | credential
                | cookie | session[_-]?id | authorization | cvv | cvc ) [\w.-]{0,40} )
    (?P<gap> \\{0,4}["']? \s{0,8} (?:=>|[=:]) \s{0,8} )
    (?P<value> (?P<escaped> \\{1,4}["'] ) [^"'\\]{0,2000} (?P=escaped)
             | "(?:[^"\\]|\\.){0,2000}" | '(?:[^'\\]|\\.|''){0,2000}'
             | ["'][^\n]{0,2000}
             | [^\s,;&)}\]"'\\]{1,2000} )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_SQL_PASSWORD = re.compile(r"\b(password\s{1,8})(?:E|U&)?'(?:[^']|''){0,2000}'", re.IGNORECASE)
_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}")
_DIGITS = re.compile(r"(?<![\w.])\d(?:[ -]?\d){12,18}(?!\w)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")

_SQL = re.compile(
    r"""
    (?P<comment> /\*.*?(?:\*/|\Z) | --[^\n]* )
  | (?P<dollar> \$(?P<tag>[A-Za-z_]\w*)?\$.*?(?:\$(?P=tag)\$|\Z) )
  | (?P<anydollar> \$\$.*?(?:\$\$|\Z) )
  | (?P<escaped> \b[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z) )
  | (?P<string> (?:\b[uU]&|\b[bBxXnN])?'(?:[^']|'')*(?:'|\Z) )
  | (?P<name> "(?:[^"]|"")*(?:"|\Z) )
  | (?P<word> [A-Za-z_][\w$]* )
  | (?P<param> \$\d+ )
  | (?P<number> (?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)? )
    """,
    re.VERBOSE | re.DOTALL,
)


def redact(text: str) -> str:
    """The text without secrets, card numbers (by Luhn's check digit), IBANs and e-mail addresses."""
    for rule in _RULES:
        text = rule(text)
    return text


def sql_shape(query: str) -> str:
    """A statement without its literals and comments: `WHERE id = 7` becomes `WHERE id = ?`.

    A list of literals becomes one `?`, white space one blank. A statement that was cut in the middle of a
    literal (track_activity_query_size) loses the rest. Names are kept: they are the schema's, not people's.
    """
    shape = " ".join(_SQL.sub(_without_literal, query).split())
    return re.sub(r"\?(?:\s*,\s*\?)+", "?", shape)


def _without_literal(found: re.Match[str]) -> str:
    kind = found.lastgroup
    if found.group("comment"):
        return " "
    if kind in ("name", "word", "param"):
        return found.group(0)
    return "?"


def luhn(digits: str) -> bool:
    """Is the check digit right? Sum of digits, every second from the right doubled (minus 9 when over 9)."""
    total = 0
    for place, character in enumerate(reversed(digits)):
        value = int(character) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _card(found: re.Match[str]) -> str:
    digits = re.sub(r"\D", "", found.group(0))
    return "[redacted:card]" if luhn(digits) and len(set(digits)) > 1 else found.group(0)


def _named(found: re.Match[str]) -> str:
    value = found.group("value")
    quote = found.group("escaped") or (value[0] if value[0] in "\"'" else "")
    return f"{found.group('name')}{found.group('gap')}{quote}[redacted:secret]{quote}"


def _replacing(pattern: re.Pattern[str], with_: str | Callable[[re.Match[str]], str]) -> Callable[[str], str]:
    return lambda text: pattern.sub(with_, text)


# Order matters: whole blocks first, then what would be cut in half by the rules after it.
_RULES: tuple[Callable[[str], str], ...] = (
    _replacing(_PEM, "[redacted:private-key]"),
    _replacing(_DSN, r"\1[redacted:dsn]@"),
    _replacing(_AUTHORIZATION, r"\1\2[redacted:token]"),
    _replacing(_JWT, "[redacted:token]"),
    _replacing(_KEYS, "[redacted:key]"),
    _replacing(_SQL_PASSWORD, r"\1'[redacted:secret]'"),
    _replacing(_NAMED, _named),
    _replacing(_EMAIL, "[redacted:email]"),
    _replacing(_DIGITS, _card),
    _replacing(_IBAN, "[redacted:iban]"),
)
