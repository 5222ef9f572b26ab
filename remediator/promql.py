"""The vector selectors inside a PromQL expression, so that one can ask how fresh each is. Pure.

Not a parser: it finds metric names with their matchers and leaves out what only looks like one (functions,
keywords, label lists of `by`, `without`, `on`, `ignoring`, `group_left`, `group_right`). An expression that
it reads wrongly gives a selector that Prometheus refuses or finds nothing for, and that is "unknown".
Source: prometheus.io/docs/prometheus/latest/querying/basics/ (as of 3.5).
"""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""
    (?P<comment> \#[^\n]* )
  | (?P<string> "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' | `[^`]*` )
  | (?P<range> \[[^\]]*\] )
  | (?P<matchers> \{(?:[^{}"'`]|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`)*\} )
  | (?P<number> (?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?:ms|[smhdwy])?(?:\d+(?:ms|[smhdwy]))*) )
  | (?P<name> [a-zA-Z_:][\w:]* )
  | (?P<open> \( ) | (?P<close> \) )
  | (?P<other> \S )
    """,
    re.VERBOSE,
)
_LISTS = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_WORDS = _LISTS | frozenset({"and", "or", "unless", "bool", "offset", "inf", "nan", "atan2", "start", "end"})


def selectors(expression: str) -> tuple[str, ...]:
    """Every vector selector once, in order, without range, offset and `@`: `rate(a{b="c"}[5m])` gives `a{b="c"}`."""
    tokens = [(match.lastgroup or "", match.group()) for match in _TOKEN.finditer(expression)]
    tokens = [token for token in tokens if token[0] != "comment"]
    found: list[str] = []
    at = 0
    while at < len(tokens):
        kind, text = tokens[at]
        following = tokens[at + 1] if at + 1 < len(tokens) else ("", "")
        if kind == "name" and text.lower() in _LISTS and following[0] == "open":
            at = _after_list(tokens, at + 1)
            continue
        if kind == "matchers":
            found.append(text)
        elif kind == "name" and following[0] == "matchers":
            found.append(text + following[1])
            at += 1
        elif kind == "name" and following[0] != "open" and text.lower() not in _WORDS and not _aggregation(tokens, at):
            found.append(text)
        at += 1
    return tuple(dict.fromkeys(found))


def _after_list(tokens: list[tuple[str, str]], at: int) -> int:
    """The index after a label list's closing parenthesis."""
    while at < len(tokens) and tokens[at][0] != "close":
        at += 1
    return at + 1


def _aggregation(tokens: list[tuple[str, str]], at: int) -> bool:
    """`sum by (x) (…)`: a name before `by` or `without` is an aggregation, not a metric."""
    following = tokens[at + 1] if at + 1 < len(tokens) else ("", "")
    return following[0] == "name" and following[1].lower() in ("by", "without")
