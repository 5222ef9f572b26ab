"""The page docs/actions.md, made from the actions and the models of their parameters.

`python scripts/actions_docs.py` writes it; `--check` compares, with exit code 1 when it differs. In: the registry, each
action's class and the text at the top of its file. Out: one Markdown page.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from page import keep
from pydantic import BaseModel

from remediator.actions.base import ALWAYS_ASKED, Action, Risk
from remediator.actions.registry import CLASSES
from remediator.durations import PATTERN, human

PAGE = Path(__file__).resolve().parents[1] / "docs" / "actions.md"
_HEAD = """\
# Actions

Made from `remediator/actions/` by `python scripts/actions_docs.py`; a test holds them equal.

All that the remediator, or a person through `prepctl act`, can do to a platform. Each is looked at first (the preview
says exactly what would be touched), journaled as an intent, called once and never repeated, then proven by its
runbook. It touches a subset of the preview, and says the difference. Settings name what each may be done to:
[configuration.md](configuration.md); a rung of a runbook uses one: [runbook-format.md](runbook-format.md).

| action | risk | who says yes | deadline | a second run |
|---|---|---|---|---|
"""
_ASKED = {
    Risk.DESTRUCTIVE: "two persons, in every mode",
    Risk.FINANCIAL: "a person, in every mode",
}


def page() -> str:
    """The whole page."""
    sections = (line for action in _sorted() for line in _section(action))
    return _HEAD + "\n".join(map(_row, _sorted())) + "\n\n" + "\n".join(sections).rstrip("\n") + "\n"


def _sorted() -> Sequence[type[Action]]:
    return sorted(CLASSES, key=lambda action: action.name)


def _row(action: type[Action]) -> str:
    asked = _ASKED.get(action.risk) if action.risk in ALWAYS_ASKED else None
    if asked is None:
        but = f", but a person {action.asks_when}" if action.asks_when else ""
        asked = f"nobody in `auto`{but}; a person in `approve`"
    again = "changes nothing more" if action.idempotent else "is another change"
    return f"| [`{action.name}`](#{action.name}) | {action.risk} | {asked} | {human(action.deadline)} | {again} |"


def _section(action: type[Action]) -> Iterator[str]:
    yield f"## {action.name}\n"
    for module in _modules(action):
        yield _text(module) + "\n"
    yield "| parameter | default | kind | bounds |"
    yield "|---|---|---|---|"
    schema = action.params_model.model_json_schema()
    for name, told in schema["properties"].items():
        yield f"| `{name}` | {_default(name, told, schema)} | {_kind(told)} | {_bounds(told)} |"
    yield f"\n{_meaning(action.params_model)}\n"


def _modules(action: type[Action]) -> Iterator[ModuleType]:
    """The action's own file, then those of what it is a kind of; the contract of all actions left out."""
    for kind in action.__mro__:
        if issubclass(kind, Action) and kind is not Action:
            yield sys.modules[kind.__module__]


def _text(module: ModuleType) -> str:
    return inspect.cleandoc(module.__doc__ or "")


def _meaning(model: type[BaseModel]) -> str:
    """The words of the model and of those that it adds to, as they stand: a list of parameters is in columns."""
    kinds = [kind for kind in reversed(model.__mro__) if issubclass(kind, BaseModel) and kind is not BaseModel]
    text = "\n".join(inspect.cleandoc(kind.__doc__) for kind in kinds if kind.__doc__)
    return f"```text\n{text}\n```"


def _default(name: str, told: dict[str, Any], schema: dict[str, Any]) -> str:
    if name in schema.get("required", ()):
        return "**required**"
    default = told.get("default")
    return f"`{human(default) if _is_duration(told) else str(default).lower()}`"


def _kind(told: dict[str, Any]) -> str:
    if _is_duration(told):
        return "duration"
    return {"string": "text", "integer": "number", "number": "number", "boolean": "`true` or `false`"}[told["type"]]


def _is_duration(told: dict[str, Any]) -> bool:
    return any(each.get("pattern") == PATTERN for each in (told, *told.get("anyOf", ())))


def _bounds(told: dict[str, Any]) -> str:
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "more than",
        "maximum": "at most",
        "minLength": "characters at least",
        "maxLength": "characters at most",
    }
    return ", ".join(f"{word} {told[key]:g}" for key, word in words.items() if key in told)


if __name__ == "__main__":
    sys.exit(keep(PAGE, page(), "actions_docs.py"))
