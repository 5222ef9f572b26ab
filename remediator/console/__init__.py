"""The console: pages for people under `/console`. `from remediator.console import Console`."""
