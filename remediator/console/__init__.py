"""The console: pages for people under `/console`. `from remediator.console import Console`."""

from remediator.console.console import Console, routes_of

__all__ = ["Console", "routes_of"]
