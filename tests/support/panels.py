"""What a panel of a committed dashboard says of alerts, read from its JSON alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def steps(panel: Mapping[str, Any]) -> list[float]:
    """The numbers at which a panel changes its colour."""
    thresholds = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", ())
    return [each["value"] for each in thresholds if each.get("value") is not None]


def named_alerts(panel: Mapping[str, Any]) -> list[str]:
    """Alerts whose numbers the panel's description says that it shows."""
    return re.findall(r"(\w+) \(P\d\) tells when it is", panel["description"])
