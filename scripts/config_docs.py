"""The page docs/configuration.md, made from the settings models of the remediator, the exporter and the switch.

`python scripts/config_docs.py` writes it; `--check` compares, with exit code 1 when it differs. In: the fields, their
defaults and bounds, and the text under each field. Out: one Markdown page. It stands outside of these packages, because
they must not import each other.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from exporter.settings import Settings as ExporterSettings
from remediator.settings import Settings as RemediatorSettings
from switch.settings import Settings as SwitchSettings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"
PROGRAMS: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("Remediator", "`prep-remediator`; the shipped file is `config/remediator.yml`.", RemediatorSettings),
    ("Exporter", "`prep-exporter`; the shipped file is `config/exporter.yml`.", ExporterSettings),
    ("Switch", "`prep-switch`; the shipped file is `config/switch.yml`.", SwitchSettings),
)

_HEAD = """\
# Configuration

Made from `remediator/settings.py`, `exporter/settings.py`, `exporter/collector_settings.py` and
`switch/settings.py` by `python scripts/config_docs.py`; a test holds them equal.

Each program reads one YAML file, which `--config.file` names. A key that is not listed here is refused, and so is a
value out of its range. `--config.check` tells every fault and starts nothing; with a fault the exit code is 2.

- A **duration** is written with its unit: `500ms`, `15s`, `2m`, `1h30m`.
- A **secret** comes by file only. The file is read when it is used, so a new secret needs no restart.
- **required** keys have no default. `<name>` is a name of your choice.
- A **reload** reads all files anew, and takes over all of them or, with a fault, nothing. Exporter: SIGHUP or
  `POST /-/reload` (`docs/web.md`). Remediator: SIGHUP, `prepctl reload` or `POST /-/reload` with an operator's token;
  its `environment`, `listen`, `journal`, `webhook.path`, `alert_pages`, `console.enabled` and `log_format` need a
  restart. The switch has none.
"""
_TABLE = ("| Key | Default | Kind and unit | Meaning |", "|---|---|---|---|")
_DURATIONS = (("d", 86400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0))
_UNITS = ("seconds", "bytes", "days")  # of a plain number, told by the end of its key
_PLAIN: Mapping[Any, str] = {str: "text", Path: "path", bool: "`true` or `false`", int: "number", float: "number"}


@dataclass
class Section:
    """The keys of one model: `path` is where they stand, "" at the top; `about` says what the whole is."""

    path: str
    about: str
    rows: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """As Markdown; nothing when there is nothing to say."""
        if self.path:
            yield from (f"### `{self.path}`", "", self.about, "")
        if self.rows:
            yield from (*_TABLE, *self.rows, "")


def page() -> str:
    """The whole page."""
    lines = [_HEAD]
    for title, what, model in PROGRAMS:
        lines += [f"## {title}", "", what, ""]
        for section in sections(model):
            lines += section.lines()
    return "\n".join(lines).rstrip() + "\n"


def sections(model: type[BaseModel], path: str = "") -> Iterator[Section]:
    """A model and every model below it, parents first."""
    texts, below = docstrings(model), []
    here = Section(path, " ".join((inspect.getdoc(model) or "").split()))
    for name, info in model.model_fields.items():
        key, inner = f"{path}.{name}".lstrip("."), _model_in(info.annotation)
        many = get_origin(info.annotation) is Mapping
        if inner is not None:
            below.append((inner, f"{key}.<name>" if many else key))
        if inner is None or many or info.default is None:  # a part that is always there needs no row of its own
            what = kind(name, info) if inner is None else f"keys of `{below[-1][1]}`"
            here.rows.append(f"| `{key}` | {default(info)} | {what} | {texts.get(name, '')} |")
    yield here
    for inner, key in below:
        yield from sections(inner, key)


def docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The text under each field of a model's class and of those that it inherits from, on one line each."""
    texts: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if issubclass(each, BaseModel) and each is not BaseModel:
            texts |= _own_docstrings(each)
    return texts


def _own_docstrings(model: type[BaseModel]) -> dict[str, str]:
    (found,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    if not isinstance(found, ast.ClassDef):
        raise TypeError(f"{model} is not made by a class statement")
    texts = {}
    for item, after in zip(found.body, found.body[1:], strict=False):
        if (
            isinstance(item, ast.AnnAssign)
            and isinstance(item.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            texts[item.target.id] = " ".join(str(after.value.value).split())
    return texts


def kind(name: str, info: FieldInfo) -> str:
    """What is written there, with unit and bounds: `duration, more than 0s, at most 5s`."""
    bounds = []
    for each in info.metadata:
        match each:
            case Gt(gt=value):
                bounds.append(f"more than {_number(value, info)}")
            case Ge(ge=value):
                bounds.append(f"at least {_number(value, info)}")
            case Lt(lt=value):
                bounds.append(f"less than {_number(value, info)}")
            case Le(le=value):
                bounds.append(f"at most {_number(value, info)}")
    what = _type(info.annotation, info.metadata)
    if what == "number":
        what = next((unit for unit in _UNITS if name.endswith(unit)), what)
    return ", ".join([what, *bounds])


def default(info: FieldInfo) -> str:
    """The default as one writes it in YAML, or that there is none."""
    if info.is_required():
        return "required"
    value = info.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(str(each) for each in value)}]`"
    if isinstance(value, int | float):
        return f"`{_number(value, info)}`"
    if value is None or value == {}:
        return "none"
    return f"`{value}`"


def duration(seconds: float) -> str:
    """5400.0 -> `90m`: in the largest unit of which it is a whole number."""
    for unit, size in _DURATIONS:
        if seconds and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds * 1000:.0f}ms" if seconds else "0s"


def _number(value: Any, info: FieldInfo) -> str:
    return duration(float(value)) if _is_duration(info.metadata) else f"{value:.12g}"


def _is_duration(metadata: Sequence[Any]) -> bool:
    return any(isinstance(each, BeforeValidator) for each in metadata)


def _type(annotation: Any, metadata: Sequence[Any]) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):  # Annotated inside of a tuple, a mapping or a union
        return _type(inner[0], annotation.__metadata__)
    if _is_duration(metadata):
        return "duration"
    if "^https?" in repr(metadata):
        return "URL"
    if origin in (Union, UnionType):
        return " or ".join("`null`" if each is NoneType else _type(each, ()) for each in inner)
    if origin is Literal:
        return "one of " + ", ".join(f"`{each}`" for each in inner)
    if origin is tuple:
        return f"list: {_type(inner[0], ())}"
    if origin is Mapping:
        return f"mapping: {_type(inner[0], ())} to {_type(inner[1], ())}"
    return _PLAIN[annotation]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model inside of `Model`, `Model | None` or `Mapping[..., Model]`; None for a plain setting."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _model_in(each)) is not None), None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or with `--check` say whether the file is what would be written (exit code 1 if not)."""
    parser = argparse.ArgumentParser(prog="scripts/config_docs.py", description="Make docs/configuration.md.")
    parser.add_argument("file", type=Path, nargs="?", default=PAGE)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    if not options.check:
        options.file.write_text(page(), encoding="utf-8")
        return 0
    if options.file.exists() and options.file.read_text(encoding="utf-8") == page():
        return 0
    sys.stderr.write(f"{options.file} is not what the settings say: run python scripts/config_docs.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
