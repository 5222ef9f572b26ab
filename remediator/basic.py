"""HTTP basic authentication with one user, whose passwords come by file.

In: the `Authorization` header of a request. Out: one `Answer`. Neither the user's name nor a password that was offered
is logged or part of a message; both are compared in constant time.
"""

from __future__ import annotations

import base64
import binascii

from remediator.bearer import Answer
from remediator.secret_files import SecretFiles, one_of
from remediator.settings import BasicAuth


class Passwords:
    """The user of the webhook; several passwords are valid at once while they are rotated."""

    def __init__(self, settings: BasicAuth) -> None:
        self._user = settings.user.encode()
        self._files = SecretFiles(settings.password_files, "password")

    def check(self, header: str | None) -> Answer:
        """Is this `Authorization` header ours? RFC 7617, section 2: `Basic base64(user:password)`, as UTF-8."""
        passwords = self._files.now()
        if not passwords:
            return Answer.UNCONFIGURED
        scheme, _, given = (header or "").strip().partition(" ")
        if scheme.lower() != "basic" or not given.strip():
            return Answer.MISSING
        try:
            user, _, password = base64.b64decode(given.strip(), validate=True).partition(b":")
        except (binascii.Error, ValueError):  # ValueError: a header that is not ASCII
            return Answer.WRONG
        # Both are compared, whatever the first comparison says: the time taken does not tell whether the user exists.
        known, right = one_of(user, [self._user]), one_of(password, passwords)
        return Answer.OK if known and right else Answer.WRONG
