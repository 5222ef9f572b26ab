"""Text from outside, made safe for a terminal: in logs for people, and in what prepctl prints."""

from __future__ import annotations


def printable(text: str) -> str:
    """One line without characters that a terminal acts on: they are shown as `\\x1b`, `\\u202e`, …"""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode() for char in text
    )
