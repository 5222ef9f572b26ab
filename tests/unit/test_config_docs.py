"""docs/configuration.md is what the settings say, and says all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from exporter.settings import Settings as ExporterSettings
from remediator.durations import seconds
from remediator.settings import Settings as RemediatorSettings
from scripts import config_docs
from switch.settings import Settings as SwitchSettings

ROOT = Path(__file__).resolve().parents[2]
PAGE = config_docs.page()
ROW = re.compile(r"^\| `([^`]+)` \| (.+?) \| (.+?) \| (.*) \|$", re.MULTILINE)
PARTS: dict[str, type[BaseModel]] = {
    "Remediator": RemediatorSettings,
    "Exporter": ExporterSettings,
    "Switch": SwitchSettings,
}


def part(title: str) -> dict[str, tuple[str, str, str]]:
    """Key -> default, kind, meaning, of one program."""
    text = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return {key: (default, kind, meaning) for key, default, kind, meaning in ROW.findall(text)}


def leaves(schema: Mapping[str, Any], here: Mapping[str, Any], path: str) -> Iterator[str]:
    """Every key below a place in a JSON schema: pydantic's own walk over the models, not the page's."""
    for choice in here.get("anyOf", ()):
        yield from leaves(schema, choice, path)
    if "$ref" in here:
        name = here["$ref"].rsplit("/", 1)[-1]
        for key, value in schema["$defs"][name]["properties"].items():
            yield from _below(schema, value, f"{path}.{key}")
    many = here.get("additionalProperties")
    if isinstance(many, dict) and ("$ref" in many or "anyOf" in many):
        yield from leaves(schema, many, f"{path}.<name>")


def _below(schema: Mapping[str, Any], value: Mapping[str, Any], path: str) -> Iterator[str]:
    found = list(leaves(schema, value, path))
    yield from found or [path]


def keys_of(model: type[BaseModel]) -> set[str]:
    schema = model.model_json_schema()
    return {
        key.lstrip(".") for name, value in schema["properties"].items() for key in _below(schema, value, f".{name}")
    }


def written(data: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """The keys of a file that have a value, with the names that were chosen in it."""
    for name, value in data.items():
        key = f"{path}.{name}".lstrip(".")
        if isinstance(value, dict):
            yield from written(value, key)
        else:
            yield key


def test_the_page_is_made_from_the_settings() -> None:
    """docs/configuration.md equals its generator."""
    assert config_docs.main(["--check"]) == 0


@pytest.mark.parametrize("title", PARTS)
def test_every_key_has_its_row_and_its_meaning(title: str) -> None:
    """By pydantic's own schema: none is left out, and none is without a default, a kind and a sentence."""
    rows = part(title)
    assert keys_of(PARTS[title]) <= rows.keys()
    wrong = [key for key, (default, kind, meaning) in rows.items() if not (default and kind and meaning.endswith("."))]
    assert wrong == []


@pytest.mark.parametrize(
    ("title", "file"), [("Remediator", "remediator.yml"), ("Exporter", "exporter.yml"), ("Switch", "switch.yml")]
)
def test_every_key_of_the_shipped_file_is_on_the_page(title: str, file: str) -> None:
    """Whoever reads a shipped file finds each of its keys."""
    known = [re.escape(key).replace("<name>", r"[^.]+") for key in part(title)]
    data = yaml.safe_load((ROOT / "config" / file).read_text())
    found = [key for key in written(data) if not any(re.match(rf"{pattern}($|\.|/)", key) for pattern in known)]
    assert found == []


def test_defaults_are_written_as_the_file_takes_them() -> None:
    """A duration comes with its unit and is read back as the same number; so do bounds."""
    rows = part("Remediator")
    assert rows["journal.lease"][:2] == ("`6s`", "duration")
    assert rows["alertmanager.keep"][0] == "`30m`"
    assert rows["guards.look_max_age"][1] == "duration, more than 0s, at most 5s"
    assert rows["listen.port"][1] == "number, at least 0, at most 65535"
    assert rows["webhook.max_bytes"][1] == "bytes, at least 1024"
    assert rows["mode"][:2] == ("`shadow`", "one of `shadow`, `approve`, `auto`")
    assert rows["prometheus.urls"][:2] == ("required", "list: URL")
    assert part("Exporter")["scrape.timeout_offset"][0] == "`500ms`"


@pytest.mark.parametrize("value", [0.05, 0.5, 1.0, 90.0, 5400.0, 7200.0, 86400.0, 2.5])
def test_a_duration_is_read_back(value: float) -> None:
    """What the page says can be put into the file."""
    assert seconds(config_docs.duration(value)) == pytest.approx(value)


def test_a_page_that_was_edited_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A page that differs is exit code 1, with the command that mends it."""
    path = tmp_path / "configuration.md"
    assert config_docs.main([str(path)]) == 0
    path.write_text(path.read_text() + "more")
    assert config_docs.main([str(path), "--check"]) == 1
    assert "python scripts/config_docs.py" in capsys.readouterr().err
