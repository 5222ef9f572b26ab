"""Cancel a runaway reading query: the session stays, its client gets error 57014 and may go on."""

from __future__ import annotations

from typing import ClassVar

from remediator.actions.base import Risk
from remediator.actions.ending_query import EndingQuery


class CancelQuery(EndingQuery):
    """`pg_cancel_backend` for exactly the queries of the preview."""

    name: ClassVar[str] = "cancel_query"
    risk: ClassVar[Risk] = Risk.REVERSIBLE
    idempotent: ClassVar[bool] = True
    function: ClassVar[str] = "pg_cancel_backend"
    verb: ClassVar[str] = "cancel"
