"""The file docs/runbook.schema.json, made from the runbook's models: what an editor needs to check and complete one.

`python scripts/runbook_schema.py` writes it; `--check` compares, with exit code 1 when it differs. In: the models, the
actions with their parameters, the diagnoses. Out: one JSON Schema (draft 2020-12). It says what one file can show;
`prepctl runbook:check` knows the rest.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from remediator.actions.registry import PARAMS
from remediator.diagnosis import NAMES as DIAGNOSES
from remediator.durations import PATTERN, human
from remediator.runbooks import Runbook

FILE = Path(__file__).resolve().parents[1] / "docs" / "runbook.schema.json"
Json = Any  # what `json.dumps` takes


def schema() -> dict[str, Json]:
    """The whole schema."""
    made: dict[str, Json] = Runbook.model_json_schema()
    rung = made["$defs"]["Rung"]
    rung["properties"]["action"]["enum"] = sorted(PARAMS)
    rung["allOf"] = [_params(name, model) for name, model in sorted(PARAMS.items())]
    made["properties"]["diagnosis"]["items"]["enum"] = sorted(DIAGNOSES)
    for each in _inside(made):
        _tidy(each)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A runbook of prep-ops, format 1"}
    return {**head, **{key: made[key] for key in made if key != "title"}}


def _params(action: str, model: type[BaseModel]) -> dict[str, Json]:
    """If the rung has this action, its params are the model's, each fixed or taken from a label."""
    own = model.model_json_schema()
    if "$defs" in own:
        raise ValueError(f"{action}: its params have models inside, which this script does not carry over")
    from_label = {"$ref": "#/$defs/FromLabel"}
    plain = {name: {key: each[key] for key in each if key != "title"} for name, each in own["properties"].items()}
    fields = {name: {"anyOf": [each, from_label]} for name, each in plain.items()}
    params = {"properties": fields, "required": own.get("required", []), "additionalProperties": False}
    needed = ["params"] if params["required"] else []
    condition = {"properties": {"action": {"const": action}}, "required": ["action"]}
    return {"if": condition, "then": {"properties": {"params": params}, "required": needed}}


def _inside(node: Json) -> Iterator[dict[str, Json]]:
    """Every mapping of a schema."""
    if isinstance(node, dict):
        yield node
        for each in list(node.values()):
            yield from _inside(each)
    elif isinstance(node, list):
        for each in node:
            yield from _inside(each)


def _tidy(node: dict[str, Json]) -> None:
    """A default as it is written in a runbook, a description on one line, and no title that only repeats the key."""
    if node.get("pattern") == PATTERN and isinstance(node.get("default"), int | float):
        node["default"] = human(node["default"]) if node["default"] else "0s"
    if isinstance(node.get("description"), str):
        node["description"] = " ".join(node["description"].split())
    properties = node.get("properties")
    if isinstance(properties, Mapping):
        for each in properties.values():
            each.pop("title", None)


def text() -> str:
    """The file."""
    return json.dumps(schema(), indent=2) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file, or with `--check` say whether it is what would be written (exit code 1 if not)."""
    parser = argparse.ArgumentParser(prog="scripts/runbook_schema.py", description="Make docs/runbook.schema.json.")
    parser.add_argument("file", type=Path, nargs="?", default=FILE)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    if not options.check:
        options.file.write_text(text(), encoding="utf-8")
        return 0
    if options.file.exists() and options.file.read_text(encoding="utf-8") == text():
        return 0
    sys.stderr.write(f"{options.file} is not what the models say: run python scripts/runbook_schema.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
