"""What people and replicas look up: episodes without folding them, documents, marks of the journal itself."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, bindparam, select

from remediator.journal.tables import charges, documents, episodes, meta, work
from remediator.journal.transaction import Tx
from remediator.journal.values import EpisodeRow


def _rows() -> Select[Any]:
    return select(
        *(column for column in episodes.c),
        work.c.due_at,
        work.c.owner,
        work.c.claims,
    ).outerjoin(work, work.c.episode == episodes.c.episode)


_ONE = _rows().where(episodes.c.episode == bindparam("of"))
_OPEN = _rows().where(episodes.c.closed_at.is_(None))  # sorted here: an ORDER BY would walk all that ever were
_NEWEST_FIRST = (episodes.c.opened_at.desc(), episodes.c.episode.desc())
_LATEST = {
    None: _rows().order_by(*_NEWEST_FIRST).limit(bindparam("most")),
    False: _rows().where(episodes.c.closed_at.is_not(None)).order_by(*_NEWEST_FIRST).limit(bindparam("most")),
}
_OF_ATTEMPT = select(charges.c.episode).where(charges.c.attempt == bindparam("of"))
ALL = 2**31 - 1
_META = select(meta.c.value).where(meta.c.key == bindparam("of"))
_DOCUMENT = select(documents.c.body).where(documents.c.digest == bindparam("of"))


def one(tx: Tx, episode: str) -> EpisodeRow | None:
    """The index entry of one episode."""
    row = tx.row(_ONE, {"of": episode})
    return None if row is None else _row(row)


def open_ones(tx: Tx) -> list[EpisodeRow]:
    """All that are open, the oldest first."""
    return sorted((_row(row) for row in tx.rows(_OPEN)), key=lambda row: (row.opened_at, row.episode))


def latest(tx: Tx, is_open: bool | None, most: int | None) -> list[EpisodeRow]:
    """The latest, the newest last; of both kinds for None."""
    if is_open:
        found = open_ones(tx)
        return found if most is None else found[-most:]
    return [_row(row) for row in tx.rows(_LATEST[is_open], {"most": ALL if most is None else most})][::-1]


def episode_of(tx: Tx, attempt: str) -> str | None:
    """Whose attempt it is."""
    row = tx.row(_OF_ATTEMPT, {"of": attempt})
    return None if row is None else str(row.episode)


def _row(row: Any) -> EpisodeRow:
    return EpisodeRow(
        episode=row.episode,
        key=row.key,
        label=row.label,
        runbook=row.runbook,
        severity=row.severity,
        firing=bool(row.firing),
        opened_at=row.opened_at,
        closed_at=row.closed_at,
        due_at=row.due_at,
        owner=row.owner,
        claims=row.claims or 0,
        refused=row.refused,
    )


def mark(tx: Tx, key: str) -> str | None:
    """A mark of the journal itself, None when it was never set."""
    row = tx.row(_META, {"of": key})
    return None if row is None else str(row.value)


def set_mark(tx: Tx, key: str, value: str) -> None:
    """Set a mark."""
    tx.run(tx.insert.replace(meta, "value"), {"key": key, "value": value})


def put_document(tx: Tx, digest: str, body: str) -> None:
    """Keep a document under its digest; the same digest is the same document."""
    tx.run(tx.insert.ignore(documents), {"digest": digest, "body": body})


def document(tx: Tx, digest: str) -> str | None:
    """The document with this digest."""
    row = tx.row(_DOCUMENT, {"of": digest})
    return None if row is None else str(row.body)
