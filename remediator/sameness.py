"""Is it the same that was seen, approved or acted on? By what tells one life of a thing from every other."""

from __future__ import annotations

import hashlib
import json

from remediator.actions.base import Item, Preview
from remediator.ledger import Attempt
from remediator.runbooks import Rung
from remediator.world import World

IDENTITY = ("id", "started_at", "pid", "backend_start", "query_start", "failed_at", "run_id", "from", "factor")
"""Of an item: what tells one life of a container or of a Redis, one query of a session, one failure of a payment, one
value that is to be changed from every other."""


def digest_of(rung: Rung, world: World) -> str:
    """What an approval is bound to: action, target and every item's identity; sha256 in hex. "" without a preview.

    Not the measures of an item, which change from look to look while it is the same container or session.
    """
    return "" if world.preview is None else digest_of_preview(rung, world.preview)


def digest_of_preview(rung: Rung, preview: Preview) -> str:
    """The same, where there is only a preview."""
    # A yes to what loses nothing is none to what has come to lose something; how much changes from look to look.
    return _digest(rung, preview, ["loses"] if preview.asks else [])


def digest_of_target(rung: Rung, world: World) -> str:
    """What would be acted on and nothing else: the same while it is the same container or session. "" without one."""
    return "" if world.preview is None else _digest(rung, world.preview, [])


def _digest(rung: Rung, preview: Preview, more: list[str]) -> str:
    items = sorted(json.dumps([(name, item[name]) for name in IDENTITY if name in item]) for item in preview.items)
    return hashlib.sha256(json.dumps([rung.name, rung.action, preview.resource, items, *more]).encode()).hexdigest()


def same(last: Attempt | None, world: World) -> bool:
    """Does the preview touch nothing but what the attempt before was about? An empty one touches nothing."""
    if world.preview is None:
        return True
    before = [_identity(item) for item in last.items] if last else []
    return all(_identity(item) in before for item in world.preview.items)


def _identity(item: Item) -> tuple[object, ...]:
    """What does not change while it is the same container or query, also after it was acted on."""
    return tuple(item.get(name) for name in ("id", "pid", "backend_start", "query_start"))
