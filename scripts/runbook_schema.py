"""The schemas of runbooks and of their tests in docs/, made from the models: with them an editor checks and completes.

`python scripts/runbook_schema.py` writes them; `--check` compares, with exit code 1 when one differs. In: the models,
the actions with their parameters, the diagnoses. Out: JSON Schemas (draft 2020-12). They say what one file can show;
`prepctl runbook:check` knows the rest.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from prepctl.rehearsal_file import MOMENT, TestFile
from remediator.actions.registry import PARAMS
from remediator.diagnosis import NAMES as DIAGNOSES
from remediator.durations import PATTERN, human
from remediator.facts import Facts
from remediator.runbooks import Runbook

DOCS = Path(__file__).resolve().parents[1] / "docs"
DRAFT = "https://json-schema.org/draft/2020-12/schema"
Json = Any  # what `json.dumps` takes


def runbook() -> dict[str, Json]:
    """Of a runbook."""
    made: dict[str, Json] = Runbook.model_json_schema()
    rung = made["$defs"]["Rung"]
    rung["properties"]["action"]["enum"] = sorted(PARAMS)
    rung["allOf"] = [_params(name, model) for name, model in sorted(PARAMS.items())]
    made["properties"]["diagnosis"]["items"]["enum"] = sorted(DIAGNOSES)
    return _whole(made, "A runbook of prep-ops, format 1")


def tests() -> dict[str, Json]:
    """Of a file of tests; facts by the names that there are."""
    made: dict[str, Json] = TestFile.model_json_schema()
    names = {"propertyNames": {"enum": [each.name for each in dataclasses.fields(Facts)]}}
    for model in ("Test", "StepTest"):
        made["$defs"][model]["properties"]["facts"] |= names
    return _whole(made, "Tests of a runbook of prep-ops")


def _whole(made: dict[str, Json], title: str) -> dict[str, Json]:
    for each in _inside(made):
        _tidy(each)
    return {"$schema": DRAFT, "title": title, **{key: made[key] for key in made if key != "title"}}


MADE: Mapping[str, Callable[[], dict[str, Json]]] = {"runbook.schema.json": runbook, "runbook-test.schema.json": tests}


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
    if node.get("pattern") in (PATTERN, MOMENT) and isinstance(node.get("default"), int | float):
        node["default"] = human(node["default"]) if node["default"] else "0s"
    if isinstance(node.get("description"), str):
        node["description"] = " ".join(node["description"].split())
    properties = node.get("properties")
    if isinstance(properties, Mapping):
        for each in properties.values():
            each.pop("title", None)


def texts() -> dict[str, str]:
    """Each file's text by its name."""
    return {name: json.dumps(make(), indent=2) + "\n" for name, make in MADE.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or with `--check` say which is not what would be written (exit code 1 if any)."""
    parser = argparse.ArgumentParser(prog="scripts/runbook_schema.py", description="Make the schemas in docs/.")
    parser.add_argument("folder", type=Path, nargs="?", default=DOCS)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    stale = False
    for name, text in texts().items():
        file = options.folder / name
        if not options.check:
            file.write_text(text, encoding="utf-8")
        elif not file.exists() or file.read_text(encoding="utf-8") != text:
            sys.stderr.write(f"{file} is not what the models say: run python scripts/runbook_schema.py\n")
            stale = True
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
