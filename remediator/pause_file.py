"""The pause file: while it is there nothing is begun, whatever else works.

Everybody who asks for it asks here, so that all of them have the same answer where it cannot be looked for.
"""

from __future__ import annotations

from pathlib import Path

import structlog

log = structlog.get_logger(__name__)


def there(path: Path) -> bool:
    """Is the file there? One that cannot be looked for counts as there. Never raises."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        log.error("the pause file cannot be looked for: paused", file=str(path), why=str(error))
    return True
