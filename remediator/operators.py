"""Who asks: the people whose tokens the settings name, with their roles, and the shared token of everybody else.

In: the `Authorization` header. Out: a `Caller`, or why not. A name comes from a token, never from a request, so that a
second person is a second person; what a shared token's user says of himself is written down and proves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from remediator.bearer import Answer, Tokens
from remediator.settings import ROLES, Operator, Role


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `name` is None for a shared token."""

    name: str | None
    role: Role

    def may(self, role: Role) -> bool:
        """Does this role hold what `role` may do?"""
        return ROLES.index(self.role) >= ROLES.index(role)


class Operators:
    """Everybody who may use the API."""

    def __init__(self, named: Mapping[str, Operator], shared: Sequence[Path]) -> None:
        self._tokens = [(Caller(name, one.role), Tokens(one.token_files)) for name, one in named.items()]
        if shared:
            self._tokens.append((Caller(None, "operator"), Tokens(shared)))

    @property
    def anybody(self) -> bool:
        """Is any token configured?"""
        return bool(self._tokens)

    @property
    def shared(self) -> bool:
        """Is there a token that is nobody's own?"""
        return any(caller.name is None for caller, _ in self._tokens)

    def person(self, name: str) -> Caller | None:
        """Who is named so in `operators`; for a proxy's word, which proves it instead of a token."""
        return next((caller for caller, _ in self._tokens if caller.name == name), None)

    def check(self, header: str | None) -> Caller | Answer:
        """Whose token it is, or why nobody is let in. All are compared: the time taken tells nothing."""
        answers = [(caller, tokens.check(header)) for caller, tokens in self._tokens]
        found = [caller for caller, answer in answers if answer is Answer.OK]
        if found:
            return found[0]
        given = {answer for _, answer in answers}
        return next((one for one in (Answer.MISSING, Answer.WRONG) if one in given), Answer.UNCONFIGURED)
