"""prep-switch: the dead man's switch. It pages when the Watchdog stays away; it belongs on another machine."""
