"""Settings and clients of the remediator's adapters, as the tests of this folder need them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from remediator.actions.base import Action, Call, Preview
from remediator.clock import SystemClock
from remediator.settings import Settings

CLOCK = SystemClock()
NOWHERE = "http://127.0.0.1:9"  # discard: nobody listens there
ATTEMPT = "0123456789abcdef0123456789abcdef"


def settings(folder: Path, **parts: Any) -> Settings:
    """Settings with every mandatory part filled; `parts` replace whole sections."""
    return Settings.model_validate(written(folder, **parts))


def written(folder: Path, **parts: Any) -> dict[str, Any]:
    """The same as they stand in a file, but for the type of its paths."""
    base: dict[str, Any] = {
        "environment": "test",
        "pause_file": folder / "pause",
        "webhook": {"token_files": [folder / "token"]},
        "journal": {"evidence_dir": folder / "evidence"},
        "prometheus": {"urls": [NOWHERE], "scrape_interval": "1s", "timeout": "2s"},
        "alertmanager": {"urls": [NOWHERE], "timeout": "2s"},
        "docker": {"gate_url": NOWHERE, "project": "prep", "young": "1s"},
    }
    return {**base, **parts}


def call_of(action: Action, preview: Preview, params: Mapping[str, Any], **changes: Any) -> Call:
    """The call that the engine would make after this preview; `changes` replace fields."""
    fields: dict[str, Any] = {
        "attempt": ATTEMPT,
        "params": action.params_model.model_validate(dict(params)),
        "items": preview.items,
        "resource": preview.resource,
        "start_by": preview.target_now + 10.0,
        "deadline": action.deadline,
        "intent_at": CLOCK.now(),
    }
    return Call(**{**fields, **changes})
