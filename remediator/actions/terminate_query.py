"""Terminate the session of a runaway reading query, where cancelling it did not help."""

from __future__ import annotations

from typing import ClassVar

from remediator.actions.base import Risk
from remediator.actions.ending_query import EndingQuery


class TerminateQuery(EndingQuery):
    """`pg_terminate_backend` for exactly the queries of the preview; their clients lose the connection."""

    name: ClassVar[str] = "terminate_query"
    risk: ClassVar[Risk] = Risk.DISRUPTIVE
    idempotent: ClassVar[bool] = False
    function: ClassVar[str] = "pg_terminate_backend"
    verb: ClassVar[str] = "terminate"
