"""Rule groups as the text of a rule file: the same groups give the same bytes.

In: plain data. Out: YAML that a person can read, long expressions line by line.
"""

from __future__ import annotations

from typing import Any

import yaml

_WIDTH = 120


class _Dumper(yaml.SafeDumper):
    """Lists are indented, nothing is written by reference."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 - PyYAML's signature
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text + ("\n" if style else ""), style=style)


_Dumper.add_representer(str, _string)


def rule_file(groups: list[dict[str, Any]], source: str) -> str:
    """The text of a rule file. `source` is the name of the file that it was made from."""
    body = yaml.dump({"groups": groups}, Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=True)
    return f"# Made from {source} by `prepctl slo:generate`. Change that file and run it again.\n{body}"
